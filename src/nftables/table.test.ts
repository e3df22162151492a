// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addTable, deleteTable, tableAttributes } from './table.ts'

// Bytes captured from nft 1.0.6 (strace of its sendmsg), from the family header on, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const table = { family: 'inet', name: 'mooring' } as const

test('addTable: writes what nft writes', () => {
  // nft 'add table inet mooring'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_TABLE_NAME mooring
    '0800020000000000', // NFTA_TABLE_FLAGS 0x0
  )
  const change = addTable(table)
  assert.deepEqual(change.body, bytes)
})

test('deleteTable: writes what nft writes', () => {
  // nft 'delete table inet mooring'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_TABLE_NAME mooring
  )
  const change = deleteTable(table)
  assert.deepEqual(change.body, bytes)
  assert.equal(change.about, 'delete table inet mooring')
})

test('tableAttributes: reads back what it writes', () => {
  const values = { name: 'mooring', flags: 1, use: 3, handle: 7n, userdata: Uint8Array.of(0, 1, 0) }
  assert.deepEqual(tableAttributes.decode(tableAttributes.encode(values)), values)
})
