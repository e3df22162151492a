// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readTimeExceeded } from './packets.ts'

// As RFC 792 has it: the router 10.10.10.1 ends a datagram from port 51966.
const report = Uint8Array.fromHex(
  `45c00038 1a2b0000 40011f4f 0a0a0a01 0a0a0a0b
   0b000000 00000000
   4500001d 12344000 01110000 0a0a0a0b cb007101
   cafe0007 00090000`.replaceAll(/\s/g, ''),
)

test('readTimeExceeded names the router that ended a datagram of that port', () => {
  assert.equal(readTimeExceeded(report, 0xcafe), '10.10.10.1')
})

test('readTimeExceeded ignores other ports, other messages and what is cut off', () => {
  assert.equal(readTimeExceeded(report, 0xcaff), undefined)
  assert.equal(readTimeExceeded(report.with(20, 3), 0xcafe), undefined)
  for (let length = 0; length < report.length - 4; length++)
    assert.equal(readTimeExceeded(report.subarray(0, length), 0xcafe), undefined)
})
