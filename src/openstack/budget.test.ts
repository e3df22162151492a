// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadlineIn } from '#base'
import { budgetDefaults, createBudget } from './budget.ts'
import type { Purpose } from './limits.ts'

const within = (ms: number, purpose?: Purpose) => ({ deadline: deadlineIn(ms), purpose })

// Slow, so that a process that is not let run for a while after the first turn does not find the second one due as well.
test('those for whom a pod waits go first, then reserve, release and looks', async () => {
  const budget = createBudget({ ...budgetDefaults, sharePerSecond: 5 })
  const order: string[] = []
  const enter = async (purpose: Purpose) => {
    const turn = await budget.enter('read', within(5_000, purpose))
    assert.equal(turn.kind, 'now')
    order.push(purpose)
  }
  await enter('look')
  await Promise.all((['look', 'reclaim', 'refill', 'pod', 'pod'] as const).map(enter))
  assert.deepEqual(order, ['look', 'pod', 'pod', 'refill', 'reclaim', 'look'])
})

test('a turn that comes too late is refused at once, with the time of the next', async () => {
  const budget = createBudget({ ...budgetDefaults, perSecond: { ...budgetDefaults.perSecond, write: 0.01 } })
  assert.equal((await budget.enter('write', within(60_000, 'pod'))).kind, 'now')
  const begin = performance.now()
  const turn = await budget.enter('write', within(60_000, 'pod'))
  assert.ok(performance.now() - begin < 30_000)
  assert.ok(turn.kind === 'late' && turn.retryMs > 60_000 && turn.retryMs <= 100_000, JSON.stringify(turn))
})

test('kinds of requests wait for their own bucket, not for that of others', async () => {
  const perSecond = { ...budgetDefaults.perSecond, delete: 0.001 }
  const budget = createBudget({ ...budgetDefaults, perSecond })
  assert.equal((await budget.enter('delete', within(100))).kind, 'now')
  assert.equal((await budget.enter('delete', within(100))).kind, 'late')
  assert.equal((await budget.enter('read', within(100))).kind, 'now')
})

test('more requests that wait than the limit allows are refused; a caller who goes leaves his place', async () => {
  const budget = createBudget({ ...budgetDefaults, sharePerSecond: 0.1, waitingMax: 1 })
  const stop = new AbortController()
  const waiting = budget.enter('read', { ...within(60_000), signal: stop.signal })
  assert.equal((await budget.enter('read', within(60_000))).kind, 'full')
  stop.abort()
  assert.equal((await waiting).kind, 'aborted')
})

test('one refusal changes nothing, the next ones slow down, answers and quiet make faster again', async () => {
  let nowMs = 0
  const budget = createBudget({ ...budgetDefaults, now: () => nowMs })
  const full = budget.perSecond()
  const refuse = async () => {
    nowMs += 100
    budget.refused(nowMs)
    nowMs += 100
  }
  await refuse()
  assert.equal(budget.perSecond(), full)
  await refuse()
  assert.equal(budget.perSecond(), 2)
  budget.refused(0)
  assert.equal(budget.perSecond(), 2, 'sent before the last refusal: no new lesson')
  await refuse()
  assert.equal(budget.perSecond(), 1)
  for (let count = 0; count < 36; count++) budget.passed()
  assert.ok(budget.perSecond() > 2)
  nowMs += 900_000
  await budget.enter('read', within(1_000))
  assert.equal(budget.perSecond(), full)
})
