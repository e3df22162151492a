// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeMessages, encodeBatch, NLM_F_ACK, NLM_F_DUMP } from './message.ts'

const hex = (text: string) => Uint8Array.fromHex(text.replaceAll(' ', ''))
const about = 'test'

test('encodeBatch: numbers the requests, sets NLM_F_REQUEST and pads between them', () => {
  const batch = encodeBatch(
    [
      { type: 0x10, flags: NLM_F_ACK, body: hex('aabb'), about },
      { type: 0x12, flags: NLM_F_DUMP, body: hex('11223344'), about },
    ],
    7,
  )
  const first = '12000000 1000 0500 07000000 00000000 aabb 0000'
  const second = '14000000 1200 0103 08000000 00000000 11223344'
  assert.equal(batch.toHex(), (first + second).replaceAll(' ', ''))
})

test('encodeBatch: numbers go on at zero after the last of 32 bits', () => {
  const request = { type: 0x10, flags: 0, body: new Uint8Array(0), about }
  const batch = encodeBatch([request, request], 0xffff_ffff)
  assert.deepEqual([batch.subarray(8, 12).toHex(), batch.subarray(24, 28).toHex()], ['ffffffff', '00000000'])
})

test('decodeMessages: reads one after the other', () => {
  const messages = [
    ...decodeMessages(hex('12000000 1000 0200 07000000 00000000 aabb0000 10000000 0300 0200 07000000 0a000000')),
  ]
  assert.deepEqual(messages, [
    { type: 0x10, flags: 2, seq: 7, body: hex('aabb') },
    { type: 3, flags: 2, seq: 7, body: hex('') },
  ])
})

test('decodeMessages: refuses a length that cannot be, and says where', () => {
  assert.throws(() => [...decodeMessages(hex('0f000000 1000 0000 00000000 00000000'))], /length 15 at offset 0 of 16/)
  assert.throws(() => [...decodeMessages(hex('11000000 1000 0000 00000000 00000000'))], /length 17 at offset 0 of 16/)
})
