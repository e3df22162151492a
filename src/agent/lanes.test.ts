// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLanes } from './lanes.ts'

test('run() keeps the order within a lane and none between lanes', async () => {
  const lanes = createLanes()
  const seen: string[] = []
  const first = Promise.withResolvers<void>()
  const a = lanes.run('a', async () => {
    await first.promise
    seen.push('a1')
  })
  const b = lanes.run('a', async () => seen.push('a2'))
  await lanes.run('b', async () => seen.push('b1'))
  assert.deepEqual(seen, ['b1'])
  first.resolve()
  await Promise.all([a, b])
  assert.deepEqual(seen, ['b1', 'a1', 'a2'])
})

test('run() goes on after a failure, which only its own caller sees', async () => {
  const lanes = createLanes()
  const failing = lanes.run('a', async () => {
    throw new Error('no')
  })
  const next = lanes.run('a', async () => 'yes')
  await assert.rejects(failing, /no/)
  assert.equal(await next, 'yes')
})

test('idle() waits for work that was added while it waited', async () => {
  const lanes = createLanes()
  let done = 0
  const work = async () => {
    await new Promise(resolve => setTimeout(resolve, 1))
    done++
  }
  const all = lanes.run('a', async () => {
    await work()
    void lanes.run('b', work)
  })
  await lanes.idle()
  await all
  assert.equal(done, 2)
})

test('tryRun() runs work in an empty lane only, and others wait for it', async () => {
  const lanes = createLanes()
  const first = Promise.withResolvers<void>()
  const running = lanes.tryRun('a', () => first.promise)
  assert.equal(
    lanes.tryRun('a', async () => {}),
    undefined,
  )
  let isDone = false
  const next = lanes.run('a', async () => {
    isDone = true
  })
  await new Promise(resolve => setImmediate(resolve))
  assert.equal(isDone, false)
  first.resolve()
  await Promise.all([running, next])
  assert.equal(isDone, true)
})
