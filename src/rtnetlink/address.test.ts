// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatIp, parsePrefix } from '#base'
import { walk } from '#netlink'
import {
  addAddress,
  decodeAddress,
  deleteAddress,
  dumpAddresses,
  IFA_F_NODAD,
  IFA_F_NOPREFIXROUTE,
  IFA_F_PERMANENT,
  scopes,
} from './address.ts'

// Bytes captured from ip of iproute2 6.1.0 (strace of its sendmsg) and from Linux 6.18's answers to it, without the
// netlink header, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
/** Header, and attributes in any order: `ip` has an order of its own. */
const partsOf = (body: Uint8Array) => [
  body.subarray(0, 8).toHex(),
  ...Array.from(walk(body.subarray(8)), ([type, payload]) => `${type} ${payload.toHex()}`).sort(),
]

test('addAddress: writes an address as ip does', () => {
  // ip addr add 10.0.0.5/24 dev v1
  const bytes = golden(
    '0218000009000000', // ifaddrmsg: AF_INET, /24, scope universe, link 9
    '080002000a000005', // IFA_LOCAL
    '080001000a000005', // IFA_ADDRESS
  )
  const { type, flags, body } = addAddress({ index: 9, prefix: parsePrefix('10.0.0.5/24') })
  assert.deepEqual({ type, flags: flags | 1, body }, { type: 20, flags: 0x605, body: bytes })
})

test('addAddress: writes scope and flags beyond the first byte as ip does', () => {
  // ip addr add 169.254.1.1/32 dev v1 scope link noprefixroute
  const bytes = golden(
    '022000fd09000000', // ifaddrmsg: AF_INET, /32, scope link, link 9
    '08000200a9fe0101', // IFA_LOCAL
    '0800080000020000', // IFA_FLAGS
    '08000100a9fe0101', // IFA_ADDRESS
  )
  const prefix = parsePrefix('169.254.1.1/32')
  const { body } = addAddress({ index: 9, prefix, scope: scopes.link, flags: IFA_F_NOPREFIXROUTE })
  assert.deepEqual(partsOf(body), partsOf(bytes))
})

test('addAddress: writes an IPv6 address as ip does, but for the old flags that stand in the header too', () => {
  // ip -6 addr add fd00::5/64 dev v1 nodad noprefixroute
  const bytes = golden(
    '0a40020009000000', // ifaddrmsg: AF_INET6, /64, IFA_F_NODAD (ip: 00), link 9
    '14000200fd000000000000000000000000000005', // IFA_LOCAL
    '0800080002020000', // IFA_FLAGS
    '14000100fd000000000000000000000000000005', // IFA_ADDRESS
  )
  const { body } = addAddress({ index: 9, prefix: parsePrefix('fd00::5/64'), flags: IFA_F_NODAD | IFA_F_NOPREFIXROUTE })
  assert.deepEqual(partsOf(body), partsOf(bytes))
})

test('addAddress: asks to replace as ip does', () => {
  // ip addr replace 10.0.0.6/24 dev v1
  const { type, flags } = addAddress({ index: 9, prefix: parsePrefix('10.0.0.6/24') }, { replace: true })
  assert.deepEqual([type, flags | 1], [20, 0x505])
})

test('deleteAddress: writes what ip does', () => {
  // ip addr del 10.0.0.5/24 dev v1
  const bytes = golden(
    '0218000009000000', // ifaddrmsg: AF_INET, /24, link 9
    '080002000a000005', // IFA_LOCAL
    '080001000a000005', // IFA_ADDRESS
  )
  const { type, flags, body } = deleteAddress({ index: 9, prefix: parsePrefix('10.0.0.5/24') })
  assert.deepEqual({ type, flags: flags | 1, body }, { type: 21, flags: 0x5, body: bytes })
})

test('dumpAddresses: asks for one link as ip does', () => {
  // ip addr show dev v1
  const { type, flags, body } = dumpAddresses(9)
  assert.deepEqual({ type, flags: flags | 1, body }, { type: 22, flags: 0x301, body: golden('0000000009000000') })
})

test('decodeAddress: reads an IPv4 address with its label and all flags', () => {
  const body = golden(
    '022080fd09000000', // ifaddrmsg
    '08000100a9fe0101', // IFA_ADDRESS
    '08000200a9fe0101', // IFA_LOCAL
    '0700030076310000', // IFA_LABEL v1
    '0800080080020000', // IFA_FLAGS
    '14000600ffffffffffffffff061d0300061d0300', // IFA_CACHEINFO
  )
  assert.deepEqual(decodeAddress({ type: 20, flags: 0x22, seq: 1, body }), {
    index: 9,
    scope: scopes.link,
    prefix: parsePrefix('169.254.1.1/32'),
    flags: IFA_F_PERMANENT | IFA_F_NOPREFIXROUTE,
    label: 'v1',
  })
})

test('decodeAddress: reads an IPv6 address, which has no IFA_LOCAL', () => {
  const body = golden(
    '0a40820009000000', // ifaddrmsg
    '14000100fd000000000000000000000000000005', // IFA_ADDRESS
    '14000600ffffffffffffffff081d0300081d0300', // IFA_CACHEINFO
    '0800080082020000', // IFA_FLAGS
  )
  const { prefix, flags, scope } = decodeAddress({ type: 20, flags: 0x22, seq: 1, body })
  assert.deepEqual([formatIp(prefix.ip), prefix.length], ['fd00::5', 64])
  assert.deepEqual([flags, scope], [IFA_F_PERMANENT | IFA_F_NODAD | IFA_F_NOPREFIXROUTE, scopes.universe])
})

test('decodeAddress: takes IFA_LOCAL, not the peer, of a point-to-point address', () => {
  const body = golden(
    '0220800009000000', // ifaddrmsg
    '080001000a000001', // IFA_ADDRESS: the peer
    '080002000a000002', // IFA_LOCAL
  )
  assert.equal(formatIp(decodeAddress({ type: 20, flags: 0, seq: 1, body }).prefix.ip), '10.0.0.2')
})

test('decodeAddress: tells how long an address stays, where it does not for ever', () => {
  // ip addr add 10.0.0.5/24 dev v1 valid_lft 3600 preferred_lft 1800
  const body = golden(
    '0218000009000000', // ifaddrmsg
    '080001000a000005', // IFA_ADDRESS
    '080002000a000005', // IFA_LOCAL
    '0700030076310000', // IFA_LABEL v1
    '0800080000000000', // IFA_FLAGS
    '1400060008070000100e00002721650027216500', // IFA_CACHEINFO
  )
  const { validSeconds, preferredSeconds } = decodeAddress({ type: 20, flags: 0x22, seq: 1, body })
  assert.deepEqual([validSeconds, preferredSeconds], [3600, 1800])
})
