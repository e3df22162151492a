// SPDX-License-Identifier: Apache-2.0

// What a round learns from Neutron's refusals: which subnet is full, whose address cannot be had, and what to ask for next.

import { OpenStackError } from '#openstack'
import { AllocationError } from './error.ts'
import type { Want } from './plan.ts'

/** A write that adds addresses. */
export type AddRequest = {
  /** Who gets an address by name. There are either these, or others by number. */
  readonly named: readonly Want[]
  /** New addresses by subnet, those by name too. */
  readonly adding: Readonly<Record<string, number>>
  /** True if somebody waits for one of them, and not the reserve alone. */
  readonly serving: boolean
}

export const NO_ADDITION: AddRequest = { named: [], adding: {}, serving: false }

/** What a round knows so far. */
export type State = {
  /** Subnets that have no address left, and how Neutron said so. */
  readonly exhausted: Map<string, OpenStackError>
  /** Why a want cannot be served, by its id. */
  readonly unserved: Map<number, Error>
  refill: boolean
  /** Why the reserve could not be filled; undefined if it could. */
  refillFailed: Error | undefined
  /** Attachments served by one write at most. */
  batchMax: number
  /** The same for those that name an address. */
  namedMax: number
  /** One subnet per write, to learn which of them is full. */
  apart: boolean
  conflicts: number
  /** Those of them in which an address that nobody had asked for was taken: Neutron does not show all. */
  misnamed: number
  unknown: number
  /** Why what is new on the port cannot work: nothing of it is given to anybody. */
  uncovered: AllocationError | undefined
  /** Lost addresses that somebody else has by now. */
  readonly taken: Set<string>
}

export const newState = (refill: boolean): State => ({
  exhausted: new Map(),
  unserved: new Map(),
  refill,
  refillFailed: undefined,
  batchMax: Number.POSITIVE_INFINITY,
  namedMax: Number.POSITIVE_INFINITY,
  apart: false,
  conflicts: 0,
  misnamed: 0,
  unknown: 0,
  uncovered: undefined,
  taken: new Set(),
})

const CONFLICTS_MAX = 8

/** What follows from a refusal: a subnet that is full, a moment to wait, or just another request. */
export type Lesson = { readonly full?: string; readonly wait?: boolean }

/**
 * Learns from a write that was not carried out.
 * @param elsewhere says if a reserve may be kept in another subnet than this one
 * @throws the refusal, where no other request would fare better
 */
export function learn(
  state: State,
  error: OpenStackError,
  request: AddRequest,
  elsewhere: (subnet: string) => boolean,
): Lesson {
  if (isConflict(error, request)) {
    if (isTaken(error)) state.misnamed++
    if (++state.conflicts > CONFLICTS_MAX) throw error
    return { wait: true }
  }
  if (request.named.length > 0) return learnOfNames(state, error, request.named)
  if (error.kind !== 'exhausted' && error.kind !== 'quota') throw error
  return narrow(state, error, request, elsewhere)
}

const isTaken = (error: OpenStackError) => error.type === 'IpAddressAlreadyAllocated'

/** Somebody else changed the port between our look and our write; or took an address that it had at our look. */
function isConflict(error: OpenStackError, { named }: AddRequest): boolean {
  return isTaken(error) ? named.length === 0 : error.kind === 'conflict'
}

/** A write by name is all or nothing, too: the one that Neutron names, or each by itself, until it is clear who cannot be served. */
function learnOfNames(state: State, error: OpenStackError, named: readonly Want[]): Lesson {
  if (error.kind === 'transient' || error.kind === 'auth' || error.kind === 'missing') throw error
  const guilty = named.length === 1 ? named : named.filter(want => isIn(want.address!, error.reason))
  if (guilty.length === 1) state.unserved.set(guilty[0]!.id, refusalOf(guilty[0]!, error))
  else state.namedMax = 1
  return {}
}

/** Learns that addresses to be put back are others' by now. @returns false if the refusal is about something else */
export function learnOfTaken(state: State, error: unknown, back: readonly string[]): boolean {
  if (!(error instanceof OpenStackError) || !isTaken(error)) return false
  const named = back.filter(each => isIn(each, error.reason))
  for (const each of named) state.taken.add(each)
  return named.length > 0
}

/** Learns that new addresses would not work: fewer might, and those who wait come before the reserve. */
export function learnOfCover(
  state: State,
  error: AllocationError,
  { adding, serving }: AddRequest,
  wants: readonly Want[],
): void {
  const most = Math.max(...Object.values(adding))
  if (state.refill) {
    state.refill = false
    state.refillFailed = error
  } else if (serving && most > 1) state.batchMax = Math.floor(most / 2)
  else for (const { id } of wants) state.unserved.set(id, error)
}

/** True if a text has the address, and not as a part of a longer one. */
const isIn = (address: string, text: string) => text.split(/[^0-9a-f.:]+/i).some(word => word === address)

function refusalOf({ address, owner, portId }: Want, error: OpenStackError): Error {
  if (!isTaken(error) && !/^InvalidIp/.test(error.type)) return error
  const whom = `interface ${owner.ifName} of container ${owner.containerId}`
  return new AllocationError('taken', `Cannot give address ${address} of port ${portId} to ${whom}: ${error.reason}`, {
    cause: error,
  })
}

/** Neutron adds all or nothing and does not say how many would fit: less is asked for, until it does or one is too many. */
function narrow(
  state: State,
  error: OpenStackError,
  { adding, serving }: AddRequest,
  elsewhere: (subnet: string) => boolean,
): Lesson {
  const [first, ...others] = Object.entries(adding)
  if (first === undefined) throw error
  const [subnet, count] = first
  if (state.refill && (serving || (others.length === 0 && !elsewhere(subnet)))) {
    state.refill = false
    state.refillFailed = error
  } else if (others.length > 0) state.apart = true
  else if (serving && count > 1) state.batchMax = Math.floor(count / 2)
  else {
    // For the reserve alone: fewer might fit, and whoever waits shall still have them.
    if (serving) state.exhausted.set(subnet, error)
    return { full: subnet }
  }
  return {}
}

/** Says why those who wait still do, where their subnets are full, all of them. */
export function noteUnserved(state: State, wants: readonly Want[]): void {
  for (const want of wants) {
    if (want.address !== undefined || !want.subnetIds.every(each => state.exhausted.has(each))) continue
    state.unserved.set(want.id, fullError(want, state.exhausted.get(want.subnetIds.at(-1)!)!))
  }
}

function fullError({ portId, subnetIds }: Want, cause: OpenStackError): Error {
  // A limit of addresses per port is another matter than the subnets.
  if (!/^(IpAddressGenerationFailure|IPAllocationFailed)/.test(cause.type)) return cause
  const message = `Cannot add an address to port ${portId}: none is left in subnet ${subnetIds.join(' nor in ')}`
  return new AllocationError('full', message, { cause, remedy: cause.remedy, subnetIds })
}
