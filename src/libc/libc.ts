// SPDX-License-Identifier: Apache-2.0

import koffi from 'koffi'
import { EAGAIN, EINTR, EMSGSIZE, SystemError } from './error.ts'

// The C library that Node.js itself is linked to. `long` is ssize_t on both platforms.
const c = koffi.load(null)
const cSocket = c.func('int socket(int domain, int type, int protocol)')
const cBind = c.func('int bind(int fd, const uint8_t *address, uint32_t length)')
const cSetsockopt = c.func('int setsockopt(int fd, int level, int name, const int *value, uint32_t length)')
const cGetsockopt = c.func('int getsockopt(int fd, int level, int name, _Out_ int *value, uint32_t *length)')
const cSend = c.func('long send(int fd, const uint8_t *data, size_t length, int flags)')
const cSendto = c.func(
  'long sendto(int fd, const uint8_t *data, size_t length, int flags, const uint8_t *address, uint32_t size)',
)
const cRecv = c.func('long recv(int fd, _Out_ uint8_t *data, size_t length, int flags)')
const cPoll = c.func('int poll(_Inout_ uint8_t *fds, unsigned long count, int timeout_ms)')
const messageHeader = koffi.struct({
  name: 'void *',
  nameLength: 'uint32_t',
  parts: koffi.pointer(koffi.struct({ data: 'const uint8_t *', length: 'size_t' })),
  partCount: 'size_t',
  control: 'const uint8_t *',
  controlLength: 'size_t',
  flags: 'int',
})
const cSendmsg = c.func('sendmsg', 'long', ['int', koffi.pointer(messageHeader), 'int'])
const cSocketpair = c.func('int socketpair(int domain, int type, int protocol, _Out_ int *fds)')
const cSetns = c.func('int setns(int fd, int nstype)')
const cUnshare = c.func('int unshare(int flags)')
const cClose = c.func('int close(int fd)')
const cExit = c.func('void _exit(int code)')
const cFlock = c.func('int flock(int fd, int operation)')
const cFcntl = c.func('int fcntl(int fd, int command, const uint8_t *argument)')
const cMount = c.func('int mount(str source, str target, str type, unsigned long flags, str data)')
const cUmount2 = c.func('int umount2(str target, int flags)')

const AF_NETLINK = 16
const AF_UNIX = 1
const AF_INET = 2
const AF_PACKET = 17
const SOCK_RAW = 3
const SOCK_DGRAM = 2
const SOCK_CLOEXEC = 0o2000000
const IPPROTO_ICMP = 1
const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const SO_RCVBUF = 8
const SO_PEERCRED = 17
const SO_RCVBUFFORCE = 33
const SO_SNDBUF = 7
const SO_SNDBUFFORCE = 32
const POLLIN = 1
const CLONE_NEWNET = 0x40000000
const LOCK_EX = 2
const LOCK_NB = 4
const F_OFD_SETLK = 37
const F_WRLCK = 1
const MS_BIND = 4096
const MNT_DETACH = 2

function fail(syscall: string, action: string): never {
  throw new SystemError(syscall, koffi.errno(), action)
}

/** close(2) of a descriptor that this room opened; Node.js keeps account of its own and warns of others. */
export function closeDescriptor(fd: number): void {
  if ((cClose(fd) as number) < 0) fail('close', `close descriptor ${fd}`)
}

/** _exit(2): ends the process without putting anything away. What was written is written; what was only queued is lost. */
export function exitAtOnce(code: number): void {
  cExit(code)
}

/** Opens a raw netlink socket of that family (linux/netlink.h: NETLINK_*), listening to `groups` (a bit mask). The caller closes the descriptor. @throws {SystemError} */
export function netlinkSocket(protocol: number, groups = 0): number {
  const fd = cSocket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol) as number
  if (fd < 0) fail('socket', `open netlink socket of family ${protocol}`)
  // Without groups the kernel binds it by itself when something is sent.
  if (groups === 0) return fd
  const address = new Uint8Array(12)
  new DataView(address.buffer).setUint16(0, AF_NETLINK, true)
  new DataView(address.buffer).setUint32(8, groups, true)
  bind(fd, address, `bind netlink socket of family ${protocol}`)
  return fd
}

/** bind(2) of a socket that was just opened, and is closed where that fails. */
function bind(fd: number, address: Uint8Array, action: string): void {
  if ((cBind(fd, address, address.length) as number) >= 0) return
  const error = new SystemError('bind', koffi.errno(), action)
  closeDescriptor(fd)
  throw error
}

/**
 * Opens a packet socket that only sends (packet(7), protocol 0): nothing is queued to it. Closing one waits for an RCU
 * grace period all the same (10 ms), so whoever lives long keeps it. The caller closes the descriptor. @throws {SystemError}
 */
export function packetSocket(): number {
  const fd = cSocket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0) as number
  if (fd < 0) fail('socket', 'open packet socket')
  return fd
}

/**
 * Opens a raw socket that receives every ICMP message of the namespace, IP header first (raw(7)).
 * The caller closes the descriptor. @throws {SystemError}
 */
export function icmpSocket(): number {
  const fd = cSocket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP) as number
  if (fd < 0) fail('socket', 'open ICMP socket')
  return fd
}

/**
 * Opens a packet socket that receives what arrives on one link with one Ethernet type, without the Ethernet header.
 * Closing it waits for RCU (10-20 ms): keep it. The caller closes the descriptor. @throws {SystemError}
 */
export function packetListener(link: number, protocol: number): number {
  const fd = packetSocket()
  bind(fd, linkAddress(link, protocol), `listen on link ${link}`)
  return fd
}

/** struct sockaddr_ll; `destination` is a MAC. */
function linkAddress(link: number, protocol: number, destination: Uint8Array = new Uint8Array()): Uint8Array {
  const address = new Uint8Array(20)
  const view = new DataView(address.buffer)
  view.setUint16(0, AF_PACKET, true)
  view.setUint16(2, protocol, false)
  view.setInt32(4, link, true)
  address[11] = destination.length
  address.set(destination, 12)
  return address
}

/** Sends one frame's payload out of a link. `protocol` is the Ethernet type, `destination` a MAC. @throws {SystemError} */
export function sendPacket(
  fd: number,
  link: number,
  protocol: number,
  destination: Uint8Array,
  payload: Uint8Array,
): void {
  const address = linkAddress(link, protocol, destination)
  if ((cSendto(fd, payload, payload.length, 0, address, address.length) as number) < 0)
    fail('sendto', `send a packet out of link ${link}`)
}

/** setsockopt(2) with an int. @throws {SystemError} */
export function setSocketOption(fd: number, level: number, name: number, value: number): void {
  if ((cSetsockopt(fd, level, name, Int32Array.of(value), 4) as number) < 0)
    fail('setsockopt', `set socket option ${level}/${name} to ${value}`)
}

/** Enlarges the receive buffer, beyond the machine's limit where privileged. */
export const setReceiveBuffer = (fd: number, bytes: number): void =>
  setBuffer(fd, { forced: SO_RCVBUFFORCE, limited: SO_RCVBUF }, bytes)

/** The same for what may be sent at once. */
export const setSendBuffer = (fd: number, bytes: number): void =>
  setBuffer(fd, { forced: SO_SNDBUFFORCE, limited: SO_SNDBUF }, bytes)

function setBuffer(fd: number, { forced, limited }: { forced: number; limited: number }, bytes: number): void {
  try {
    setSocketOption(fd, SOL_SOCKET, forced, bytes)
  } catch {
    setSocketOption(fd, SOL_SOCKET, limited, bytes)
  }
}

/** The process at the other end of a UNIX socket, as it was at connect(2). @throws {SystemError} */
export function peerCredentials(fd: number): { pid: number; uid: number; gid: number } {
  const found = new Int32Array(3)
  if ((cGetsockopt(fd, SOL_SOCKET, SO_PEERCRED, found, Uint32Array.of(found.byteLength)) as number) < 0)
    fail('getsockopt', 'ask for the peer of a socket')
  const [pid = 0, uid = 0, gid = 0] = found
  return { pid, uid: uid >>> 0, gid: gid >>> 0 }
}

/** send(2) of one datagram. @throws {SystemError} */
export function send(fd: number, data: Uint8Array): void {
  for (;;) {
    if ((cSend(fd, data, data.length, 0) as number) >= 0) return
    if (koffi.errno() !== EINTR) fail('send', `send ${data.length} bytes`)
  }
}

/**
 * recv(2) of one datagram into `buffer`, waiting at most `timeoutMs`.
 * @returns the datagram's bytes (a view of `buffer`), undefined when the time is over.
 * @throws {SystemError}, also when the datagram is larger than the buffer.
 */
export function receive(fd: number, buffer: Uint8Array, timeoutMs: number): Uint8Array | undefined {
  const MSG_DONTWAIT = 0x40
  const MSG_TRUNC = 0x20
  const endMs = performance.now() + timeoutMs
  for (;;) {
    const length = cRecv(fd, buffer, buffer.length, MSG_DONTWAIT | MSG_TRUNC) as number
    if (length > buffer.length) throw new SystemError('recv', EMSGSIZE, `receive a datagram of ${length} bytes`)
    if (length >= 0) return buffer.subarray(0, length)
    const errno = koffi.errno()
    if (errno === EINTR) continue
    if (errno !== EAGAIN) fail('recv', 'receive')
    if (!waitReadable(fd, endMs - performance.now())) return undefined
  }
}

/** Waits until the descriptor has something to read. @returns false when the time is over. */
export function waitReadable(fd: number, timeoutMs: number): boolean {
  if (timeoutMs <= 0) return false
  const entry = new Uint8Array(8)
  const view = new DataView(entry.buffer)
  view.setInt32(0, fd, true)
  view.setInt16(4, POLLIN, true)
  const ready = cPoll(entry, 1, Math.ceil(timeoutMs)) as number
  if (ready < 0 && koffi.errno() !== EINTR) fail('poll', 'wait for a socket')
  return ready !== 0
}

/**
 * Leaves descriptors, at the end of a process, to the kernel's collector of UNIX sockets that nobody can reach any more
 * (net/unix/garbage.c): they are sent, together with the receiving socket, into that same socket. A thread of the kernel
 * closes them then, where the process itself would wait for RCU before it is gone: 10-20 ms for a packet socket, 7-13 ms for
 * a netfilter socket after a removal. Linux before 6.10 collects within close(2), and the process waits as ever.
 */
export function abandonDescriptors(fds: readonly number[]): void {
  const pair = new Int32Array(2)
  if (fds.length === 0 || (cSocketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) as number) < 0) return
  const [sender, receiver] = pair as unknown as [number, number]
  const rights = Int32Array.of(SOL_SOCKET, SCM_RIGHTS, receiver, ...fds) // struct cmsghdr behind its length
  const control = new Uint8Array(8 * Math.ceil((8 + rights.byteLength) / 8))
  new DataView(control.buffer).setBigUint64(0, BigInt(8 + rights.byteLength), true)
  control.set(new Uint8Array(rights.buffer), 8)
  const parts = [{ data: new Uint8Array(1), length: 1 }]
  const message = { name: null, nameLength: 0, parts, partCount: 1, control, controlLength: control.length, flags: 0 }
  // Where it is refused (more descriptors are under way than the user may have open), the process closes them as ever.
  cSendmsg(sender, message, 0)
}

/** Moves the calling thread into the network namespace behind the descriptor. @throws {SystemError} */
export function setNetworkNamespace(fd: number): void {
  if ((cSetns(fd, CLONE_NEWNET) as number) < 0) fail('setns', 'enter the network namespace')
}

/** Moves the calling thread into a new, empty network namespace. @throws {SystemError} */
export function unshareNetwork(): void {
  if ((cUnshare(CLONE_NEWNET) as number) < 0) fail('unshare', 'make a network namespace')
}

/** Takes the exclusive flock(2) of an open file without waiting; closing it gives the lock back. @returns false while somebody else holds it. */
export function tryLock(fd: number): boolean {
  if ((cFlock(fd, LOCK_EX | LOCK_NB) as number) === 0) return true
  if (koffi.errno() !== EAGAIN) fail('flock', 'lock a file')
  return false
}

/**
 * Takes an exclusive lock of one byte of an open file, which need not exist, without waiting; it belongs to the open file
 * and ends with it (fcntl(2), F_OFD_SETLK). @returns false while somebody else holds it.
 */
export function tryLockByte(fd: number, offset: bigint): boolean {
  const lock = new Uint8Array(32) // struct flock of the 64-bit platforms: type, whence, start, length, pid
  const view = new DataView(lock.buffer)
  view.setInt16(0, F_WRLCK, true)
  view.setBigInt64(8, offset, true)
  view.setBigInt64(16, 1n, true)
  if ((cFcntl(fd, F_OFD_SETLK, lock) as number) === 0) return true
  if (koffi.errno() !== EAGAIN) fail('fcntl', 'lock a byte of a file')
  return false
}

/** mount --bind. @throws {SystemError} */
export function bindMount(source: string, target: string): void {
  if ((cMount(source, target, 'none', MS_BIND, null) as number) < 0) fail('mount', `bind ${source} to ${target}`)
}

/** umount --lazy. @throws {SystemError} */
export function unmount(target: string): void {
  if ((cUmount2(target, MNT_DETACH) as number) < 0) fail('umount2', `unmount ${target}`)
}
