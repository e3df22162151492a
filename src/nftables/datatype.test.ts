// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeFields, encodeFields, formatFields, sizeOf, typeId, typesOf } from './datatype.ts'

test('encodeFields: puts each field of a concatenation on a 32-bit boundary', () => {
  assert.deepEqual(encodeFields(['inet_proto', 'inet_service'], [6, 80]), Uint8Array.fromHex('0600000000500000'))
  assert.equal(sizeOf(['inet_proto', 'inet_service']), 8)
  assert.equal(sizeOf(['inet_proto']), 1)
})

test('encodeFields: writes a mark in host order', () => {
  assert.deepEqual(encodeFields(['mark'], [1]), Uint8Array.fromHex('01000000'))
})

test('encodeFields: counts the bytes of an interface name, not its letters', () => {
  assert.throws(() => encodeFields(['ifname'], ['ééééééééé']), RangeError)
  assert.throws(() => encodeFields(['ifname'], ['']), RangeError)
})

test('decodeFields: reverses encodeFields', () => {
  const types = ['ifname', 'ipv6_addr', 'inet_service', 'mark'] as const
  const fields = ['veth1', Uint8Array.from({ length: 16 }, (_, index) => index), 443, 0x4000]
  assert.deepEqual(decodeFields(types, encodeFields(types, fields)), fields)
})

test('typeId: is six bits per field, as in nft', () => {
  assert.equal(typeId(['ifname']), 0x29)
  assert.equal(typeId(['ifname', 'ipv4_addr']), 0xa47)
})

test('formatFields: writes as nft does', () => {
  assert.equal(formatFields(['veth1', Uint8Array.of(10, 0, 0, 2), 80]), 'veth1 . 10.0.0.2 . 80')
})

test('encodeFields: pads a MAC to a 32-bit boundary, formatFields writes it with colons', () => {
  const mac = Uint8Array.fromHex('fa163e000102')
  assert.deepEqual(encodeFields(['ether_addr', 'ipv4_addr'], [mac, Uint8Array.of(10, 0, 0, 2)]).length, 12)
  assert.equal(formatFields([mac]), 'fa:16:3e:00:01:02')
})

test('typesOf: reverses typeId, and knows no types that we do not', () => {
  const types = ['ifname', 'ipv6_addr', 'inet_proto', 'inet_service', 'mark'] as const
  assert.deepEqual(typesOf(typeId(types)), types)
  assert.equal(typesOf(0x3f), undefined)
  assert.equal(typesOf(0), undefined)
})
