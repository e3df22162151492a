// SPDX-License-Identifier: Apache-2.0

import { type Health, OpenStackError } from '#openstack'
import { reserveOf } from '../ahead.ts'
import type { Journal } from '../journal.ts'
import { AllocationError } from '../port/error.ts'
import type { Limits } from '../port/lock.ts'
import { assignMade, create } from './create.ts'
import type { CloudObject, KnownPool, ObjectDriver, ObjectWant, Room } from './object.ts'
import { compareObjects, type ObjectPlan, planObjects } from './plan.ts'
import {
  findObjectPool,
  forgetExpiredObjectWants,
  forgetObjectWantsOf,
  listObjectWants,
  putObjectPool,
} from './pool-store.ts'
import {
  assignObject,
  countObjects,
  disownEarlierBootsObjects,
  forgetObject,
  keepObject,
  listLooseObjects,
  listObjects,
  noteFlaw,
  noteMissing,
  recordMade,
  recordStrange,
  resetObjectTimes,
  retireObject,
} from './store.ts'
import { recycle } from './tidy.ts'

export type ObjectRoundOptions = Omit<KnownPool, 'seenBootId'> & {
  readonly journal: Journal
  readonly driver: ObjectDriver
  readonly bootId: string
  /** The first digits of the marks of this pool. */
  readonly poolDigits: string
  readonly limits: Limits
  /** What may be asked of the cloud at the moment; left out, anything. */
  readonly health?: (() => Health) | undefined
  /** True where the process stays: idle objects are kept, and owners are written into the cloud. */
  readonly longLived: boolean
  /** False for a while after a refill failed. */
  readonly refill: boolean
  /** Why nothing can be made for a while, and the numbers of then. */
  readonly refusal?: { readonly error: Error; readonly room: Room | undefined } | undefined
  /** True when cloud and journal should be compared; before the first look in this boot they are in any case. */
  readonly look: boolean
  /** Told whenever attachments were given objects. */
  readonly onAssigned?: (() => void) | undefined
  /** True when the round has done what its caller came for; the rest is left to others. */
  readonly enough?: (() => boolean) | undefined
  /** Told before each step that changes journal or cloud; tests stop the world there. */
  readonly step?: ((name: ObjectStep) => void) | undefined
}

export type ObjectStep =
  | 'list'
  | 'compare'
  | 'intent'
  | 'create'
  | 'record'
  | 'recycle'
  | 'remove'
  | 'forget'
  | 'describe'

export type ObjectReport = {
  /** True if cloud and journal were compared. */
  hasLooked: boolean
  /** Objects that attachments hold and the cloud does not show. */
  lost: readonly CloudObject[]
  /** Objects put into quarantine in this round. */
  readonly strange: string[]
  /** Attachments that were not served, by the id of their want, and why. */
  readonly unserved: Map<number, Error>
  /** Why the cloud has no room for another, undefined while it has. */
  refusal: Error | undefined
  /** The cloud's numbers, where it was asked for them in this round or for the refusal that still stands. */
  room: Room | undefined
  /** True if the reserve could not be filled. */
  refillFailed: boolean
  /** When the next idle object is due (ms since 1970). */
  idleAtMs: number | undefined
}

const TRIES_MAX = 256

/** What a round knows beyond the journal. */
export type RoundState = {
  readonly report: ObjectReport
  refill: boolean
  /** Objects that one creation makes at most. */
  batchMax: number
  unknown: number
  /** True while a creation's answer is lost and nobody has looked since. */
  mustLook: boolean
}

/**
 * Brings the objects of a pool and the journal together, and serves who waits: everything that is recorded, in as few
 * creations as the cloud permits. The caller holds the pool's lock: there is one writer per pool.
 *
 * @throws {OpenStackError}
 * @throws {AllocationError}
 */
export async function settleObjects(options: ObjectRoundOptions): Promise<ObjectReport> {
  const { journal, pool, bootId, driver } = options
  const state: RoundState = {
    report: {
      hasLooked: false,
      lost: [],
      strange: [],
      unserved: new Map(),
      refusal: options.refusal?.error,
      room: options.refusal?.room,
      refillFailed: false,
      idleAtMs: undefined,
    },
    refill: options.refill,
    batchMax: driver.batchMax,
    unknown: 0,
    mustLook: options.look || findObjectPool(journal, pool)?.seenBootId !== bootId,
  }
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    if (state.mustLook) await look(options, state)
    const plan = serve(options, state)
    options.onAssigned?.()
    if (options.enough?.()) break
    const isMore = plan.serve.length + plan.refill > 0
    // Where one creation takes a minute, nobody waits for it who can have what only has to be cleaned.
    const isCleanFirst = driver.batchMax === 1 || !isMore
    if (plan.clean.length > 0 && isCleanFirst) await recycle(options, plan.clean)
    else if (isMore) await create(options, state, plan)
    else break
    options.onAssigned?.()
    if (options.enough?.()) break
  }
  return state.report
}

/** What the cloud shows is compared with the journal, in one transaction. */
async function look(options: ObjectRoundOptions, state: RoundState): Promise<void> {
  const { journal, driver, pool, kind, access, settings, detail, bootId, poolDigits, limits } = options
  options.step?.('list')
  const shown = await driver.list(limits)
  options.step?.('compare')
  const nowMs = Date.now()
  journal.transaction(() => {
    putObjectPool(journal, { pool, kind, access, settings, detail, seenBootId: bootId })
    disownEarlierBootsObjects(journal, pool, bootId)
    const found = compareObjects(shown, listObjects(journal, pool), { nowMs, poolDigits })
    for (const made of found.found) recordMade(journal, made, nowMs + settings.usableAfterMs)
    // What was begun and never finished is removed below: who waits for it gets another.
    assignMade(
      options,
      found.found.filter(each => !each.isPart),
    )
    for (const made of found.strange) recordStrange(journal, pool, made)
    for (const { mark, flaw } of found.flawed) noteFlaw(journal, mark, flaw)
    for (const { mark } of found.missing) noteMissing(journal, mark, nowMs)
    for (const { mark } of found.back) noteMissing(journal, mark, 0)
    for (const { mark } of found.retire) retireObject(journal, mark)
    for (const { mark } of found.forget) forgetObject(journal, mark)
    state.report.lost = found.lost
    state.report.strange.push(...found.strange.map(each => each.id))
  })
  state.report.hasLooked = true
  state.mustLook = false
}

/** Gives what is free to who waits, and says what remains to be done. */
function serve({ journal, pool, bootId, settings, longLived }: ObjectRoundOptions, state: RoundState): ObjectPlan {
  return journal.transaction(() => {
    forgetExpiredObjectWants(journal, pool)
    resetObjectTimes(journal, pool)
    const counts = countObjects(journal, pool)
    const count = Object.values(counts).reduce((sum, each) => sum + each, 0)
    const plan = planObjects({
      loose: listLooseObjects(journal, pool),
      count,
      wants: listObjectWants(journal, pool).filter(each => !state.report.unserved.has(each.id)),
      settings: { ...settings, reserve: reserveOf(journal, pool, settings.reserve) },
      keepsIdle: longLived,
      isExhausted: state.report.refusal !== undefined,
      refill: state.refill,
      nowMs: Date.now(),
    })
    for (const { object, usableMs } of plan.keep) keepObject(journal, object.mark, usableMs)
    for (const { want, object } of plan.assign) {
      assignObject(journal, object.mark, want.owner, bootId)
      forgetObjectWantsOf(journal, want.owner)
    }
    for (const { mark } of plan.retire) retireObject(journal, mark)
    const cause = state.report.refusal ?? fullPool(settings.max)
    // Not before what there is room for was made: until then nobody knows the numbers, nor whether there was room.
    for (const want of plan.serve.length > 0 ? [] : plan.refused)
      state.report.unserved.set(want.id, refusalOf({ settings, want, cause, counts, room: state.report.room }))
    state.report.idleAtMs = plan.idleAtMs
    return plan
  })
}

const fullPool = (max: number) =>
  new AllocationError('full', `all ${max} that the node may have of them exist`, {
    remedy: 'delete pods that nobody needs, or raise the limit of the node',
  })

/** The error for one attachment, with the numbers. */
function refusalOf(facts: {
  settings: KnownPool['settings']
  want: ObjectWant
  cause: Error
  counts: ReturnType<typeof countObjects>
  room: Room | undefined
}): AllocationError {
  const { settings, want, cause, counts, room } = facts
  const { making, free, assigned, releasing, removing, quarantined } = counts
  const held = [
    `${assigned} in use`,
    `${free + releasing} free`,
    ...(removing + making > 0 ? [`${removing + making} being made or removed`] : []),
    ...(quarantined > 0 ? [`${quarantined} in quarantine`] : []),
  ]
  const reason = cause instanceof OpenStackError ? cause.summary : cause.message
  const numbers = room === undefined || room.text === '' ? '' : `; ${room.text}`
  const { remedy } = cause as { remedy?: string | undefined }
  return new AllocationError(
    'full',
    `Cannot give one of the ${settings.name} to interface ${want.owner.ifName} of container ${want.owner.containerId}: ` +
      `${reason}; this node has ${held.join(', ')}, at most ${settings.max}${numbers}`,
    { cause, remedy },
  )
}
