// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createDurations } from './durations.ts'
import { createHistory } from './health.ts'

test('createHistory(): a service is flaky after five failures of the last twenty, until none came for a while', () => {
  let nowMs = 0
  const history = createHistory(5, 10_000, () => nowMs)
  for (let count = 0; count < 4; count++) history.note(true)
  assert.equal(history.flaky(), undefined)
  for (let count = 0; count < 6; count++) history.note(false)
  history.note(true)
  nowMs += 4_000
  assert.deepEqual(history.flaky(), { failures: 5, of: 11, retryMs: 6_000 })
  nowMs += 6_000
  assert.equal(history.flaky(), undefined)
  nowMs += 1
  history.note(true)
  assert.equal(history.flaky(), undefined, 'what was before the calm does not count')
})

test('createDurations(): the median of the last nine, where five of the last minute are known', () => {
  let nowMs = 0
  const durations = createDurations(() => nowMs)
  for (const ms of [10, 20, 30, 40]) durations.note('neutron PUT ports', ms)
  assert.equal(durations.typicalMs('neutron PUT ports'), undefined)
  durations.note('neutron PUT ports', 1_000)
  assert.equal(durations.typicalMs('neutron PUT ports'), 30)
  for (let count = 0; count < 9; count++) durations.note('neutron PUT ports', 500)
  assert.equal(durations.typicalMs('neutron PUT ports'), 500)
  assert.equal(durations.typicalMs('neutron GET ports'), undefined)
  nowMs += 61_000
  assert.equal(durations.typicalMs('neutron PUT ports'), undefined)
})
