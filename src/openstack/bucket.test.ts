// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createBucket } from './bucket.ts'

test('createBucket() lets three seconds’ worth pass after a rest, then its speed', () => {
  let nowMs = 0
  const bucket = createBucket(10, () => nowMs)
  for (let count = 0; count < 30; count++) {
    assert.equal(bucket.waitMs(), 0)
    bucket.take()
  }
  assert.equal(bucket.waitMs(), 100)
  nowMs += 100
  assert.equal(bucket.waitMs(), 0)
})

test('createBucket() slower than one a second lets one pass after a rest, and a clock that goes back does no harm', () => {
  let nowMs = 1_000
  const bucket = createBucket(0.1, () => nowMs, 0)
  assert.equal(bucket.waitMs(), 10_000)
  nowMs += 60_000
  bucket.take()
  assert.ok(bucket.waitMs() >= 9_999)
  nowMs -= 30_000
  assert.ok(bucket.waitMs() <= 10_000)
})

test('empty() makes those that were emptied together go on apart', () => {
  const waits = Array.from({ length: 50 }, () => {
    const bucket = createBucket(1, () => 0)
    bucket.empty()
    return bucket.waitMs()
  })
  for (const ms of waits) assert.ok(ms >= 1_000 && ms <= 2_000)
  assert.ok(new Set(waits).size > 40)
})
