// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeError, NetlinkError } from './error.ts'
import type { Message } from './message.ts'

// Bytes captured from Linux 6.18 (strace of the recvmsg of ip), without the netlink header.
const hex = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const request = { type: 24, flags: 5, body: new Uint8Array(0), about: 'add route 10.9.0.0/16 via 10.0.0.1 dev 9' }
const answer = (flags: number, body: Uint8Array, type = 2): Message => ({ type, flags, seq: 1, body })

// ip route add 10.9.0.0/16 via 10.0.0.1 dev v1 mtu 1400 advmss 1300
const invalidGateway = hex(
  '9bffffff', // nlmsgerr: -ENETUNREACH
  '48000000180005068219086b00000000', // header of the request
  '02100000fe03000100000000', // rtmsg, then the request's attributes
  '080001000a090000080005000a00000108000400090000001400080008000200780500000800080014050000',
  '200001004e657874686f702068617320696e76616c6964206761746577617900', // NLMSGERR_ATTR_MSG
)

test('decodeError: reads the sentence of the kernel behind the whole refused message', () => {
  const error = decodeError(answer(0x200, invalidGateway), request)!
  assert.equal(error.errno, 101)
  assert.equal(error.code, 'ENETUNREACH')
  assert.equal(error.extack, 'Nexthop has invalid gateway')
  assert.equal(error.request, request.about)
  assert.equal(
    error.message,
    'Cannot add route 10.9.0.0/16 via 10.0.0.1 dev 9: Nexthop has invalid gateway: network is unreachable (ENETUNREACH)',
  )
})

test('decodeError: reads it behind the header alone, as sockets of ours get it (NETLINK_CAP_ACK)', () => {
  const capped = hex(
    'a1ffffff', // nlmsgerr: -EOPNOTSUPP
    '3c000000100005068219086b00000000', // header of the request
    '18000100556e6b6e6f776e20646576696365207479706500', // NLMSGERR_ATTR_MSG
    '0800020024000000', // NLMSGERR_ATTR_OFFS
  )
  const error = decodeError(answer(0x300, capped), request)!
  assert.deepEqual([error.code, error.extack, error.offset], ['EOPNOTSUPP', 'Unknown device type', 36])
})

test('decodeError: does with an errno alone', () => {
  const bare = hex('edffffff', '34000000120001008219086b00000000')
  const error = decodeError(answer(0x100, bare), { ...request, about: 'find link nothere' })!
  assert.equal(error.message, 'Cannot find link nothere: no such device (ENODEV)')
  assert.deepEqual([error.extack, error.offset], [undefined, undefined])
})

test('decodeError: takes errno 0 for an acknowledgement', () => {
  assert.equal(decodeError(answer(0x100, hex('00000000', '84000000100005068219086b00000000')), request), undefined)
})

test('decodeError: reads the errno with which a dump ends', () => {
  // ip route show table 1001
  const done = hex(
    'feffffff', // -ENOENT
    '23000100697076343a20464942207461626c6520646f6573206e6f742065786973740000', // NLMSGERR_ATTR_MSG
  )
  const error = decodeError(answer(0x202, done, 3), { ...request, about: 'list routes of table 1001' })!
  assert.deepEqual([error.code, error.extack], ['ENOENT', 'ipv4: FIB table does not exist'])
  assert.equal(decodeError(answer(0x2, hex('00000000'), 3), request), undefined)
  assert.equal(decodeError(answer(0x2, hex(), 3), request), undefined)
})

test('NetlinkError: leaves numbers that have no name as they are', () => {
  assert.match(new NetlinkError('do it', 9999).message, /Cannot do it: errno 9999/)
})
