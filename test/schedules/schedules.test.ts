// SPDX-License-Identifier: Apache-2.0

// Goal: whatever a runtime, an operator, the cloud and a bad day do, in whatever order, no address has two owners at any
// moment, none is anybody else's while it leads to a container still, and in the end Neutron, journal and kernel are equal.
// Method: 1000 schedules from seeds, many side by side, each with a cloud (the simulator, over HTTP), a journal and a node
// of its own; each tenth on the real kernel where the test has root, the others on one in memory, which is slow now and
// then and refuses at times. One that fails is cut down and printed. One alone, 1000 of one mode:
// SCHEDULE_MODE=mix SCHEDULE_SEED=17 (or SCHEDULES=1000) node --test test/schedules/schedules.test.ts
// SCHEDULE_KERNEL=real takes the real kernel for all, SCHEDULE_FIRST=2001 the seeds from there on.
// `./mooring test` runs a tenth of them, `--all` all.

import assert from 'node:assert/strict'
import { availableParallelism } from 'node:os'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { isWholeRun } from '../whole-run.ts'
import { modes } from './mode.ts'
import { type Failure, runSchedule, type Share } from './run.ts'
import { describeSchedule, makeSchedule, type Schedule, shorterThan } from './schedule.ts'

const { SCHEDULES, SCHEDULE_MODE, SCHEDULE_SEED, SCHEDULE_FIRST = '1', SCHEDULE_KERNEL } = process.env
const chosen = modes.filter(({ name }) => SCHEDULE_MODE === undefined || name === SCHEDULE_MODE)
const THREADS = Math.min(4, availableParallelism())
/** Tries of a shorter schedule: what hangs on time does not fail each time. */
const TRIES = 3
const SHRINK_MS = 40_000
const share = SCHEDULE_KERNEL === 'real' ? 'all' : 'a tenth'

for (const { name, schedules, gives, needsRoot } of chosen) {
  const wanted = Number(SCHEDULES ?? (isWholeRun ? schedules : schedules / 10))
  const what = `${wanted} schedules of mode ${name}, ${share} on the real kernel`
  const skip = needsRoot && process.getuid?.() !== 0 ? 'needs root' : false
  test(`${what}: no address has two owners, in the end all is equal`, { skip }, async () => {
    const seeds = SCHEDULE_SEED === undefined ? numbers(wanted, Number(SCHEDULE_FIRST)) : [Number(SCHEDULE_SEED)]
    const shares = numbers(THREADS).map(thread => ({
      mode: name,
      seeds: seeds.filter(seed => SCHEDULE_SEED !== undefined || seed % THREADS === thread - 1),
    }))
    const found = await Promise.all(shares.slice(0, SCHEDULE_SEED === undefined ? THREADS : 1).map(inThread))
    const failure = found.find(each => each !== undefined)
    if (failure === undefined) return
    const { schedule, error } = await cutDown(makeSchedule(failure.seed, gives), failure.error, name)
    assert.fail(
      `SCHEDULE_MODE="${name}" SCHEDULE_SEED=${failure.seed}, cut down to:\n${describeSchedule(schedule)}\n${error}`,
    )
  })
}

const numbers = (count: number, first = 1) => Array.from({ length: count }, (_, index) => index + first)

function inThread(share: Share): Promise<Failure | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<Failure | undefined>()
  const thread = new Worker(new URL('./run.ts', import.meta.url), { workerData: share })
  thread.once('message', resolve).once('error', reject)
  return promise.finally(() => thread.terminate())
}

async function cutDown(schedule: Schedule, error: string, mode: string) {
  const untilMs = performance.now() + SHRINK_MS
  let found = { schedule, error }
  search: while (performance.now() < untilMs) {
    for (const shorter of shorterThan(found.schedule))
      for (let tries = 0; tries < TRIES && performance.now() < untilMs; tries++) {
        const again = await runSchedule(shorter, mode)
        if (again === undefined) continue
        found = { schedule: shorter, error: again }
        continue search
      }
    break
  }
  return found
}
