// SPDX-License-Identifier: Apache-2.0

import { join } from 'node:path'
import { findLookup, type Journal, type Limits, putLookup, withFileLock, withinLimits } from '#allocator'
import { deadlineIn, sha256Hex } from '#base'
import type { World } from '../../world.ts'

/** What a node asks of the cloud about itself hardly ever changes; what has changed shows itself by an error, too. */
const FRESH_MS = 300_000
/** The longest that a look takes which several callers share: some calls of a node that may make one in 20 seconds. */
const LOOK_MS = 120_000

export type Look<T> = {
  /** Everything that the answer depends on; `forgetLookup` takes it when the answer is not true any more. */
  readonly lookup: string
  /** What is looked for, for the error of a caller whose time is over: "find the …". */
  readonly action: string
  look(limits: Limits): Promise<T>
}

/** What was found before, or is found now; plain JSON. */
export async function lookUp<T>(world: World, wanted: Look<T>, limits: Limits): Promise<T> {
  const kept = findKept<T>(world, wanted.lookup)
  if (kept?.isFresh) return kept.found
  if (!world.longLived) return await lookInTurn(world, wanted, limits)
  if (kept === undefined) return await lookTogether(world, wanted, limits)
  // A pod does not wait for what is most likely still true.
  void lookTogether(world, wanted, { deadline: deadlineIn(LOOK_MS) }).catch(() => {})
  return kept.found
}

/** As it is now, whatever was found before. Whoever asks while another looks gets what that one finds, also if he waits for less. */
export async function lookAgain<T>(world: World, wanted: Look<T>, limits: Limits): Promise<T> {
  return await (world.longLived ? lookTogether : lookAndKeep)(world, wanted, limits)
}

async function lookAndKeep<T>(world: World, { lookup, look }: Look<T>, limits: Limits): Promise<T> {
  const found = await look(limits)
  putLookup(world.journal, lookup, JSON.stringify(found))
  return found
}

function findKept<T>(world: World, lookup: string): { found: T; isFresh: boolean } | undefined {
  const kept = findLookup(world.journal, lookup)
  if (kept === undefined) return undefined
  return { found: JSON.parse(kept.place) as T, isFresh: Date.now() - kept.lookedMs < FRESH_MS }
}

const flights = new WeakMap<Journal, Map<string, Promise<unknown>>>()

/**
 * One looks, and all callers of this process take what it found, or its failure: a hundred pods that start at once would
 * otherwise ask Neutron three hundred questions before the first gets an address.
 */
function lookTogether<T>(world: World, wanted: Look<T>, limits: Limits): Promise<T> {
  const all = flights.get(world.journal) ?? new Map<string, Promise<unknown>>()
  flights.set(world.journal, all)
  const { lookup, action } = wanted
  const flight = (all.get(lookup) ??
    lookAndKeep(world, wanted, { deadline: deadlineIn(LOOK_MS), purpose: limits.purpose }).finally(() =>
      all.delete(lookup),
    )) as Promise<T>
  all.set(lookup, flight)
  return withinLimits(flight, limits, action)
}

/** The same between processes that live for one call. */
async function lookInTurn<T>(world: World, wanted: Look<T>, limits: Limits): Promise<T> {
  const { lookup } = wanted
  const name = sha256Hex(lookup).slice(0, 16)
  let kept: { readonly found: T; readonly isFresh: boolean } | undefined
  const isKnown = () => {
    kept = findKept<T>(world, lookup)
    return kept?.isFresh === true
  }
  const lookUnlessKnown = async () => (isKnown() ? undefined : await lookAndKeep(world, wanted, limits))
  const found = await withFileLock(join(world.dataDir, `lookup-${name}.lock`), lookUnlessKnown, limits, isKnown)
  // As it was when it was known: another process may have forgotten it since.
  return found ?? kept!.found
}
