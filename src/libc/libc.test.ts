// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { SystemError } from './error.ts'
import {
  netlinkSocket,
  packetListener,
  peerCredentials,
  receive,
  send,
  setNetworkNamespace,
  tryLock,
  tryLockByte,
  waitReadable,
} from './libc.ts'

const scratch = mkdtempSync(join(tmpdir(), 'mooring-libc-'))
after(() => rmSync(scratch, { recursive: true }))
const NETLINK_ROUTE = 0
// RTM_GETLINK of link 1 with an acknowledgement
const getLoopback = Uint8Array.fromHex('20000000120005000100000000000000' + '00000000010000000000000000000000')

test('netlinkSocket: names the family that this kernel does not have', () => {
  assert.throws(
    () => netlinkSocket(31),
    (error: unknown) =>
      error instanceof SystemError && error.syscall === 'socket' && /family 31: .*\(E/.test(error.message),
  )
})

test('packetListener: leaves no descriptor where there is no such link', () => {
  const opened = () => readdirSync('/proc/self/fd').length
  const before = opened()
  assert.throws(() => packetListener(2 ** 31 - 1, 0x0806), /listen on link 2147483647: .*ENODEV/)
  assert.equal(opened(), before)
})

test('send and receive: carry one datagram each way', () => {
  const fd = netlinkSocket(NETLINK_ROUTE)
  try {
    send(fd, getLoopback)
    const answer = receive(fd, new Uint8Array(32_768), 1000)!
    assert.equal(new DataView(answer.buffer).getUint16(4, true), 16) // RTM_NEWLINK
  } finally {
    closeSync(fd)
  }
})

test('receive: refuses a datagram that is larger than the buffer instead of cutting it off', () => {
  const fd = netlinkSocket(NETLINK_ROUTE)
  try {
    send(fd, getLoopback)
    assert.throws(() => receive(fd, new Uint8Array(64), 1000), /Cannot receive a datagram of \d+ bytes: .*EMSGSIZE/)
  } finally {
    closeSync(fd)
  }
})

test('receive: returns undefined when the time is over, at once where there is none', () => {
  const fd = netlinkSocket(NETLINK_ROUTE)
  try {
    const begin = performance.now()
    assert.equal(receive(fd, new Uint8Array(64), 0), undefined)
    assert.ok(performance.now() - begin < 20)
    assert.equal(receive(fd, new Uint8Array(64), 30), undefined)
    assert.ok(performance.now() - begin >= 29)
    assert.equal(waitReadable(fd, 5), false)
  } finally {
    closeSync(fd)
  }
})

test('calls on a descriptor that is no socket: say which call and why', () => {
  const fd = openSync('/dev/null', 'r')
  try {
    assert.throws(() => send(fd, getLoopback), /Cannot send 32 bytes: .*ENOTSOCK/)
    assert.throws(() => receive(fd, new Uint8Array(1), 0), /Cannot receive: .*ENOTSOCK/)
    assert.throws(() => peerCredentials(fd), /Cannot ask for the peer of a socket: .*ENOTSOCK/)
    assert.throws(() => setNetworkNamespace(fd), /Cannot enter the network namespace: .*\((EINVAL|EPERM)\)/)
  } finally {
    closeSync(fd)
  }
})

test('tryLock: one holder at a time, and closing gives the lock back', () => {
  const path = join(scratch, 'lock')
  const [first, second] = [openSync(path, 'a'), openSync(path, 'a')]
  assert.equal(tryLock(first), true)
  assert.equal(tryLock(second), false)
  closeSync(first)
  assert.equal(tryLock(second), true)
  closeSync(second)
})

test('tryLockByte: one holder of a byte at a time, far behind the end of the file too', () => {
  const path = join(scratch, 'bytes')
  const [first, second] = [openSync(path, 'a'), openSync(path, 'a')]
  const far = (1n << 62n) - 1n
  assert.deepEqual([tryLockByte(first, far), tryLockByte(second, far), tryLockByte(second, 0n)], [true, false, true])
  closeSync(first)
  assert.equal(tryLockByte(second, far), true)
  closeSync(second)
  assert.throws(() => tryLockByte(second, 0n), /Cannot lock a byte of a file: .*EBADF/)
})

test('abandonDescriptors: what a process left is closed by the kernel when it is gone', () => {
  const program = `import { abandonDescriptors, exitAtOnce, packetSocket } from './libc.ts'
    const abandoned = process.argv[1] === 'root' ? [1, packetSocket()] : [1]
    abandonDescriptors(abandoned)
    console.error('abandoned', abandoned.length)
    exitAtOnce(0)`
  const args = ['--input-type=module-typescript', '--eval', program, process.getuid!() === 0 ? 'root' : 'user']
  // Returns at the end of the output, which is when nobody has the descriptor any more.
  const { status, stderr, signal } = spawnSync(process.execPath, args, { cwd: import.meta.dirname, timeout: 30_000 })
  assert.deepEqual([status, signal], [0, null], String(stderr))
  assert.match(String(stderr), /abandoned [12]/)
})

test('peerCredentials: tells who connected', async () => {
  const path = join(scratch, 'socket')
  const { promise, resolve } = Promise.withResolvers<Socket>()
  const server: Server = createServer(resolve).listen(path)
  const client = connect(path)
  const accepted = await promise
  const { fd } = (accepted as unknown as { _handle: { fd: number } })._handle
  const { pid, uid, gid } = peerCredentials(fd)
  assert.deepEqual([pid, uid, gid], [process.pid, process.getuid!(), process.getgid!()])
  client.destroy()
  accepted.destroy()
  server.close()
})
