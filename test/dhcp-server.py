# SPDX-License-Identifier: Apache-2.0
# A DHCP server for one address (RFC 2131), for tests: it answers DISCOVER and REQUEST with 10.10.10.77/24, and prints each
# message that it gets. It runs in the namespace of the router.
import socket
import struct

NAMES = {1: 'DISCOVER', 3: 'REQUEST', 7: 'RELEASE'}
ADDRESS, SERVER = socket.inet_aton('10.10.10.77'), socket.inet_aton('10.10.10.1')


def options(data):
    found = {}
    while data and data[0] != 255:
        if data[0] == 0:
            data = data[1:]
            continue
        found[data[0]] = data[2 : 2 + data[1]]
        data = data[2 + data[1] :]
    return found


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
# A broadcast leaves by the segment, whatever other links there are.
server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'br0')
server.bind(('', 67))
# As ISC dhcpd and Kea listen: a client that gives its address back sends from 0.0.0.0 to the server's address, and Linux
# drops that before a UDP socket would get it.
listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
listener.bind(('br0', 0x0800))
print('ready', flush=True)
while True:
    packet = listener.recv(2048)
    udp = packet[(packet[0] & 15) * 4 :]
    if packet[9] != socket.IPPROTO_UDP or udp[2:4] != b'\0\x43':
        continue
    message = udp[8:]
    kind = options(message[240:]).get(53, b'\0')[0]
    print(NAMES.get(kind, kind), flush=True)
    if kind not in (1, 3):
        continue
    answer = struct.pack('!BBBB4sHH', 2, 1, 6, 0, message[4:8], 0, 0x8000)
    answer += bytes(4) + ADDRESS + SERVER + bytes(4) + message[28:44] + bytes(192) + b'\x63\x82\x53\x63'
    answer += bytes([53, 1, 2 if kind == 1 else 5, 54, 4]) + SERVER + bytes([51, 4, 0, 0, 14, 16])
    answer += bytes([1, 4, 255, 255, 255, 0, 3, 4]) + SERVER + bytes([255])
    server.sendto(answer, ('255.255.255.255', 68))
