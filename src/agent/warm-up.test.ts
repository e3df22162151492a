// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { warmUp } from './warm-up.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

test('warmUp() attaches pods of every kind that the node has used, and keeps no descriptor', { skip }, async () => {
  const descriptors = () => readdirSync('/proc/self/fd').length
  const before = descriptors()
  for (const type of ['veth-route', 'ptp', 'bridge', 'macvlan'])
    await warmUp(new AbortController().signal, [type, 'nobody-s'])
  assert.equal(descriptors(), before)
})
