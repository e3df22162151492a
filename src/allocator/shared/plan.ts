// SPDX-License-Identifier: Apache-2.0

// What follows from a list of the cloud that others write too, and from what the journal knows of it. Pure.

/**
 * `foreign`: it was there when we first needed it, and it stays when we do not. `adding`: our write is or was under way.
 * `held`: we put it there. `removing`: our removal is or was under way. `removed`: seen gone; a writer who had read the list
 * before may bring it back.
 */
export type EntryState = 'foreign' | 'adding' | 'held' | 'removing' | 'removed'

/** One entry of a list as the journal knows it. */
export type Entry = { readonly entry: string; readonly state: EntryState; readonly changedMs: number }

export type ListFacts = {
  /** What the list holds. */
  readonly shown: readonly string[]
  readonly known: readonly Entry[]
  /** What it has to hold for our sake. */
  readonly wanted: readonly string[]
  /** A removed entry that comes back within this time came back by an older list. */
  readonly echoMs: number
  /** What has appeared since the last look may have appeared then already. */
  readonly appearedMs: number
  readonly nowMs: number
}

export type ListPlan = {
  readonly add: readonly string[]
  readonly remove: readonly string[]
  /** States that follow from the look alone; undefined: to be forgotten. */
  readonly states: ReadonlyMap<string, EntryState | undefined>
  /** Entries of ours that somebody else has taken out; they are in `add` again. */
  readonly lost: readonly string[]
  /** Entries that we had removed and that somebody else has brought back; they are in `remove` again. */
  readonly returned: readonly string[]
}

/** A write whose answer was not seen may show its effect for so long. */
export const UNSEEN_MS = 180_000

/** What to do with a list: what to add, what to remove, and what is to be known of it. */
export function planList({ shown, known, wanted, echoMs, appearedMs, nowMs }: ListFacts): ListPlan {
  const present = new Set(shown)
  const needed = new Set(wanted)
  const byEntry = new Map(known.map(each => [each.entry, each]))
  const [add, remove, lost, returned]: string[][] = [[], [], [], []]
  const states = new Map<string, EntryState | undefined>()
  const isPast = ({ state, changedMs }: Entry) => state === 'removed' && appearedMs - changedMs > echoMs
  for (const entry of needed) {
    const its = byEntry.get(entry)
    if (!present.has(entry)) {
      add!.push(entry)
      if (its?.state === 'held') lost!.push(entry)
    } else if (its === undefined || isPast(its)) states.set(entry, 'foreign')
    else if (its.state !== 'foreign' && its.state !== 'held') states.set(entry, 'held')
  }
  for (const its of known) {
    const { entry, state, changedMs } = its
    if (needed.has(entry)) continue
    if (state === 'foreign' || isPast(its)) states.set(entry, undefined)
    else if (present.has(entry)) {
      remove!.push(entry)
      if (state === 'removed') returned!.push(entry)
    } else if (state !== 'removed' && (state !== 'adding' || nowMs - changedMs > UNSEEN_MS))
      states.set(entry, 'removed')
  }
  return { add: add!, remove: remove!, states, lost: lost!, returned: returned! }
}

/** What others have changed between two looks at a list: whatever we did not do ourselves. */
export function foreignChange(
  before: readonly string[],
  after: readonly string[],
  ours: ReadonlySet<string>,
): { readonly added: readonly string[]; readonly removed: readonly string[] } {
  const [old, now] = [new Set(before), new Set(after)]
  return {
    added: after.filter(each => !old.has(each) && !ours.has(each)),
    removed: before.filter(each => !now.has(each) && !ours.has(each)),
  }
}
