// SPDX-License-Identifier: Apache-2.0

import { OpenStackError } from '#openstack'
import { AllocationError } from '../port/error.ts'
import { pause } from '../port/lock.ts'
import { describedAs, type MadeObject, newMark, type ObjectDriver, type ObjectWant } from './object.ts'
import type { ObjectPlan } from './plan.ts'
import { forgetObjectWantsOf, listObjectWants } from './pool-store.ts'
import type { ObjectRoundOptions, RoundState } from './round.ts'
import { assignObject, findObject, forgetObject, recordMade, recordMaking } from './store.ts'

const UNKNOWN_MAX = 3
const RETRY_MS = 100

/** Gives what was made to those for whom it was made; where one was released meanwhile, or went away, it is for the next. */
export function assignMade({ journal, pool, bootId }: ObjectRoundOptions, made: readonly MadeObject[]): void {
  const waiting = new Map(listObjectWants(journal, pool).map(want => [describedAs(want.owner), want.owner]))
  for (const { mark } of made) {
    const object = findObject(journal, mark)
    const owner = object?.state === 'free' ? waiting.get(object.described) : undefined
    if (owner === undefined) continue
    assignObject(journal, mark, owner, bootId)
    forgetObjectWantsOf(journal, owner)
  }
}

/** Makes what a plan asks for, as much of it as fits into one creation; its intent is on the disk before. */
export async function create(options: ObjectRoundOptions, state: RoundState, plan: ObjectPlan): Promise<void> {
  const { journal, driver, pool, poolDigits, settings, limits } = options
  // What one attachment asks for may be refused for its own sake; those that ask for nothing go first, and by themselves.
  const plain = plan.serve.filter(want => want.special === '')
  const group = plain.length > 0 || plan.serve.length === 0 ? plain : plan.serve
  const refill = group === plain ? plan.refill : 0
  const size = Math.min(group.length + refill, await sizeOf(options, state, group.length + refill))
  const wants = group.slice(0, size)
  const requests = [...wants, ...Array<undefined>(size - wants.length).fill(undefined)].map(want => ({
    mark: newMark(poolDigits),
    owner: want?.owner,
    special: want?.special ?? '',
  }))
  options.step?.('intent')
  const intend = () => {
    for (const request of requests) recordMaking(journal, pool, request)
  }
  journal.transaction(intend, { durable: true })
  options.step?.('create')
  let made: Awaited<ReturnType<ObjectDriver['create']>>
  try {
    made = await driver.create(requests, limits)
  } catch (error) {
    return await afterRefusal(options, state, { error, requests, wants })
  }
  options.step?.('record')
  journal.transaction(() => {
    const usableMs = Date.now() + settings.usableAfterMs
    for (const each of made) recordMade(journal, each, usableMs)
    assignMade(options, made)
  })
  const flaw = made.find(each => each.flaw !== undefined)?.flaw
  // The next would fare no better; who waits learns why.
  if (flaw !== undefined) state.report.refusal = new AllocationError('broken', flaw)
  const { room } = state.report
  // What it said in words was before this.
  if (room !== undefined) state.report.room = { count: room.count - made.length, text: '' }
}

/** How many to ask for at once: no more than there is room for, but one in any case, whose refusal says why. */
async function sizeOf({ driver, limits }: ObjectRoundOptions, state: RoundState, wanted: number): Promise<number> {
  if (wanted > 1 && driver.room !== undefined) state.report.room ??= await driver.room(limits)
  const room = state.report.room?.count ?? Number.POSITIVE_INFINITY
  return Math.max(1, Math.min(wanted, state.batchMax, room))
}

async function afterRefusal(
  { journal, limits, driver }: ObjectRoundOptions,
  state: RoundState,
  { error, requests, wants }: { error: unknown; requests: readonly { mark: string }[]; wants: readonly ObjectWant[] },
): Promise<void> {
  const refusal = certainRefusal(error)
  if (refusal === undefined) {
    // The intents stay: the next look at the cloud tells what became of them. Never a second creation without that look.
    if (!(error instanceof OpenStackError) || ++state.unknown > UNKNOWN_MAX) throw error
    state.mustLook = true
    // Perhaps it was too much for the time that it had.
    state.batchMax = Math.max(1, Math.floor(requests.length / 2))
    return await pause(RETRY_MS * 2 ** state.unknown, limits)
  }
  journal.transaction(() => {
    for (const { mark } of requests) forgetObject(journal, mark)
  })
  const [want] = wants
  const isOwnFault = want !== undefined && want.special !== '' && refusal !== 'transient'
  if (refusal !== 'full' && !isOwnFault) throw error
  if (requests.length > 1) {
    // All or nothing, and no word on how many would have fitted: half of them, until it does or one is too many.
    if (wants.length > 0 && requests.length > wants.length) {
      state.refill = false
      state.report.refillFailed = true
    } else state.batchMax = Math.floor(requests.length / 2)
    return
  }
  if (want === undefined) {
    state.refill = false
    state.report.refillFailed = true
  } else if (isOwnFault) {
    state.report.unserved.set(want.id, error as Error)
    state.batchMax = driver.batchMax
  } else {
    state.report.refusal = error as Error
    state.report.room = await driver.room?.(limits).catch(() => undefined)
  }
}

/** What an error says of a creation that certainly made nothing; undefined where it may have made something. */
function certainRefusal(error: unknown): 'full' | 'transient' | 'other' | undefined {
  if (error instanceof AllocationError && error.fault === 'full') return 'full'
  if (error instanceof AllocationError && (error.fault === 'broken' || error.fault === 'taken')) return 'other'
  // It waited for a lock, and nothing was sent.
  if (error instanceof AllocationError && error.fault === 'late') return 'transient'
  if (!(error instanceof OpenStackError) || error.effect === 'unknown') return undefined
  if (error.kind === 'exhausted' || error.kind === 'quota') return 'full'
  return error.kind === 'transient' ? 'transient' : 'other'
}
