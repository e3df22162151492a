// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeComment, encodeComment, encodeUserdata } from './userdata.ts'

test('encodeComment: writes what nft writes', () => {
  assert.deepEqual(encodeComment('v1'), Uint8Array.fromHex('0003763100')) // nft 1.0.6, comment "v1"
  assert.throws(() => encodeComment('x'.repeat(128)), RangeError)
})

test('decodeComment: finds the comment behind other entries, undefined without one', () => {
  const userdata = encodeUserdata([
    [1, Uint8Array.of(2, 0)],
    [0, new TextEncoder().encode('v1\0')],
  ])
  assert.equal(decodeComment(userdata), 'v1')
  assert.equal(decodeComment(Uint8Array.of(1, 1, 0)), undefined)
  assert.equal(decodeComment(undefined), undefined)
})
