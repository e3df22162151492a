// SPDX-License-Identifier: Apache-2.0

// Goal: whatever a runtime, an operator, the cloud and a bad day do, in whatever order, no address has two owners at any
// moment, and in the end Neutron, journal and kernel are equal. Method: 1000 schedules from seeds, many side by side, each
// with a cloud (the simulator, over HTTP), a journal and a node of its own; each tenth with the real kernel where the test
// has root. One that fails is cut down and printed. Again: SCHEDULE_SEED=N node --test test/schedules/schedules.test.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Mode, modes } from './mode.ts'
import { settle } from './oracle.ts'
import { describeSchedule, makeSchedule, type Schedule, shorterThan } from './schedule.ts'
import { perform } from './steps.ts'
import { startWorld } from './world.ts'

const SCHEDULES = 1000
const SIDE_BY_SIDE = 24
/** Each so many with the real kernel: a removal of a link takes it 15 ms, in which it does nothing else for anybody. */
const REAL_EVERY = 10
const isRoot = process.getuid?.() === 0
/** Tries of a shorter schedule: what hangs on time does not fail each time. */
const TRIES = 3
const SHRINK_MS = 60_000

async function fails(schedule: Schedule, mode: Mode): Promise<Error | undefined> {
  try {
    await using world = await startWorld(schedule, { mode, real: isRoot && schedule.seed % REAL_EVERY === 0 })
    for (const step of schedule.steps) await perform(world, step)
    await settle(world)
    return undefined
  } catch (error) {
    return error as Error
  }
}

async function shrink(schedule: Schedule, error: Error, mode: Mode): Promise<{ schedule: Schedule; error: Error }> {
  const untilMs = performance.now() + SHRINK_MS
  let found = { schedule, error }
  search: while (performance.now() < untilMs) {
    for (const shorter of shorterThan(found.schedule)) {
      if (performance.now() > untilMs) break search
      for (let tries = 0; tries < TRIES; tries++) {
        const again = await fails(shorter, mode)
        if (again === undefined) continue
        found = { schedule: shorter, error: again }
        continue search
      }
    }
    break
  }
  return found
}

for (const mode of modes) {
  const count = Number(process.env['SCHEDULES'] ?? mode.schedules ?? SCHEDULES)
  test(`${count} schedules of mode ${mode.name}, each tenth on the real kernel: no address has two owners, in the end all is equal`, async t => {
    const only = process.env['SCHEDULE_SEED']
    const seeds = only === undefined ? Array.from({ length: count }, (_, seed) => seed + 1) : [Number(only)]
    let failure: { schedule: Schedule; error: Error } | undefined
    async function work(): Promise<void> {
      for (let seed = seeds.shift(); seed !== undefined && failure === undefined; seed = seeds.shift()) {
        const schedule = makeSchedule(seed)
        const error = await fails(schedule, mode)
        if (error !== undefined) failure ??= { schedule, error }
      }
    }
    await Promise.all(Array.from({ length: SIDE_BY_SIDE }, work))
    if (failure === undefined) return
    t.diagnostic(`seed ${failure.schedule.seed}: ${failure.error.stack}\n${describeSchedule(failure.schedule)}`)
    const { schedule, error } = await shrink(failure.schedule, failure.error, mode)
    assert.fail(`SCHEDULE_SEED=${schedule.seed}, cut down to:\n${describeSchedule(schedule)}\n${error.stack}`)
  })
}
