// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { watchUnserved } from './unserved.ts'

test('an ADD is unserved from its first try until one succeeds, or a DEL gives it up', () => {
  let nowMs = 0
  const unserved = watchUnserved(() => nowMs)
  assert.equal(unserved.oldestMs(), 0)
  unserved.begun('a')
  nowMs += 1_000
  unserved.ended('a', false)
  unserved.begun('b')
  nowMs += 1_000
  unserved.begun('a')
  assert.equal(unserved.oldestMs(), 2_000, 'a second try is no new beginning')
  unserved.ended('a', true)
  assert.equal(unserved.oldestMs(), 1_000)
  unserved.ended('b', true)
  assert.equal(unserved.oldestMs(), 0)
})

test('what its runtime has forgotten is forgotten after an hour', () => {
  let nowMs = 0
  const unserved = watchUnserved(() => nowMs)
  unserved.begun('a')
  nowMs += 3_600_001
  assert.equal(unserved.oldestMs(), 0)
})
