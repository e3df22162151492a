// SPDX-License-Identifier: Apache-2.0

import { type AttachmentKey, type Journal, tryEnterLane } from '#allocator'
import type { World } from './world.ts'

/** Runs work while no call of the attachment runs in this process; undefined where one does. */
export type TryInLane = (key: AttachmentKey, work: () => Promise<void>) => Promise<void> | undefined

// Per journal, because one process may be several nodes (tests), and a node has one journal.
const lanes = new WeakMap<Journal, TryInLane>()

/** For the agent, which has all calls in one process. */
export const useLanes = (journal: Journal, tryInLane: TryInLane): void => void lanes.set(journal, tryInLane)

/** Runs work on an attachment unless a call of it is under way, in this process or in another. */
export async function unlessBusy(
  { journal, dataDir }: World,
  key: AttachmentKey,
  work: () => Promise<void>,
): Promise<void> {
  const locked = async () => {
    using lane = tryEnterLane(dataDir, key)
    if (lane !== undefined) await work()
  }
  const tryInLane = lanes.get(journal)
  await (tryInLane === undefined ? locked() : tryInLane(key, locked))
}
