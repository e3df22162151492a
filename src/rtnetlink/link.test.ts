// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatMac, tryParseMac } from '#base'
import type { Request } from '#netlink'
import { addLink, decodeLink, deleteLink, dumpLinks, getLink, IFF_UP, setArpNotify, setLink } from './link.ts'

// Bytes captured from ip of iproute2 6.1.0 (strace of its sendmsg) and from Linux 6.18's answers to it, without the
// netlink header, one attribute per line, indented where it is within another. A kernel without dummy or ipvlan refused
// those two; what ip sent is the same. Ours end IFLA_INFO_KIND with a zero, ip's does not: the kernel takes both, and where
// lengths differ by it, ip's stands beside.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const mac = (text: string) => tryParseMac(text)!

function assertRequest(request: Request, type: number, flags: number, body: Uint8Array): void {
  // encodeBatch adds NLM_F_REQUEST.
  assert.deepEqual([request.type, request.flags | 1, request.body.toHex()], [type, flags, body.toHex()])
}

test('addLink: writes a veth and its peer as ip does', () => {
  // ip link add veth1 mtu 1400 address 02:00:00:00:00:01 type veth peer name eth0 mtu 1400 address 02:00:00:00:00:02
  const bytes = golden(
    '00000000000000000000000000000000', // ifinfomsg
    '0800040078050000', // IFLA_MTU
    '0a0001000200000000010000', // IFLA_ADDRESS
    '0a0003007665746831000000', // IFLA_IFNAME veth1
    '48001200', // IFLA_LINKINFO (ip: 4400)
    '090001007665746800000000', //   IFLA_INFO_KIND veth (ip: 0800010076657468)
    '38000200', //   IFLA_INFO_DATA
    '34000100', //     VETH_INFO_PEER
    '00000000000000000000000000000000', //       ifinfomsg of the peer
    '0800040078050000', //       IFLA_MTU
    '0a0001000200000000020000', //       IFLA_ADDRESS
    '090003006574683000000000', //       IFLA_IFNAME eth0
  )
  const peer = { mtu: 1400, address: mac('02:00:00:00:00:02'), ifname: 'eth0' }
  const link = { mtu: 1400, address: mac('02:00:00:00:00:01'), ifname: 'veth1' }
  assertRequest(addLink({ ...link, linkinfo: { kind: 'veth', data: { peer } } }), 16, 0x605, bytes)
})

test('addLink: writes a dummy that is up at once as ip does', () => {
  // ip link add dummy0 up type dummy
  const bytes = golden(
    '00000000000000000100000001000000', // ifinfomsg: IFF_UP, and that it is meant
    '0b00030064756d6d79300000', // IFLA_IFNAME dummy0
    '10001200', // IFLA_LINKINFO
    '0a00010064756d6d79000000', //   IFLA_INFO_KIND dummy (ip: 0900)
  )
  assertRequest(addLink({ ifname: 'dummy0', linkinfo: { kind: 'dummy' } }, { up: true }), 16, 0x605, bytes)
})

test('addLink: writes a bridge with its settings as ip does', () => {
  // ip link add name br0 type bridge forward_delay 0 ageing_time 30000 vlan_filtering 1 stp_state 0 mcast_snooping 0
  const bytes = golden(
    '00000000000000000000000000000000', // ifinfomsg
    '0800030062723000', // IFLA_IFNAME br0
    '3c001200', // IFLA_LINKINFO
    '0b0001006272696467650000', //   IFLA_INFO_KIND bridge (ip: 0a00)
    '2c000200', //   IFLA_INFO_DATA
    '0800010000000000', //     IFLA_BR_FORWARD_DELAY
    '0800040030750000', //     IFLA_BR_AGEING_TIME
    '0500070001000000', //     IFLA_BR_VLAN_FILTERING
    '0800050000000000', //     IFLA_BR_STP_STATE
    '0500170000000000', //     IFLA_BR_MCAST_SNOOPING
  )
  const data = { forwardDelay: 0, ageingTime: 30_000, vlanFiltering: 1, stpState: 0, mcastSnooping: 0 }
  assertRequest(addLink({ ifname: 'br0', linkinfo: { kind: 'bridge', data } }), 16, 0x605, bytes)
})

test('setLink: writes the settings of a bridge port as ip does', () => {
  // ip link set dev v0 type bridge_slave hairpin on isolated on
  const bytes = golden(
    '00000000040000000000000000000000', // ifinfomsg: index 4
    '2c001200', // IFLA_LINKINFO (ip: 2800)
    '110001006272696467655f736c61766500000000', //   IFLA_INFO_KIND bridge_slave (ip: 1000)
    '14000500', //   IFLA_INFO_SLAVE_DATA
    '0500040001000000', //     IFLA_BRPORT_MODE
    '0500210001000000', //     IFLA_BRPORT_ISOLATED
  )
  const linkinfo = { kind: 'bridge_slave', port: { hairpin: 1, isolated: 1 } }
  assertRequest(setLink({ index: 4 }, { linkinfo }), 16, 0x5, bytes)
})

test('addLink: writes a macvlan on its parent as ip does', () => {
  // ip link add link v2 name mac0 type macvlan mode bridge
  const bytes = golden(
    '00000000000000000000000000000000', // ifinfomsg
    '0800050005000000', // IFLA_LINK
    '090003006d61633000000000', // IFLA_IFNAME mac0
    '1c001200', // IFLA_LINKINFO
    '0c0001006d6163766c616e00', //   IFLA_INFO_KIND macvlan (ip: 0b00)
    '0c000200', //   IFLA_INFO_DATA
    '0800010004000000', //     IFLA_MACVLAN_MODE
  )
  const linkinfo = { kind: 'macvlan', data: { mode: 4 } } as const
  assertRequest(addLink({ link: 5, ifname: 'mac0', linkinfo }), 16, 0x605, bytes)
})

test('addLink: writes an ipvlan on its parent as ip does', () => {
  // ip link add link v2 name ipv0 type ipvlan mode l3 bridge
  const bytes = golden(
    '00000000000000000000000000000000', // ifinfomsg
    '0800050005000000', // IFLA_LINK
    '090003006970763000000000', // IFLA_IFNAME ipv0
    '24001200', // IFLA_LINKINFO
    '0b0001006970766c616e0000', //   IFLA_INFO_KIND ipvlan (ip: 0a00)
    '14000200', //   IFLA_INFO_DATA
    '0600010001000000', //     IFLA_IPVLAN_MODE
    '0600020000000000', //     IFLA_IPVLAN_FLAGS
  )
  const linkinfo = { kind: 'ipvlan', data: { mode: 1, flags: 0 } } as const
  assertRequest(addLink({ link: 5, ifname: 'ipv0', linkinfo }), 16, 0x605, bytes)
})

test('addLink: refuses a name of 16 bytes', () => {
  assert.throws(() => addLink({ ifname: 'sixteen-letters-' }), /longer than 15 bytes/)
})

test('setLink: brings a link up and down as ip does', () => {
  // ip link set v1 up; ip link set v1 down
  assertRequest(setLink({ index: 6 }, { up: true }), 16, 0x5, golden('00000000060000000100000001000000'))
  assertRequest(setLink({ index: 6 }, { up: false }), 16, 0x5, golden('00000000060000000000000001000000'))
})

test('setLink: writes an alias as ip does, with the zero that the kernel does not need', () => {
  // ip link set v1 alias "mooring veth-route net c1 eth0"
  const bytes = golden(
    '00000000060000000000000000000000', // ifinfomsg
    '230014006d6f6f72696e6720766574682d726f757465206e657420633120657468300000', // IFLA_IFALIAS (ip: 2200)
  )
  assertRequest(setLink({ index: 6 }, { ifalias: 'mooring veth-route net c1 eth0' }), 16, 0x5, bytes)
})

test('setLink: writes group and namespace as ip does', () => {
  // ip link set v1 group 4242; ip link set v2 netns 1
  const group = golden(
    '00000000060000000000000000000000', // ifinfomsg
    '08001b0092100000', // IFLA_GROUP
  )
  assertRequest(setLink({ index: 6 }, { group: 4242 }), 16, 0x5, group)
  const netns = golden(
    '00000000080000000000000000000000', // ifinfomsg
    '0800130001000000', // IFLA_NET_NS_PID
  )
  assertRequest(setLink({ index: 8 }, { netnsPid: 1 }), 16, 0x5, netns)
})

test('deleteLink: removes a whole group as ip does', () => {
  // ip link del group 4242
  const bytes = golden(
    '00000000000000000000000000000000', // ifinfomsg
    '08001b0092100000', // IFLA_GROUP
  )
  assertRequest(deleteLink({ group: 4242 }), 17, 0x5, bytes)
})

test('getLink: asks by name as ip does, without the mask for what we do not read, and without an acknowledgement', () => {
  // ip link show nothere
  const bytes = golden(
    '00000000000000000000000000000000', // ifinfomsg
    '0c0003006e6f746865726500', // IFLA_IFNAME nothere
  )
  assertRequest(getLink({ ifname: 'nothere' }), 18, 0x1, bytes)
  assertRequest(getLink({ index: 5 }), 18, 0x1, golden('00000000050000000000000000000000'))
  const long = golden(
    '00000000000000000000000000000000', // ifinfomsg
    '17003500', // IFLA_ALT_IFNAME
    '656e7833303a386134633a66663a3030303000', // enx30:8a4c:ff:0000
    '00',
  )
  assertRequest(getLink({ ifname: 'enx30:8a4c:ff:0000' }), 18, 0x1, long)
  assertRequest(dumpLinks(), 18, 0x301, golden('00000000000000000000000000000000'))
})

// ip link show v1, the kernel's answer without its statistics
const vethBytes = golden(
  '00000100060000000210000000000000', // ifinfomsg
  '0700030076310000', // IFLA_IFNAME v1
  '08000d00e8030000', // IFLA_TXQLEN
  '0500100002000000', // IFLA_OPERSTATE
  '0500110000000000', // IFLA_LINKMODE
  '08000400dc050000', // IFLA_MTU
  '08001b0092100000', // IFLA_GROUP
  '08001e0000000000', // IFLA_PROMISCUITY
  '230014006d6f6f72696e6720766574682d726f757465206e657420633120657468300000', // IFLA_IFALIAS
  '0a000100ce0cb571f93d0000', // IFLA_ADDRESS
  '0a000200ffffffffffff0000', // IFLA_BROADCAST
  '0c002b000500020000000000', // IFLA_XDP
  '10001200', // IFLA_LINKINFO
  '090001007665746800000000', //   IFLA_INFO_KIND veth
  '0800050005000000', // IFLA_LINK
  '0c0006006e6f717565756500', // IFLA_QDISC noqueue
)

test('setArpNotify: nests the setting in its family, as the kernel reads it', () => {
  const bytes = golden(
    '00000000050000000000000000000000', // ifinfomsg: index 5
    '14001a00', // IFLA_AF_SPEC
    '10000200', //   AF_INET
    '0c000100', //     IFLA_INET_CONF
    '0800160001000000', //       IPV4_DEVCONF_ARP_NOTIFY
  )
  assertRequest(setArpNotify(5), 16, 0x5, bytes)
})

test('decodeLink: reads what the kernel tells of a veth, and passes over what no table names', () => {
  const { address, broadcast, ...rest } = decodeLink({ type: 16, flags: 0, seq: 1, body: vethBytes })
  assert.deepEqual(rest, {
    index: 6,
    flags: 0x1002,
    hardware: 1,
    ifname: 'v1',
    txqlen: 1000,
    operstate: 2,
    linkmode: 0,
    mtu: 1500,
    group: 4242,
    promiscuity: 0,
    ifalias: 'mooring veth-route net c1 eth0',
    linkinfo: { kind: 'veth' },
    link: 5,
  })
  assert.equal(formatMac(address!), 'ce:0c:b5:71:f9:3d')
  assert.equal(formatMac(broadcast!), 'ff:ff:ff:ff:ff:ff')
  assert.equal(rest.flags & IFF_UP, 0)
})

test('decodeLink: reads the settings of a macvlan', () => {
  const body = golden(
    '00000100070000000210000000000000', // ifinfomsg
    '090003006d61633000000000', // IFLA_IFNAME mac0
    '3c001200', // IFLA_LINKINFO
    '0c0001006d6163766c616e00', //   IFLA_INFO_KIND macvlan
    '2c000200', //   IFLA_INFO_DATA
    '0800010004000000', //     IFLA_MACVLAN_MODE
    '0600020000000000', //     IFLA_MACVLAN_FLAGS
    '0800060000000000', //     IFLA_MACVLAN_MACADDR_COUNT
    '08000700e8030000', //     IFLA_MACVLAN_BC_QUEUE_LEN
    '08000800e8030000', //     IFLA_MACVLAN_BC_QUEUE_LEN_USED
    '0800050005000000', // IFLA_LINK
  )
  const link = decodeLink({ type: 16, flags: 0, seq: 1, body })
  assert.deepEqual([link.ifname, link.link], ['mac0', 5])
  assert.equal(link.linkinfo?.kind, 'macvlan')
  const { mode, bcQueueLen } = (link.linkinfo as { data: { mode: number; bcQueueLen: number } }).data
  assert.deepEqual([mode, bcQueueLen], [4, 1000])
})

test('decodeLink: reads the table of a VRF', () => {
  // ip link add blue type vrf table 777
  const body = golden(
    '00000100030000000000000000000000', // ifinfomsg
    '09000300626c756500000000', // IFLA_IFNAME blue
    '18001200', // IFLA_LINKINFO
    '0800010076726600', //   IFLA_INFO_KIND vrf
    '0c000200', //   IFLA_INFO_DATA
    '0800010009030000', //     IFLA_VRF_TABLE
  )
  const { linkinfo } = decodeLink({ type: 16, flags: 0, seq: 1, body })
  assert.deepEqual([linkinfo?.kind, (linkinfo as { data: { table: number } }).data.table], ['vrf', 777])
})

test('decodeLink: leaves the data of an unknown kind as bytes', () => {
  const body = golden(
    '00000100070000000210000000000000', // ifinfomsg
    '14001200', // IFLA_LINKINFO
    '0700010078797a00', //   IFLA_INFO_KIND xyz
    '08000200c0ffee00', //   IFLA_INFO_DATA
  )
  const { linkinfo } = decodeLink({ type: 16, flags: 0, seq: 1, body })
  assert.deepEqual(linkinfo, { kind: 'xyz', raw: Uint8Array.fromHex('c0ffee00') })
})
