// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import test from 'node:test'
import { sha256Hex } from './digest.ts'

test('a text and its bytes in parts have the digest that node:crypto gives them', () => {
  for (const text of ['', 'abc', 'a'.repeat(55), 'a'.repeat(56), 'a'.repeat(64), 'ä€𝄞'.repeat(100)]) {
    const expected = createHash('sha256').update(text).digest('hex')
    assert.equal(sha256Hex(text), expected)
    const bytes = new TextEncoder().encode(text)
    assert.equal(sha256Hex(bytes.subarray(0, 7), bytes.subarray(7)), expected)
  }
})
