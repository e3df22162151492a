// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { breakerDefaults, createBreaker } from './breaker.ts'

function breakerAt(): { at: { ms: number }; breaker: ReturnType<typeof createBreaker>; pauses: number[] } {
  const at = { ms: 0 }
  const pauses: number[] = []
  const breaker = createBreaker({ ...breakerDefaults, now: () => at.ms }, ms => pauses.push(ms))
  return { at, breaker, pauses }
}

/** Five failures over 1.2 s. */
function fail({ at, breaker }: ReturnType<typeof breakerAt>): void {
  for (let count = 0; count < 5; count++) {
    breaker.failed('HTTP 503', false)
    at.ms += 300
  }
}

test('it opens after failures in a row that take their time, not after many in one moment or with a success between', () => {
  const made = breakerAt()
  const { at, breaker } = made
  for (let count = 0; count < 50; count++) breaker.failed('cut', false)
  assert.equal(breaker.state(), 'closed')
  at.ms += 5_000
  breaker.succeeded()
  breaker.failed('cut', false)
  assert.equal(breaker.state(), 'closed')
  fail(made)
  assert.equal(breaker.state(), 'open')
  const verdict = breaker.ask()
  assert.ok(verdict.kind === 'refused' && verdict.retryMs > 0)
  assert.match(verdict.reason, /^\d+ requests in a row failed, the last one: HTTP 503$/)
})

test('after its pause one request tries, the others wait for it; a success closes it', async () => {
  const made = breakerAt()
  const { at, breaker } = made
  fail(made)
  at.ms += 1_300
  assert.equal(breaker.ask().kind, 'probe')
  const other = breaker.ask()
  assert.ok(other.kind === 'wait')
  breaker.succeeded()
  await other.until
  assert.equal(breaker.ask().kind, 'pass')
})

test('each try that fails doubles the pause, up to half a minute and a quarter of it', () => {
  const made = breakerAt()
  const { at, breaker, pauses } = made
  fail(made)
  for (let count = 0; count < 8; count++) {
    at.ms += 40_000
    assert.equal(breaker.ask().kind, 'probe')
    breaker.failed('HTTP 503', true)
  }
  for (const [index, ms] of pauses.entries()) {
    const middle = Math.min(30_000, 1_000 * 2 ** index)
    assert.ok(ms >= middle * 0.75 && ms <= middle * 1.25, `${index}: ${ms}`)
  }
})

test('failures of requests that were under way when it opened do not lengthen the pause; a try that was given up leaves it to the next', () => {
  const made = breakerAt()
  const { at, breaker, pauses } = made
  fail(made)
  breaker.failed('late', false)
  assert.equal(pauses.length, 1)
  at.ms += 1_300
  assert.equal(breaker.ask().kind, 'probe')
  breaker.gaveUp()
  assert.equal(breaker.ask().kind, 'probe')
})
