// SPDX-License-Identifier: Apache-2.0

import { join } from 'node:path'
import { deadlineIn } from '#base'
import { OpenStackError } from '#openstack'
import type { Journal } from '../journal.ts'
import { AllocationError } from '../port/error.ts'
import { type Limits, pause, withFileLock } from '../port/lock.ts'
import { createRounds, type Next } from '../rounds.ts'
import { type Entry, type EntryState, foreignChange, type ListPlan, planList } from './plan.ts'
import {
  forgetList,
  forgetNeed,
  type ListKey,
  type ListSettings,
  listEntries,
  listNeeds,
  type Need,
  putEntry,
  putKnownList,
  putNeeds,
  settleNeeds,
} from './store.ts'

/** A list as the cloud shows it. */
export type ListView = {
  readonly entries: readonly string[]
  readonly revision: number | undefined
  /** True where the cloud needs no entries: everything counts as being there. */
  readonly isMoot?: boolean | undefined
}

/** One kind of list: how it is read and written, and which entries stand for what is needed. */
export type ListDriver = ListKey & {
  /** A write names the whole list: what a wrong answer lacked would be taken from whoever has it. */
  readonly writesWhole: boolean
  /** The lists of one object share a lock: they share its revision. */
  readonly lockName: string
  /** In words, for messages: `address pairs of port X`. */
  readonly title: string
  /** Who raises the limit, and what else helps; for messages. */
  readonly remedy: string
  /** The entries for what is needed. */
  entriesOf(members: readonly string[]): string[]
  /** Undefined if port or router do not exist. */
  look(limits: Limits): Promise<ListView | undefined>
  /** Puts entries in and takes others out. @returns the list as the answer shows it */
  write(
    view: ListView,
    change: { add: readonly string[]; remove: readonly string[] },
    limits: Limits,
  ): Promise<ListView>
  /** Whether Neutron refused a write, and did nothing, because somebody else wrote since the look. */
  isOverlap(error: OpenStackError): boolean
}

/** What others did, as far as looks at the list tell. */
export type ListReport = {
  readonly title: string
  /** Entries of ours that somebody had taken out, and that are in again. */
  readonly repaired: readonly string[]
  /** Entries that we had removed, that came back by somebody's older list, and that are out again. */
  readonly returned: readonly string[]
  readonly foreignAdded: readonly string[]
  /** Entries of others that went while we wrote: perhaps undone by our write, which Neutron does not keep apart from theirs. */
  readonly foreignRemoved: readonly string[]
  /** True if somebody wrote between our look and our write: what it was cannot be known, and may be lost. */
  readonly overlapped: boolean
}

export type SharedListOptions = {
  readonly journal: Journal
  readonly driver: ListDriver
  readonly access: string
  readonly settings: ListSettings
  /** True where the process stays: it reads the list again after each write. */
  readonly longLived: boolean
  readonly onReport?: ((report: ListReport) => void) | undefined
  /** Told of work in the background that failed; it will be tried again. */
  readonly onError?: ((error: unknown) => void) | undefined
}

/** Our entries in one list of the cloud that others write too: one writer on this node, who serves all that is recorded. */
export type SharedList = {
  readonly key: ListKey
  use(next: Pick<SharedListOptions, 'driver' | 'access' | 'settings'>): void
  /**
   * Makes `members` what `user` needs, instead of what it needed before. Returns when it is in the list. All or nothing:
   * where it does not fit, what is new in it is forgotten.
   * @throws {AllocationError} `full` with limit and numbers, `gone`, `late`, `aborted`
   * @throws {OpenStackError}
   */
  need(user: string, members: readonly string[], limits: Limits): Promise<void>
  /** Records that a user needs nothing any more. The cloud is told in the background, or by the next call. */
  release(user: string): void
  /** Asks whether `need` would fit, and changes nothing. @throws {AllocationError} `full` with limit and numbers */
  demandRoom(user: string, members: readonly string[], limits: Limits): Promise<void>
  /** Brings list and journal together now. */
  settle(limits: Limits): Promise<void>
  /** The same in the background, until it has succeeded. */
  kick(): void
  /** Waits for what is under way and starts nothing more. */
  close(): Promise<void>
}

const TRIES_MAX = 12
/** Looks after the first, where an answer lacks what others had. */
const LOOKS_MAX = 3
const RETRY_MS = 50
const ROUND_MS = 60_000
/** Between looks for what may still come back, at least. */
const LEFTOVERS_MS_MIN = 1_000
/** After the cloud has told a lower limit than ours, until it is asked for more again. */
const TOLD_MS = 60_000
/** Between looks at a list that nobody writes to as far as we know: somebody may have written a very old one. */
const LOOK_MS = 300_000
/** A removed entry that comes back within so many times that, which a slow cloud takes for a write, came by an older list. */
const ECHO_LOOKS = 10

export function openSharedList(options: SharedListOptions): SharedList {
  const { journal, longLived } = options
  let { driver, access, settings } = options
  const key: ListKey = { kind: driver.kind, objectId: driver.objectId }
  const rounds = createRounds({ round: background, onFailure })
  /** The list as it was last seen. */
  let seen: ListView | undefined
  /** When the last look began. */
  let comparedMs: number | undefined
  /** When the list is looked at again because of a write of ours. */
  let verifyAtMs: number | undefined
  /** As the cloud itself said; a configuration may be wrong, and an operator may have it raised. */
  let told = { max: Number.POSITIVE_INFINITY, untilMs: Number.POSITIVE_INFINITY }

  const leftoversMs = () => Math.max(settings.verifyAfterMs, LEFTOVERS_MS_MIN)
  const entriesMax = () => Math.min(settings.entriesMax, performance.now() < told.untilMs ? told.max : Infinity)
  const wantedOf = (needs: readonly Need[]) => driver.entriesOf(needs.map(each => each.member))

  function isServed(): boolean {
    const states = new Map(listEntries(journal, key).map(each => [each.entry, each.state]))
    const inList = (state: EntryState | undefined) => state === 'held' || state === 'foreign'
    const needs = listNeeds(journal, key)
    return needs.every(each => !each.isPending) && wantedOf(needs).every(each => inList(states.get(each)))
  }

  /** Entries that nobody needs and that may be in the list. One whose write was not answered is looked for, not waited for. */
  function listLeftovers(...states: readonly EntryState[]): Entry[] {
    const wanted = new Set(wantedOf(listNeeds(journal, key)))
    return listEntries(journal, key).filter(each => !wanted.has(each.entry) && states.includes(each.state))
  }

  const isDone = () => isServed() && listLeftovers('held', 'removing').length === 0

  /**
   * The list as it is now. An answer that lacks what others had at the last look is believed where two lack the same, and
   * never at the revision at which it was there: each change makes another. @throws {AllocationError} `strange`
   */
  async function look(limits: Limits): Promise<ListView | undefined> {
    let before: string | undefined
    for (let again = 0; ; again++) {
      const view = await driver.look(limits)
      if (view === undefined || view.isMoot || seen === undefined || !driver.writesWhole) return view
      const ours = new Set(listEntries(journal, key).map(each => each.entry))
      const missed = foreignChange(seen.entries, view.entries, ours).removed.join(', ')
      const isUntrue = missed !== '' && view.revision !== undefined && view.revision === seen.revision
      if (!isUntrue && (missed === '' || missed === before || again === LOOKS_MAX)) return view
      if (again === LOOKS_MAX)
        throw new AllocationError(
          'strange',
          `Cannot use what Neutron shows of the ${driver.title}: it lacks ${missed}, which it had at the same revision ` +
            `${view.revision}; nothing is written on such ground`,
        )
      before = missed
      await pause(RETRY_MS * 2 ** again, limits)
    }
  }

  /** Looks and writes until nothing is to be done. The caller holds the lock. @returns true if it wrote */
  async function round(limits: Limits): Promise<boolean> {
    let wrote = false
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const isFirst = seen === undefined
      const begunMs = Date.now()
      const view = await look(limits)
      if (view === undefined)
        throw new AllocationError(
          'gone',
          `Cannot use the ${driver.title}: Neutron does not know it; it was deleted, or belongs to another project`,
        )
      const { plan, needs } = compare(view, begunMs)
      if (view.isMoot || (plan.add.length === 0 && plan.remove.length === 0)) {
        journal.transaction(() => settleNeeds(journal, key))
        return wrote
      }
      demandFits(view.entries, plan, needs)
      // What a second look lacks, the first may have had.
      if (isFirst && driver.writesWhole) continue
      wrote = true
      if (await write(view, plan, limits, tries)) return true
    }
    throw new AllocationError('strange', `Cannot write the ${driver.title}: it does not show what was written`)
  }

  /** One transaction: what the list shows is recorded, and the next write is planned and recorded, durably. */
  function compare(view: ListView, begunMs: number): { plan: ListPlan; needs: readonly Need[] } {
    const { needs, plan } = journal.transaction(() => {
      putKnownList(journal, { ...key, access, settings })
      const needs = listNeeds(journal, key)
      const known = listEntries(journal, key)
      const shown = view.isMoot ? wantedOf(needs) : view.entries
      const echoMs = leftoversMs() * ECHO_LOOKS
      const nowMs = Date.now()
      // Where a cloud is slow, a look comes long after the last one, and what it shows need not be new.
      const appearedMs = Math.max(comparedMs ?? nowMs, nowMs - ROUND_MS)
      const plan = planList({ shown, known, wanted: wantedOf(needs), echoMs, appearedMs, nowMs })
      for (const [entry, state] of plan.states) putEntry(journal, key, entry, state)
      report(view, known, plan)
      return { needs, plan }
    })
    seen = view
    comparedMs = begunMs
    return { plan, needs }
  }

  function report(view: ListView, known: readonly { entry: string }[], plan: ListPlan): void {
    const isForgotten = (entry: string) => plan.states.has(entry) && plan.states.get(entry) === undefined
    const ours = new Set([...known.map(each => each.entry).filter(each => !isForgotten(each)), ...plan.add])
    const change = foreignChange((seen ?? view).entries, view.entries, ours)
    const facts: ListReport = {
      title: driver.title,
      repaired: plan.lost,
      returned: plan.returned,
      foreignAdded: change.added,
      foreignRemoved: change.removed,
      overlapped: false,
    }
    if (plan.lost.length + plan.returned.length + change.added.length + change.removed.length > 0)
      options.onReport?.(facts)
  }

  /** Neutron would refuse it, or worse: another's next write. Whoever asked last does not get it. */
  function demandFits(shown: readonly string[], plan: ListPlan, needs: readonly Need[]): void {
    const gone = new Set(plan.remove)
    const after = shown.filter(each => !gone.has(each)).length + plan.add.length
    if (after <= entriesMax() || plan.add.length === 0) return
    const pending = needs.filter(each => each.isPending)
    if (pending.length === 0 && plan.add.every(each => plan.lost.includes(each))) return
    const error = fullError(shown, plan.add.length)
    journal.transaction(() => {
      for (const { id } of pending) forgetNeed(journal, id)
    })
    throw error
  }

  /** Why a user cannot have this in a list as it was seen; undefined if it can. */
  function shortage(user: string, members: readonly string[], shown: readonly string[]): AllocationError | undefined {
    const needs = listNeeds(journal, key).filter(each => each.user !== user)
    const wanted = driver.entriesOf([...needs.map(each => each.member), ...members])
    const plan = planList({
      shown,
      known: listEntries(journal, key),
      wanted,
      echoMs: 0,
      appearedMs: Date.now(),
      nowMs: Date.now(),
    })
    const after = shown.length - plan.remove.length + plan.add.length
    return plan.add.length > 0 && after > entriesMax() ? fullError(shown, plan.add.length) : undefined
  }

  function fullError(shown: readonly string[], adding: number): AllocationError {
    const ours = new Set(listEntries(journal, key).map(each => each.entry))
    const own = shown.filter(each => ours.has(each)).length
    return new AllocationError(
      'full',
      `Cannot add ${adding} to the ${driver.title}: the limit is ${entriesMax()}, ${own} are ours and ` +
        `${shown.length - own} are others’`,
      { remedy: driver.remedy },
    )
  }

  /** @returns true if the answer shows what was written */
  async function write(view: ListView, plan: ListPlan, limits: Limits, tries: number): Promise<boolean> {
    const { add, remove } = plan
    // Before the cloud is asked: what appears after a crash is then known to be ours.
    journal.transaction(
      () => {
        for (const entry of add) putEntry(journal, key, entry, 'adding')
        for (const entry of remove) putEntry(journal, key, entry, 'removing')
      },
      { durable: true },
    )
    let answer: ListView
    try {
      answer = await driver.write(view, { add, remove }, limits)
    } catch (error) {
      if (!(error instanceof OpenStackError)) throw error
      if (error.kind === 'exhausted') {
        const max = Number(/maximum (\d+)/.exec(error.message)?.[1] ?? view.entries.length)
        told = { max, untilMs: performance.now() + TOLD_MS }
        demandFits(view.entries, plan, listNeeds(journal, key))
        throw error
      }
      // The next look tells what became of it.
      if (!driver.isOverlap(error) && error.effect !== 'unknown') throw error
      await pause(RETRY_MS * (1 + tries * Math.random()), limits)
      return false
    }
    const present = new Set(answer.entries)
    if (isOverlapped(view, answer))
      options.onReport?.({
        title: driver.title,
        repaired: [],
        returned: [],
        foreignAdded: [],
        foreignRemoved: [],
        overlapped: true,
      })
    journal.transaction(() => {
      for (const entry of add) if (present.has(entry)) putEntry(journal, key, entry, 'held')
      for (const entry of remove) if (!present.has(entry)) putEntry(journal, key, entry, 'removed')
      if (add.every(each => present.has(each))) settleNeeds(journal, key)
    })
    seen = answer
    return add.every(each => present.has(each)) && remove.every(each => !present.has(each)) && isServed()
  }

  // Neutron counts one for each write; what its agents note of a port comes later.
  const isOverlapped = (view: ListView, answer: ListView) =>
    driver.kind === 'pairs' &&
    view.revision !== undefined &&
    answer.revision !== undefined &&
    answer.revision > view.revision + 1

  async function locked(limits: Limits, done?: () => boolean): Promise<void> {
    const lockFile = join(settings.lockDirectory, `${driver.lockName}.lock`)
    const begunMs = performance.now()
    const wrote = await withFileLock(lockFile, () => round(limits), limits, done)
    // A process that ends cannot look again later: it looks once more now.
    if (wrote && !longLived) await withFileLock(lockFile, () => round(limits), limits)
    if (wrote) verifyAtMs = performance.now() + settings.verifyAfterMs
    else if (wrote === false && verifyAtMs !== undefined && begunMs >= verifyAtMs) verifyAtMs = undefined
    if (wrote && longLived) rounds.kickIn(settings.verifyAfterMs)
  }

  async function background(signal: AbortSignal): Promise<Next> {
    await locked({ deadline: deadlineIn(ROUND_MS), signal })
    if (!isDone()) return 'unfinished'
    if (verifyAtMs !== undefined) return { inMs: Math.max(0, Math.ceil(verifyAtMs - performance.now())) }
    const leftovers = listLeftovers('adding', 'removed')
    // Each look as long after the last one as that was after the change: a mistake shows itself soon, if at all.
    if (leftovers.length > 0)
      return { inMs: Math.max(leftoversMs(), Date.now() - Math.max(...leftovers.map(each => each.changedMs))) }
    if (listNeeds(journal, key).length > 0) return { inMs: LOOK_MS * (0.75 + Math.random() / 2) }
    if (listEntries(journal, key).length === 0) forgetList(journal, key)
    return 'done'
  }

  function onFailure(error: unknown): boolean {
    if (!rounds.signal.aborted) options.onError?.(error)
    return false
  }

  const isNeeded = (user: string, members: readonly string[]) => {
    const own = new Set(
      listNeeds(journal, key)
        .filter(each => each.user === user)
        .map(each => each.member),
    )
    return members.every(each => own.has(each))
  }

  return {
    key,
    use(next) {
      ;({ driver, access, settings } = next)
    },
    async need(user, members, limits) {
      journal.transaction(() => putNeeds(journal, key, user, members))
      const served = () => isNeeded(user, members) && isDone()
      while (!served()) {
        // Another writer refused it for everybody who waited: we ask for ourselves, and get the reason.
        if (!isNeeded(user, members)) journal.transaction(() => putNeeds(journal, key, user, members))
        await locked(limits, served)
      }
    },
    release(user) {
      journal.transaction(() => putNeeds(journal, key, user, []))
      if (longLived) rounds.kick()
    },
    async demandRoom(user, members, limits) {
      if (seen !== undefined && shortage(user, members, seen.entries) === undefined) return
      const view = await look(limits)
      if (view === undefined || view.isMoot) return
      seen = view
      const error = shortage(user, members, seen.entries)
      if (error !== undefined) throw error
    },
    async settle(limits) {
      await locked(limits)
    },
    kick: rounds.kick,
    close: rounds.close,
  }
}
