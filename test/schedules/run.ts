// SPDX-License-Identifier: Apache-2.0

// Runs schedules, many side by side: their time-outs and pauses go on at the same time. Also a thread that runs a share.

import { isMainThread, parentPort, workerData } from 'node:worker_threads'
import { modes } from './mode.ts'
import { settle } from './oracle.ts'
import { makeSchedule, type Schedule } from './schedule.ts'
import { perform } from './steps.ts'
import { startWorld } from './world.ts'

/** Each so many with the real kernel: a removal of a link takes it 15 ms, in which it does nothing else for anybody. */
const REAL_EVERY = process.env['SCHEDULE_KERNEL'] === 'real' ? 1 : 10
const SIDE_BY_SIDE = 24
const isRoot = process.getuid?.() === 0

/** Runs a schedule to its end. @returns what was not as it has to be */
export async function runSchedule(schedule: Schedule, modeName: string): Promise<string | undefined> {
  const mode = modes.find(({ name }) => name === modeName)!
  try {
    await using world = await startWorld(schedule, { mode, real: isRoot && schedule.seed % REAL_EVERY === 0 })
    for (const step of schedule.steps) await perform(world, step)
    await settle(world)
    return undefined
  } catch (error) {
    return error instanceof Error ? `${error.stack}` : String(error)
  }
}

export type Share = { readonly mode: string; readonly seeds: readonly number[] }
export type Failure = { readonly seed: number; readonly error: string }

/** Runs the schedules of some seeds until one fails. */
async function runShare({ mode, seeds }: Share): Promise<Failure | undefined> {
  const { gives } = modes.find(({ name }) => name === mode)!
  const left = [...seeds]
  let failure: Failure | undefined
  async function work(): Promise<void> {
    for (let seed = left.shift(); seed !== undefined && failure === undefined; seed = left.shift()) {
      const error = await runSchedule(makeSchedule(seed, gives), mode)
      if (error !== undefined) failure ??= { seed, error }
    }
  }
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, work))
  return failure
}

if (!isMainThread) parentPort!.postMessage(await runShare(workerData as Share))
