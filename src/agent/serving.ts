// SPDX-License-Identifier: Apache-2.0

import { useLanes, type World } from '#plugins'
import { Background, type BackgroundOptions } from './background.ts'
import { Calls, laneOf } from './calls.ts'
import { createLanes } from './lanes.ts'
import type { Answer, Incoming } from './server.ts'

/** Disposing of it waits for the calls that are under way. */
export type Serving = AsyncDisposable & {
  /** Answers one call, after the DELs that were promised before it. */
  serve(incoming: Pick<Incoming, 'type' | 'env' | 'stdin' | 'netnsFd' | 'signal'>): Promise<Answer>
  /** One round of what goes on without being asked; it is done at intervals too. */
  keepUp(): Promise<void>
}

/**
 * The agent without socket and threads: calls in lanes, the spool, the reconciler. What an earlier one left unfinished is
 * finished, and promised DELs are done, when this returns.
 */
export async function startServing(world: World, options: BackgroundOptions): Promise<Serving> {
  const lanes = createLanes()
  useLanes(world.journal, (key, work) => lanes.tryRun(laneOf(key), work))
  const background = new Background(world, lanes, options)
  await background.run()
  const calls = new Calls(world, lanes, options)
  return {
    async serve(incoming) {
      if (incoming.env['CNI_COMMAND'] === 'ADD') await background.keepPromises()
      return await calls.serve(incoming)
    },
    keepUp: () => background.run(),
    async [Symbol.asyncDispose]() {
      await lanes.idle()
      await background[Symbol.asyncDispose]()
    },
  }
}
