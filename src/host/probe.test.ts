// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp, tryParseMac } from '#base'
import { arpRequest } from './arp.ts'
import { readReply } from './probe.ts'

const mac = tryParseMac('fa:16:3e:00:00:01')!
const gateway = tryParseMac('fa:16:3e:00:00:99')!
const probe = { address: parseIp('10.0.0.5'), target: parseIp('10.0.0.1') }
const hex = (text: string) => Uint8Array.from(text.split(' ').map(byte => Number.parseInt(byte, 16)))

test('arpRequest() is what arping writes for a source address', () => {
  assert.deepEqual(
    arpRequest(probe, mac),
    hex('00 01 08 00 06 04 00 01 fa 16 3e 00 00 01 0a 00 00 05 00 00 00 00 00 00 0a 00 00 01'),
  )
})

test('readReply() takes the target’s answer to us, and no other packet', () => {
  const reply = Uint8Array.of(0, 1, 8, 0, 6, 4, 0, 2, ...gateway, 10, 0, 0, 1, ...mac, 10, 0, 0, 5)
  assert.deepEqual(readReply(reply, mac), probe)
  assert.equal(readReply(arpRequest(probe, mac), mac), undefined)
  assert.equal(readReply(reply.subarray(0, 20), mac), undefined)
  assert.equal(readReply(reply, gateway), undefined)
})
