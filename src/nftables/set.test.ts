// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addSet, formatSet, setAttributes } from './set.ts'

// Bytes captured from nft 1.0.6 (strace of its sendmsg), from the family header on, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const table = { family: 'inet', name: 'mooring' } as const

test('addSet: writes a set of one field as nft does', () => {
  // nft 'add set inet mooring s { type ifname; }'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_SET_TABLE mooring
    '0600020073000000', // NFTA_SET_NAME
    '0800030000000000', // NFTA_SET_FLAGS 0x0
    '0800040000000029', // NFTA_SET_KEY_TYPE 0x29
    '0800050000000010', // NFTA_SET_KEY_LEN 0x10
    '08000a0000000001', // NFTA_SET_ID 0x1
    '0a000d000004010000000000', // NFTA_SET_USERDATA
  )
  const change = addSet({ table, name: 's', key: ['ifname'] })
  assert.deepEqual(change.body, bytes)
})

test('addSet: writes an interval set as nft does', () => {
  // nft 'add set inet mooring s { type ipv4_addr; flags interval; }'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_SET_TABLE mooring
    '0600020073000000', // NFTA_SET_NAME
    '0800030000000004', // NFTA_SET_FLAGS 0x4
    '0800040000000007', // NFTA_SET_KEY_TYPE 0x7
    '0800050000000004', // NFTA_SET_KEY_LEN 0x4
    '08000a0000000001', // NFTA_SET_ID 0x1
    '0a000d000004020000000000', // NFTA_SET_USERDATA
  )
  const change = addSet({ table, name: 's', key: ['ipv4_addr'], interval: true })
  assert.deepEqual(change.body, bytes)
})

test('addSet: writes a verdict map as nft does', () => {
  // nft 'add map inet mooring m { type ipv4_addr : verdict; }'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_SET_TABLE mooring
    '060002006d000000', // NFTA_SET_NAME
    '0800030000000008', // NFTA_SET_FLAGS 0x8
    '0800040000000007', // NFTA_SET_KEY_TYPE 0x7
    '0800050000000004', // NFTA_SET_KEY_LEN 0x4
    '08000600ffffff00', // NFTA_SET_DATA_TYPE 0xffffff00
    '0800070000000000', // NFTA_SET_DATA_LEN 0x0
    '08000a0000000001', // NFTA_SET_ID 0x1
    '16000d000004020000000104000000000604000000000000', // NFTA_SET_USERDATA
  )
  const change = addSet({ table, name: 'm', key: ['ipv4_addr'], data: 'verdict' })
  assert.deepEqual(change.body, bytes)
})

test('addSet: writes a concatenation with ranges as nft does, but for the type expression that only nft reads', () => {
  // nft 'add set inet mooring s { type ipv4_addr . inet_service; flags interval; }'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_SET_TABLE mooring
    '0600020073000000', // NFTA_SET_NAME
    '0800030000000084', // NFTA_SET_FLAGS 0x84
    '08000400000001cd', // NFTA_SET_KEY_TYPE 0x1cd
    '0800050000000008', // NFTA_SET_KEY_LEN 0x8
    '08000a0000000001', // NFTA_SET_ID 0x1
    '20000980', // NFTA_SET_DESC
    '1c000280', //   NFTA_SET_DESC_CONCAT
    '0c000180', //     NFTA_LIST_ELEM
    '0800010000000004', //       NFTA_SET_FIELD_LEN 0x4
    '0c000180', //     NFTA_LIST_ELEM
    '0800010000000002', //       NFTA_SET_FIELD_LEN 0x2
    '14000d00000400000000030800040d0000000100', // NFTA_SET_USERDATA
  )
  assert.deepEqual(setAttributes.encode(setAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  const change = addSet({ table, name: 's', key: ['ipv4_addr', 'inet_service'], interval: true })
  const { userdata: ours, ...rest } = setAttributes.decode(change.body.subarray(4))
  const { userdata: theirs, ...expected } = setAttributes.decode(bytes.subarray(4))
  assert.deepEqual(rest, expected)
  assert.deepEqual(ours, theirs?.subarray(0, 6))
})

test('addSet: writes a map of concatenations as nft does, but for the type expressions that only nft reads', () => {
  // nft 'add map inet mooring m { type inet_proto . inet_service : ipv4_addr . inet_service; }'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_SET_TABLE mooring
    '060002006d000000', // NFTA_SET_NAME
    '0800030000000008', // NFTA_SET_FLAGS 0x8
    '080004000000030d', // NFTA_SET_KEY_TYPE 0x30d
    '0800050000000008', // NFTA_SET_KEY_LEN 0x8
    '08000600000001cd', // NFTA_SET_DATA_TYPE 0x1cd
    '0800070000000008', // NFTA_SET_DATA_LEN 0x8
    '08000a0000000001', // NFTA_SET_ID 0x1
    '2a000d00000400000000010400000000030800040d0000000100040800040d00000001000604000000000000', // NFTA_SET_USERDATA
  )
  const key = ['inet_proto', 'inet_service'] as const
  const change = addSet({ table, name: 'm', key, data: ['ipv4_addr', 'inet_service'] })
  const { userdata: _ours, ...rest } = setAttributes.decode(change.body.subarray(4))
  const { userdata: _theirs, ...expected } = setAttributes.decode(bytes.subarray(4))
  assert.deepEqual(rest, expected)
})

test('formatSet: says set or map, table and name', () => {
  assert.equal(formatSet({ table, name: 's', key: ['ifname'] }), 'set inet mooring s')
  assert.equal(formatSet({ table, name: 'm', key: ['ifname'], data: 'verdict' }), 'map inet mooring m')
})
