// SPDX-License-Identifier: Apache-2.0

import { join } from 'node:path'
import { deadlineIn, isPast, remainingMs, sha256Hex } from '#base'
import { OpenStackError } from '#openstack'
import type { Journal } from '../journal.ts'
import type { Arrivals } from '../port/arrivals.ts'
import { AllocationError } from '../port/error.ts'
import { type Limits, pause, withFileLock } from '../port/lock.ts'
import type { Owner } from '../port/plan.ts'
import { createRounds, type Next } from '../rounds.ts'
import { createWaiters, isSameOwner, lateFor } from '../waiters.ts'
import type { CloudObject, ObjectAccess, ObjectPool, Room } from './object.ts'
import {
  findObjectPool,
  forgetObjectWantsOf,
  isWantingObject,
  listObjectWants,
  putObjectPool,
  recordObjectWant,
} from './pool-store.ts'
import { type ObjectReport, type ObjectStep, settleObjects } from './round.ts'
import {
  assignObject,
  findFreeObject,
  findObject,
  hasFlawed,
  hasLostAnswer,
  hasObjectWork,
  listOwnedObjects,
  returnObject,
} from './store.ts'
import { tidyObjects } from './tidy.ts'

export type ObjectPoolOptions = ObjectAccess & {
  readonly journal: Journal
  /** Names the pool for good: everything that makes its objects differ from those of other pools, and the node. */
  readonly pool: string
  /** Which driver makes its objects; the journal keeps it for the next process. */
  readonly kind: string
  readonly bootId: string
  /** True where the process stays: it keeps a reserve and finishes releases in the background. */
  readonly longLived: boolean
  /** The longest that a round in the background takes: one that ends amid a creation has to find out what became of it. */
  readonly roundMs?: number | undefined
  /** Other processes that may be about to wish for an object, where each lives for one call. */
  readonly arrivals?: Arrivals | undefined
  /** Told after each round that worked. */
  readonly onReport?: ((report: ObjectReport) => void) | undefined
  /** Told of a round in the background that failed; it will be tried again. */
  readonly onError?: ((error: unknown) => void) | undefined
  readonly step?: ((name: ObjectStep) => void) | undefined
}

/** A round in the background has nobody who waits. */
const ROUND_MS = 120_000
/** After a refill for which there was no room. */
const REFILL_PAUSE_MS = 60_000
/** After the cloud said that it has no room; doubled each time, so that a hundred pods that try again cost it little. */
const REFUSAL_MS_MIN = 2_000
const REFUSAL_MS_MAX = 30_000
/** Cloud and journal are compared this often, and sooner while an answer is lost. */
const LOOK_MS = 600_000
const LOOK_LOST_MS = 2_000
/** While one cannot be used: what ails it may be over. */
const LOOK_FLAWED_MS = 60_000
const WHAT = 'an address'
const SERVICE = 'the cloud'
/** Between two looks whether deletes may go on. */
const RETRY_MS_MIN = 500

type Refusal = {
  readonly error: Error
  readonly room: Room | undefined
  readonly pauseMs: number
  readonly endsMs: number
}

/** The first digits of the marks of a pool's objects. */
export const poolDigitsOf = (pool: string): string => sha256Hex(pool).slice(0, 8)

export function openObjectPool(options: ObjectPoolOptions): ObjectPool {
  const { journal, pool, kind, bootId, longLived, arrivals } = options
  const poolDigits = poolDigitsOf(pool)
  const waiters = createWaiters<CloudObject>(WHAT, SERVICE)
  const rounds = createRounds({ round: background, onFailure })
  let access: ObjectAccess = options
  let refusal: Refusal | undefined
  let refillNotBeforeMs = 0
  /** The cloud does not know where the objects are to be made: a subnet, network or server was deleted. */
  let isPlaceGone = false
  let lookedMs = Number.NEGATIVE_INFINITY

  const settings = () => (longLived ? access.settings : { ...access.settings, reserve: 0 })

  const lookMs = () => (hasFlawed(journal, pool) ? LOOK_FLAWED_MS : LOOK_MS)

  function isLookDue(): boolean {
    const isLost = hasLostAnswer(journal, pool)
    return (isLost || longLived) && performance.now() - lookedMs >= (isLost ? LOOK_LOST_MS : lookMs())
  }

  async function round(limits: Limits, enough?: () => boolean, gather?: Arrivals): Promise<ObjectReport | undefined> {
    const work = async () => {
      await gather?.untilOthersArrived(limits)
      const driver = await access.driver()
      const now = performance.now()
      const turn = {
        ...options,
        ...access,
        driver,
        poolDigits,
        settings: settings(),
        limits: { ...limits, purpose: listObjectWants(journal, pool).length > 0 ? 'pod' : 'refill' } as const,
        look: isLookDue(),
        refill: longLived && !isPlaceGone && now >= refillNotBeforeMs,
        refusal: refusal !== undefined && now < refusal.endsMs ? refusal : undefined,
        onAssigned: waiters.tellServed,
        enough,
      }
      const report = await settleObjects(turn)
      note(report)
      tell(report)
      if (!enough?.()) await tidyObjects({ ...turn, limits: { ...limits, purpose: 'reclaim' } })
      return report
    }
    // One writer per pool on this machine: what one makes, the other would count twice.
    const lockFile = join(access.settings.lockDirectory, `objects-${poolDigits}.lock`)
    return await withFileLock(lockFile, work, limits, enough)
  }

  function note(report: ObjectReport): void {
    const now = performance.now()
    if (report.hasLooked) lookedMs = now
    if (report.refillFailed) refillNotBeforeMs = now + REFILL_PAUSE_MS
    if (report.refusal === undefined) refusal = undefined
    // The same one means that the cloud was not asked: a round that outlasts the pause must not prolong it.
    else if (report.refusal !== refusal?.error) {
      const pauseMs = Math.min(REFUSAL_MS_MAX, Math.max(REFUSAL_MS_MIN, (refusal?.pauseMs ?? 0) * 2))
      refusal = { error: report.refusal, room: report.room, pauseMs, endsMs: now + pauseMs }
    }
    options.onReport?.(report)
  }

  function tell(report: ObjectReport): void {
    waiters.tellServed()
    const open = listObjectWants(journal, pool)
    waiters.tellUnserved(owner =>
      // Whose wish is gone and who has nothing would wait for nothing.
      open.some(want => isSameOwner(want.owner, owner)) ? errorFor(owner, report, open) : withdrawn(owner),
    )
  }

  function errorFor(owner: Owner, report: ObjectReport, open = listObjectWants(journal, pool)): Error | undefined {
    const want = open.find(each => isSameOwner(each.owner, owner))
    const error = want === undefined ? undefined : report.unserved.get(want.id)
    if (!(error instanceof AllocationError) || error.fault !== 'full') return error
    const when =
      refusal === undefined || report.refusal === undefined
        ? 'as soon as one is released'
        : `in ${Math.max(1, Math.ceil((refusal.endsMs - performance.now()) / 1000))} s, or as soon as one is released`
    return new AllocationError('full', `${error.message}; next try ${when}`, {
      cause: error.cause,
      remedy: error.remedy,
    })
  }

  async function background(signal: AbortSignal): Promise<Next> {
    const report = await round({ deadline: deadlineIn(options.roundMs ?? ROUND_MS), signal })
    if (waiters.size > 0) return 'again'
    const health = access.health?.()
    if (health?.level === 'allocate-only') return { inMs: Math.max(RETRY_MS_MIN, health.retryMs) }
    if (hasObjectWork(journal, pool)) return 'unfinished'
    if (report?.refillFailed) return { inMs: REFILL_PAUSE_MS }
    const idleInMs = report?.idleAtMs === undefined ? LOOK_MS : Math.max(1, report.idleAtMs - Date.now())
    return { inMs: Math.min(lookMs(), idleInMs) }
  }

  function onFailure(error: unknown): boolean {
    if (!rounds.signal.aborted) options.onError?.(error)
    // A port that is gone is one of ours: the next look forgets it.
    isPlaceGone ||= error instanceof OpenStackError && error.kind === 'missing' && error.type !== 'PortNotFound'
    waiters.tellUnserved(() => error)
    return false
  }

  /** From what is there, or undefined after the wish was recorded. */
  function takeOrWish(owner: Owner, special: string, limits: Limits): CloudObject | undefined {
    return journal.transaction(() => {
      const [held] = listOwnedObjects(journal, owner)
      if (held !== undefined) throw duplicate(owner, held)
      const known = findObjectPool(journal, pool)
      // The pool is known before it has objects, so that a release finds it.
      if (known === undefined) putObjectPool(journal, { ...access, pool, kind, seenBootId: '' })
      // Before the first look in this boot nothing is known of the cloud: a power cut may have taken the last records.
      const usableByMs = Date.now() + access.settings.usableAfterMs
      const free =
        special === '' && known?.seenBootId === bootId ? findFreeObject(journal, { pool, usableByMs }) : undefined
      forgetObjectWantsOf(journal, owner)
      if (free !== undefined) {
        assignObject(journal, free.mark, owner, bootId)
        return free
      }
      const expiresMs = Date.now() + Math.ceil(Math.min(remainingMs(limits.deadline), ROUND_MS))
      recordObjectWant(journal, { pool, owner, special, expiresMs })
      return undefined
    })
  }

  const findServed = (owner: Owner) => listOwnedObjects(journal, owner).find(each => each.pool === pool)

  function servedInBackground(owner: Owner, limits: Limits): Promise<CloudObject> {
    const served = waiters.wait(owner, () => findServed(owner), limits)
    rounds.kick()
    return served
  }

  async function servedByUs(owner: Owner, limits: Limits): Promise<CloudObject> {
    const done = () => findServed(owner) !== undefined || !isWantingObject(journal, owner)
    while (!done()) {
      // A creation costs a round trip for one object as for sixty: those who begin at the same moment share it.
      const report = await round(limits, done, arrivals)
      const error = report === undefined ? undefined : errorFor(owner, report)
      if (error !== undefined) throw error
      if (!done() && isPast(limits.deadline)) throw lateFor(WHAT, SERVICE, owner, limits)
    }
    const found = findServed(owner)
    if (found === undefined) throw withdrawn(owner)
    return found
  }

  /** One that was made, or whose cool-down ends, a moment from now. */
  async function untilUsable({ mark }: CloudObject, owner: Owner, limits: Limits): Promise<void> {
    for (;;) {
      const waitMs = (findObject(journal, mark)?.usableMs ?? 0) - Date.now()
      if (waitMs <= 0) return
      if (waitMs > remainingMs(limits.deadline)) throw lateFor(WHAT, SERVICE, owner, limits)
      await pause(waitMs, limits)
    }
  }

  function giveBack(owner: Owner): void {
    journal.transaction(() => {
      forgetObjectWantsOf(journal, owner)
      // No pod has had it: it needs no cool-down.
      for (const { mark } of listOwnedObjects(journal, owner)) returnObject(journal, mark)
    })
  }

  return {
    pool,
    use: next => {
      access = next
      isPlaceGone = false
    },
    async acquire(owner, limits, { special = '' } = {}) {
      const taken = takeOrWish(owner, special, limits)
      arrivals?.arrived()
      try {
        const found = taken ?? (longLived ? await servedInBackground(owner, limits) : await servedByUs(owner, limits))
        await untilUsable(found, owner, limits)
        return found
      } catch (error) {
        giveBack(owner)
        throw error
      } finally {
        if (longLived) rounds.kick()
      }
    },
    async settle(limits, enough) {
      await round(limits, enough)
    },
    kick: rounds.kick,
    close: rounds.close,
  }
}

const withdrawn = ({ ifName, containerId }: Owner) =>
  new AllocationError(
    'withdrawn',
    `Cannot give ${WHAT} to interface ${ifName} of container ${containerId}: it was released meanwhile`,
  )

const duplicate = (owner: Owner, held: CloudObject) =>
  new AllocationError(
    'duplicate',
    `Cannot give ${WHAT} to interface ${owner.ifName} of container ${owner.containerId} in network "${owner.network}": ` +
      `it has ${held.addresses.map(each => each.address).join(', ') || held.id} already`,
  )
