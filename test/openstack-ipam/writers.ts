// SPDX-License-Identifier: Apache-2.0

// What the tests of other writers share: the ground, who writes there and how, and who watches what is missing, for how long, and
// what is told of it.

import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ListReport, memoryJournal, openSharedList, pairsDriver, routesDriver, type SharedList } from '#allocator'
import { deadlineIn } from '#base'
import { type CloudSession, OpenStackError } from '#openstack'
import { type Node, nodeDirectory } from './node.ts'

/** A router and two ports of a network 10.10.10.0/24, of which Neutron gives 10.10.10.2 to .199 to those who choose none. */
export type Ground = {
  readonly cloud: CloudSession
  readonly routerId: string
  readonly subnetId: string
  /** With an address of its own: further ones are those of pods. */
  readonly portId: string
  readonly pairsPortId: string
  /** The node of that port, and its configuration. */
  readonly node: Node
  readonly ipam: object
  /** A PUT as a human's tool sends it. @returns the body of the answer */
  put(path: string, body: object): Promise<unknown>
  /** As it was seen last. */
  routes(): string[]
  pairs(): string[]
  addresses(): string[]
  /** When the look began that tells all this. */
  seenMs(): number
  /** Looks now. */
  refresh(): Promise<void>
  /** Called after each look. */
  readonly listeners: Set<() => void>
}

export type Pace = {
  /** About the time that Neutron takes for a write; a human needs as long to think. */
  readonly commitMs: number
  /** From a write of ours until the look back. */
  readonly verifyMs: number
  /** From a change of ours to the next, at most. */
  readonly pauseMs: number
  /** What is lost is back within this time. @param writeMs what a write of the human took, in the middle */
  noticedMs(writeMs: number): number
  readonly settledMs: number
  /** Changes of each who writes. */
  readonly changes: number
  /** After this long nobody begins another change. */
  readonly endAfterMs: number
  /** Changes in turn of each who writes. */
  readonly rounds: number
  /** Entries that the cloud permits in a list, that a writer of ours needs at a time, and that the human has. */
  readonly routes: Sizes
  readonly pairs: Sizes
}
type Revised = { readonly revision_number?: number | undefined }
/** What a test looks at, and a ground keeps in view. */
export type Kind = 'routes' | 'pairs' | 'addresses'
type Sizes = { readonly max: number; readonly held: number; readonly his: number }

export const HUMANS_HOP = '10.10.10.200'
/** Of others, and never changed. */
export const BYSTANDER = { route: '10.98.0.0/24', pair: '198.51.100.7' } as const
export const limits = () => ({ deadline: deadlineIn(60_000) })

export type Change = (held: readonly string[]) => readonly string[]

/** Whether somebody wrote between a look and the answer to the write on its ground. */
export const isOlder = (look: Revised, answer: Revised): boolean =>
  (answer.revision_number ?? 0) > (look.revision_number ?? Number.POSITIVE_INFINITY) + 1

/** What the tests do with a ground, at a pace. */
export function sceneOn(t: TestContext, ground: Ground, pace: Pace) {
  const { cloud, routerId, pairsPortId, put } = ground
  const reports: ListReport[] = []
  let made = 0
  const open = (kind: 'pairs' | 'routes', onReport?: (report: ListReport) => void): SharedList => {
    const list = openSharedList({
      journal: memoryJournal(),
      driver:
        kind === 'pairs'
          ? pairsDriver(pairsPortId, async () => cloud.neutron)
          : routesDriver(routerId, async () => cloud.neutron),
      access: '{}',
      settings: { entriesMax: pace[kind].max, verifyAfterMs: pace.verifyMs, lockDirectory: nodeDirectory(t) },
      longLived: true,
      onReport: report => {
        reports.push(report)
        onReport?.(report)
      },
      onError: () => {},
    })
    t.after(() => list.close())
    return {
      ...list,
      need: (...args) => {
        made++
        return list.need(...args)
      },
    }
  }
  const endMs = performance.now() + pace.endAfterMs
  const isLate = () => performance.now() > endMs
  const times: number[] = []
  const writeMs = () => times.toSorted((a, b) => a - b)[times.length >> 1] ?? 0
  const timed = async <T>(write: () => Promise<T>): Promise<T> => {
    const begin = performance.now()
    try {
      return await write()
    } finally {
      times.push(performance.now() - begin)
    }
  }
  /** Whoever has thought for too long looks again: by then nobody takes what he brings back for a mistake. */
  const lookAndThink = async <T>(look: () => Promise<T | undefined>): Promise<T> => {
    for (;;) {
      const begin = performance.now()
      const seen = await look()
      await sleep(Math.random() * 2 * pace.commitMs)
      if (performance.now() - begin < pace.verifyMs) return seen!
    }
  }
  /** `openstack router set` as it was before it knew better: the whole list. */
  const putRoutes = async (change: Change) => {
    const router = await lookAndThink(() => cloud.neutron.routers.get(routerId, limits()))
    const { routes: held } = router
    const routes = change(held.map(each => each.destination)).map(
      destination => held.find(each => each.destination === destination) ?? { destination, nexthop: HUMANS_HOP },
    )
    const answer = (await timed(() => put(`routers/${routerId}`, { router: { routes } }))) as { router: Revised }
    return { isOverlapping: isOlder(router, answer.router) }
  }
  return { ...ground, made: () => made, isLate, reports, open, lookAndThink, timed, writeMs, putRoutes }
}

/** What is owed, and since when. */
export type Owed = Map<string, number>

/** @param seenMs when the look began: what was acknowledged later it need not show */
export const missingOf = (owed: Owed, shown: readonly string[], seenMs: number): string[] =>
  [...owed].filter(([entry, sinceMs]) => sinceMs < seenMs && !shown.includes(entry)).map(([entry]) => entry)

/** Notes how long at a time something that should hold does not. */
export function watch({ listeners }: Ground, wrong: () => readonly string[]) {
  const since = new Map<string, number>()
  const lossesMs: number[] = []
  const noticesMs: number[] = []
  const noticed = new Set<string>()
  const look = () => {
    const now = performance.now()
    const wrongNow = new Set(wrong())
    for (const [entry, begin] of since)
      if (!wrongNow.has(entry)) {
        lossesMs.push(now - begin)
        since.delete(entry)
        noticed.delete(entry)
      }
    for (const entry of wrongNow) if (!since.has(entry)) since.set(entry, now)
  }
  listeners.add(look)
  return {
    look,
    /** That our side has seen it: at once, where no look of the test's came first. */
    notice(entry: string): void {
      const begin = since.get(entry) ?? performance.now()
      if (!noticed.has(entry)) noticesMs.push(performance.now() - begin)
      if (since.has(entry)) noticed.add(entry)
    },
    longest: () => Math.max(0, ...lossesMs, ...[...since.values()].map(begin => performance.now() - begin)),
    /** In words, for people. */
    summary: () => `noticed ${spreadOf(noticesMs)}, back ${spreadOf(lossesMs)}`,
  }
}

/** How many, the middle one and the longest. */
function spreadOf(timesMs: readonly number[]): string {
  if (timesMs.length === 0) return 'none'
  const sorted = timesMs.toSorted((a, b) => a - b)
  return `${sorted.length} (median ${Math.round(sorted[sorted.length >> 1]!)} ms, worst ${Math.round(sorted.at(-1)!)} ms)`
}

type Edit = {
  readonly entry: string
  readonly adds: boolean
  /** From his look until Neutron's answer. */
  readonly beginMs: number
  readonly endMs: number
  isUndone: boolean
}

/** What a human did when, which of it somebody undid, and when he was told that something of his may be undone. */
export function editsToTell({ listeners, seenMs }: Ground, listed: () => readonly string[]) {
  const edits: Edit[] = []
  const latest = new Map<string, Edit>()
  const toldMs: number[] = []
  let overlapping = 0
  const look = () => {
    const shown = new Set(listed())
    for (const edit of latest.values())
      if (edit.endMs < seenMs() && shown.has(edit.entry) !== edit.adds) edit.isUndone = true
  }
  listeners.add(look)
  const whenTold = ({ beginMs }: Edit) => toldMs.find(ms => ms > beginMs) ?? Number.POSITIVE_INFINITY
  const listUndone = () => edits.filter(each => each.isUndone)
  return {
    look,
    /** @param isOverlapping whether Neutron counted another write since his look */
    async edit(entry: string, adds: boolean, beginMs: number, write: () => Promise<{ isOverlapping: boolean }>) {
      latest.delete(entry)
      const { isOverlapping } = await write()
      if (isOverlapping) overlapping++
      const edit = { entry, adds, beginMs, endMs: performance.now(), isUndone: false }
      edits.push(edit)
      latest.set(entry, edit)
    },
    tell: () => toldMs.push(performance.now()),
    told: () => toldMs.length,
    undone: () => listUndone().length,
    assertTold(withinMs: number): void {
      for (const edit of listUndone()) {
        const what = `that he ${edit.adds ? 'added' : 'removed'} ${edit.entry} is undone, and he was`
        assert.ok(whenTold(edit) < edit.endMs + withinMs, `${what} not told in ${Math.round(withinMs)} ms`)
      }
    },
    /** In words, for people. */
    summary: () =>
      `${edits.length} edits by hand, ${overlapping} of them on an older list, ${listUndone().length} undone, ${toldMs.length} times told; ` +
      `of an undone one ${spreadOf(listUndone().map(each => Math.max(0, whenTold(each) - each.endMs)))}`,
  }
}

/** Changes of ours, and one more when the human has done his last: the next look at what he wrote. */
export async function* changesOf(count: number, isLate: () => boolean, human: Promise<unknown>) {
  let isOver = false
  void human.then(() => (isOver = true))
  for (let change = 0; ; change++) {
    const isLast = isOver && (change >= count || isLate())
    yield change
    if (isLast) return
  }
}

/** One who needs entries of a list and stops needing them, some at a time. `acknowledged` is what the list owes. */
export async function changeList(
  list: SharedList,
  { entries, most, pauseMs }: { entries: readonly string[]; most: number; pauseMs: number },
  changes: AsyncIterable<number>,
  acknowledged: Owed,
) {
  const held: string[] = []
  for await (const change of changes) {
    const entry = entries[change % entries.length]!
    if (held.length < most && !held.includes(entry)) {
      await list.need(entry, [entry], limits())
      held.push(entry)
      acknowledged.set(entry, performance.now())
    } else {
      const gone = held.splice(Math.floor(Math.random() * held.length), 1)[0]!
      acknowledged.delete(gone)
      await list.need(gone, [], limits())
    }
    await sleep(Math.random() * pauseMs)
  }
  return held
}

/** An edit whose write Neutron refused because of another's is begun again. @param types of errors */
export async function lookAgainAfter(types: RegExp, edit: () => Promise<void>): Promise<void> {
  for (;;)
    try {
      await edit()
      return
    } catch (error) {
      if (!(error instanceof OpenStackError) || !types.test(error.type)) throw error
    }
}

/** A human who adds and removes entries of his own, always with the whole list. */
export async function editByHand(
  put: (change: Change, entry: string, adds: boolean) => Promise<void>,
  entries: readonly string[],
  { changes, commitMs }: Pick<Pace, 'changes' | 'commitMs'>,
  isLate: () => boolean,
): Promise<Set<string>> {
  const wanted = new Set<string>()
  for (let change = 0; change < changes && !isLate(); change++) {
    const entry = entries[change % entries.length]!
    const adds = !wanted.has(entry)
    if (adds) wanted.add(entry)
    else wanted.delete(entry)
    await put(held => (adds ? [...new Set([...held, entry])] : held.filter(each => each !== entry)), entry, adds)
    await sleep(Math.random() * 6 * commitMs)
  }
  return wanted
}

/** Waits until everything is as it is wanted, and tells what is not. */
export async function untilEqual(actual: () => string[], wanted: readonly string[], timeoutMs: number): Promise<void> {
  const differ = () => actual().toSorted().join() !== wanted.toSorted().join()
  for (const end = performance.now() + timeoutMs; differ() && performance.now() < end; ) await sleep(20)
  assert.deepEqual(actual().toSorted(), wanted.toSorted())
}
