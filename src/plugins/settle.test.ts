// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadlineIn } from '#base'
import { awaitCarrier } from './settle.ts'
import type { World } from './world.ts'

/** A node whose link carries packets once it was looked at so often. */
function nodeOf(looks: number) {
  let waited = 0
  const host = {
    isOperational: async () => looks-- <= 0,
    awaitLinkChange: async () => {
      waited++
      await new Promise(resolve => setImmediate(resolve))
    },
  } as unknown as World['host']
  return { world: { host }, waited: () => waited }
}
const callOf = (ms: number, signal = new AbortController().signal) => ({
  ...{ ifName: 'eth0', deadline: deadlineIn(ms), signal },
})

test('awaitCarrier() looks again after each change, and does not wait where packets pass', async () => {
  for (const looks of [0, 3]) {
    const { world, waited } = nodeOf(looks)
    await awaitCarrier('v0', { call: callOf(10_000), world })
    assert.equal(waited(), looks)
  }
})

test('awaitCarrier() is error 11 that names the link when the time is over or the caller gone', async () => {
  const late = { code: 11, message: /^Cannot attach eth0: no packets pass v0/ }
  const { world } = nodeOf(Number.POSITIVE_INFINITY)
  await assert.rejects(awaitCarrier('v0', { call: callOf(1), world }), late)
  await assert.rejects(awaitCarrier('v0', { call: callOf(10_000, AbortSignal.abort()), world }), late)
})
