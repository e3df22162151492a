// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { deadlineIn } from '#base'
import { tryLock } from '#libc'
import { joinArrivals } from './arrivals.ts'

const within = (ms: number) => ({ deadline: deadlineIn(ms) })

function directoryFor(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-arrivals-'))
  t.after(() => rmSync(directory, { recursive: true }))
  return directory
}

/** What the shim does before it starts Node.js. */
function begin(directory: string): number {
  const fd = openSync(join(directory, 'starting'), 'a')
  assert.ok(tryLock(fd))
  return fd
}

test('untilOthersArrived() does not wait where nobody has begun, not even for itself', async t => {
  const directory = directoryFor(t)
  const started = performance.now()
  await joinArrivals(directory).untilOthersArrived(within(60_000))
  await joinArrivals(directory, begin(directory)).untilOthersArrived(within(60_000))
  assert.ok(performance.now() - started < 500)
})

test('untilOthersArrived() waits until the other has arrived', async t => {
  const directory = directoryFor(t)
  const other = joinArrivals(directory, begin(directory))
  let over = false
  const wait = joinArrivals(directory)
    .untilOthersArrived(within(60_000))
    .finally(() => {
      over = true
    })
  await sleep(50)
  assert.equal(over, false)
  other.arrived()
  await wait
})

test('untilOthersArrived() waits for nobody who begins more than a second later', async t => {
  const directory = directoryFor(t)
  const first = begin(directory)
  const wait = joinArrivals(directory).untilOthersArrived(within(60_000))
  await sleep(1_200)
  const later = begin(directory)
  closeSync(first)
  await wait
  closeSync(later)
})

test('untilOthersArrived() leaves the caller most of its time where somebody never arrives', async t => {
  const directory = directoryFor(t)
  const stuck = begin(directory)
  const limits = within(400)
  await joinArrivals(directory).untilOthersArrived(limits)
  closeSync(stuck)
  assert.ok(limits.deadline.atMs > performance.now())
})
