// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadlineIn } from '#base'
import { createLane, type Place } from './lane.ts'

const soon = { deadline: deadlineIn(60_000) }

test('enter() admits so many at once, the others in order', async () => {
  const lane = createLane({ runningMax: 2, waitingMax: 10 })
  const [first] = (await Promise.all([lane.enter(soon), lane.enter(soon)])) as Place[]
  const order: number[] = []
  const waiting = [1, 2].map(async number => {
    const place = (await lane.enter(soon)) as Place
    order.push(number)
    place[Symbol.dispose]()
  })
  await new Promise(setImmediate)
  assert.deepEqual(order, [])
  first![Symbol.dispose]()
  first![Symbol.dispose]()
  await Promise.all(waiting)
  assert.deepEqual(order, [1, 2])
})

test('enter() refuses when too many wait, and gives up with the caller', async () => {
  const lane = createLane({ runningMax: 1, waitingMax: 1 })
  const place = (await lane.enter(soon)) as Place
  const controller = new AbortController()
  const waiting = lane.enter({ deadline: deadlineIn(60_000), signal: controller.signal })
  assert.equal(await lane.enter(soon), 'full')
  controller.abort()
  assert.equal(await waiting, 'late')
  assert.equal(await lane.enter({ deadline: deadlineIn(5) }), 'late')
  place[Symbol.dispose]()
  assert.notEqual(await lane.enter(soon), 'late')
})
