// SPDX-License-Identifier: Apache-2.0

import { atMost } from '#base'
import { type FixedIp, type FixedIpRequest, OpenStackError, type Port } from '#openstack'
import type { Journal } from '../journal.ts'
import { AllocationError } from './error.ts'
import { pause } from './lock.ts'
import { isOthers } from './look.ts'
import { countBySubnet, difference, type Plan, type PortAddress, sameCounts, type Want } from './plan.ts'
import {
  forgetIntent,
  listFullSubnets,
  listIntents,
  noteFull,
  noteNotFull,
  noteRevision,
  recordIntent,
} from './port-store.ts'
import { type AddRequest, learn, learnOfCover, learnOfTaken, NO_ADDITION, type State } from './refusal.ts'
import { limitsOf, type RoundOptions, type RoundReport } from './round-options.ts'
import { reservesOf, roomOf, serve } from './serve.ts'
import { forgetAddress, listKnownAddresses, recordAddress } from './store.ts'
import { listWants } from './want-store.ts'

const UNKNOWN_MAX = 3
const RETRY_MS = 100
/** After so many names that are taken although Neutron did not show it, it chooses itself. */
const MISNAMED_MAX = 2
/** Three times what a port with 300 addresses takes: then the answer is lost, and a look tells more than waiting. */
const WRITE_MS = 40_000
/** Who waits for an address waits for this look, too: what it does not tell in time is told as what may be. */
const LOOK_BACK_MS = 2_000
/** Where the settings do not say it. */
const RETRY_FULL_MS = 60_000

/** Before anything on the port is anybody's, it has to work. Where it does not fit, releases go on: they may make room. */
export async function cover({ cover, limits }: RoundOptions, state: State, port: Port): Promise<void> {
  state.uncovered = undefined
  try {
    await cover?.apply(addressesOf(port), limits)
  } catch (error) {
    if (!isFull(error)) throw error
    state.uncovered = error
  }
}

const addressesOf = (port: Port) => port.fixed_ips.map(each => each.ip_address)

const isFull = (error: unknown): error is AllocationError => error instanceof AllocationError && error.fault === 'full'

/** What the next write adds: addresses by name alone, else by subnet. Undefined for nothing. */
export function nextRequest({ name, serve, refill }: Plan, { apart, namedMax }: State): AddRequest | undefined {
  if (name.length > 0) {
    const named = name.slice(0, namedMax)
    return { named, adding: countWanted(named), serving: true }
  }
  const sums: Record<string, number> = { ...serve }
  for (const [subnet, count] of Object.entries(refill)) sums[subnet] = (sums[subnet] ?? 0) + count
  const adding = apart ? Object.fromEntries(Object.entries(sums).slice(0, 1)) : sums
  const subnets = Object.keys(adding)
  return subnets.length === 0 ? undefined : { named: [], adding, serving: subnets.some(each => each in serve) }
}

const countWanted = (wants: readonly Want[]): Record<string, number> =>
  countBySubnet(wants.map(want => ({ subnet_id: want.subnetIds[0]!, ip_address: want.address! })))

type Addition = AddRequest & {
  /** Addresses of attachments that somebody has taken off the port. */
  readonly back: readonly string[]
  readonly bindings: ReadonlyMap<string, string>
}

/**
 * Adds addresses by one write, and puts those back that attachments hold. What it makes is given at once to who waits.
 * @returns false where nothing was made, and another write may do better
 */
export async function add(
  options: RoundOptions,
  state: State,
  report: RoundReport,
  port: Port,
  addition: Addition,
): Promise<boolean> {
  const { journal, neutron, portId, limits } = options
  const { back } = addition
  const asked = await entriesFor(options, state, port, addition)
  if (asked === undefined) return false
  const adding = countBySubnet(asked)
  const naming = asked.flatMap(each => each.ip_address ?? [])
  const before = addressesOf(port)
  options.step?.('intent')
  const intent = journal.transaction(() => recordIntent(journal, { portId, before, adding, naming, removing: [] }), {
    durable: true,
  })
  // Every address that must stay is named: an entry without one may take any that the port has.
  const fixedIps: FixedIpRequest[] = [
    ...port.fixed_ips.map(({ subnet_id, ip_address }) => ({ subnet_id, ip_address })),
    ...back.map(ip_address => ({ ip_address })),
    ...asked,
  ]
  options.step?.('put')
  let answer: Port
  report.wrote = true
  try {
    answer = await neutron.ports.update(
      portId,
      { fixed_ips: fixedIps },
      { ...limitsOf(options), deadline: atMost(limits.deadline, WRITE_MS), ifRevision: port.revision_number },
    )
  } catch (error) {
    if (learnOfTaken(state, error, back)) journal.transaction(() => forgetIntent(journal, intent))
    else if (areNamesRefused(options, error, asked, addition)) journal.transaction(() => forgetIntent(journal, intent))
    else await afterRefusal(options, state, error, intent, addition)
    return false
  }
  options.step?.('answer')
  await noteOverlap(options, port, answer)
  const made = difference(port.fixed_ips, answer.fixed_ips).filter(each => !back.includes(each.ip_address))
  // Otherwise somebody else wrote at the same time: the intent stays, and the next look at the port decides.
  if (!sameCounts(countBySubnet(made), adding)) {
    if (++state.unknown > UNKNOWN_MAX)
      throw new AllocationError('strange', `Cannot add addresses to port ${portId}: it does not show what was written`)
    return false
  }
  await cover(options, state, answer)
  options.step?.('record')
  recordMade(options, state, { made, intent, answer, bindings: addition.bindings })
  report.repaired.push(...back)
  report.lost = report.lost.filter(each => !back.includes(each.address))
  return true
}

type Made = {
  readonly made: readonly FixedIp[]
  readonly intent: number
  readonly answer: Port
  readonly bindings: ReadonlyMap<string, string>
}

function recordMade(options: RoundOptions, state: State, { made, intent, answer, bindings }: Made): void {
  const { journal, portId, settings } = options
  const stateOf = (address: string) => {
    if (settings.nic?.addresses.includes(address)) return 'foreign'
    return (options.cover?.covers(address) ?? true) ? 'free' : 'releasing'
  }
  journal.transaction(() => {
    const usableMs = Date.now() + settings.usableAfterMs
    const known = new Set(listKnownAddresses(journal, portId).map(each => each.address))
    // What an attachment has whose address somebody took off the port is the attachment's still, now that it is back.
    for (const { subnet_id, ip_address } of made.filter(each => !known.has(each.ip_address))) {
      recordAddress(journal, {
        portId,
        subnetId: subnet_id,
        address: ip_address,
        state: stateOf(ip_address),
        floatingIp: bindings.get(ip_address),
        usableMs,
        settling: true,
      })
      noteNotFull(journal, portId, subnet_id)
    }
    forgetIntent(journal, intent)
    noteAnswer(journal, answer)
    serve(options, state)
  })
}

type Entry = FixedIpRequest & { readonly subnet_id: string }

/** The new entries of a write; undefined where they would not work, which is noted. */
async function entriesFor(
  options: RoundOptions,
  state: State,
  port: Port,
  request: AddRequest,
): Promise<readonly Entry[] | undefined> {
  const { cover, journal, portId, limits } = options
  if (request.named.length > 0) return request.named.map(namedEntry)
  if (cover === undefined) return await freeEntries(options, state, port, request.adding)
  try {
    const entries: Entry[] = []
    for (const [subnet_id, count] of Object.entries(request.adding)) {
      const named = await cover.choose(port, subnet_id, { count, most: roomOf(options) }, limits)
      entries.push(...named.map(ip_address => ({ subnet_id, ip_address })))
      if (named.length < count) entries.push(...bareEntries({ [subnet_id]: count - named.length }))
    }
    return entries
  } catch (error) {
    if (!isFull(error)) throw error
    learnOfCover(state, error, request, listWants(journal, portId))
    return undefined
  }
}

/** Entries by name, and where there are no names, without. */
async function freeEntries(
  options: RoundOptions,
  { misnamed }: State,
  port: Port,
  adding: Readonly<Record<string, number>>,
): Promise<readonly Entry[]> {
  const { names, neutron, echo, journal, portId } = options
  // Also one that somebody took off the port is its attachment's still, and what an unanswered write named may come yet.
  const known = new Set([
    ...listKnownAddresses(journal, portId).map(each => each.address),
    ...listIntents(journal, portId).flatMap(each => each.naming),
  ])
  const avoid = (address: string) => known.has(address) || echo?.has(address) === true
  const choose = async ([subnet_id, count]: readonly [string, number]): Promise<readonly Entry[]> => {
    const wanted = { subnetId: subnet_id, count, avoid }
    const chosen = misnamed > MISNAMED_MAX ? undefined : await names.choose(neutron, port, wanted, limitsOf(options))
    return chosen?.map(ip_address => ({ subnet_id, ip_address })) ?? bareEntries({ [subnet_id]: count })
  }
  return (await Promise.all(Object.entries(adding).map(choose))).flat()
}

/** Learns that Neutron takes no names that nobody asked for; the next write goes without. */
function areNamesRefused(
  { names, cover }: RoundOptions,
  error: unknown,
  asked: readonly Entry[],
  { named }: AddRequest,
): boolean {
  if (cover !== undefined || named.length > 0 || asked.every(each => each.ip_address === undefined)) return false
  if (!(error instanceof OpenStackError) || error.effect === 'unknown') return false
  if ((error.status !== 400 && error.status !== 403) || ['exhausted', 'quota'].includes(error.kind)) return false
  for (const each of asked) if (each.ip_address !== undefined) names.refuse(each.subnet_id)
  return true
}

/**
 * Tells that somebody else wrote between our look and our write. His change is kept beside ours, and seen then, unless
 * Neutron had to make our write again: that says what the port has, and undoes it.
 */
async function noteOverlap(options: RoundOptions, port: Port, answer: Port): Promise<void> {
  // Neutron counts one for each write; what its agents note of a port counts too.
  const others = (answer.revision_number ?? 0) - (port.revision_number ?? 0) - 1
  if (others <= 0) return
  const limits = { ...limitsOf(options), deadline: atMost(options.limits.deadline, LOOK_BACK_MS) }
  const after = await options.neutron.ports.get(port.id, limits).catch(() => undefined)
  const shows = (each: Port) => addressesOf(each).toSorted().join(' ')
  // What has come since says nothing about what was before.
  const isLater = after?.revision_number !== answer.revision_number
  const isSeen = after !== undefined && (shows(after) !== shows(answer) || after.status !== port.status)
  if (others > 1 || isLater || !isSeen) options.onOverlap?.()
}

const namedEntry = ({ subnetIds, address }: Want): Entry => ({
  subnet_id: subnetIds[0]!,
  ip_address: address!,
})

const bareEntries = (adding: Readonly<Record<string, number>>): Entry[] =>
  Object.entries(adding).flatMap(([subnet_id, count]) => Array.from({ length: count }, () => ({ subnet_id })))

async function afterRefusal(
  { journal, portId, limits, settings }: RoundOptions,
  state: State,
  error: unknown,
  intent: number,
  request: AddRequest,
): Promise<void> {
  if (!(error instanceof OpenStackError)) throw error
  if (error.effect === 'unknown') {
    // The intent stays: the next look at the port tells what became of it. Never a second write without that look.
    if (++state.unknown > UNKNOWN_MAX) throw error
    return await pause(RETRY_MS * 2 ** state.unknown, limits)
  }
  journal.transaction(() => forgetIntent(journal, intent))
  const full = listFullSubnets(journal, portId)
  const { full: found, wait } = learn(state, error, request, subnet =>
    reservesOf(settings).some(list => list.includes(subnet) && list.some(each => each !== subnet && !full.has(each))),
  )
  if (found !== undefined) noteFull(journal, portId, found, Date.now() + (settings.retryFullMs ?? RETRY_FULL_MS))
  if (wait) await pause(RETRY_MS * (1 + state.conflicts * Math.random()), limits)
}

/** Removes addresses by one write, after what lets them pass. */
export async function remove(
  options: RoundOptions,
  state: State,
  report: RoundReport,
  port: Port,
  removable: readonly PortAddress[],
): Promise<void> {
  const { journal, neutron, portId, limits } = options
  const leaving = new Set(removable.map(each => each.address))
  const staying = port.fixed_ips.filter(each => !leaving.has(each.ip_address))
  if (staying.length === 0 && options.cover === undefined)
    throw new AllocationError(
      'strange',
      `Cannot remove ${[...leaving].join(', ')} from port ${portId}: it would be left without an address`,
    )
  // Before somebody else may have them, they pass here no more.
  await options.cover?.apply(
    staying.map(each => each.ip_address),
    limits,
  )
  options.step?.('remove-intent')
  const intent = journal.transaction(
    () =>
      recordIntent(journal, {
        portId,
        before: port.fixed_ips.map(each => each.ip_address),
        adding: {},
        naming: [],
        removing: [...leaving],
      }),
    { durable: true },
  )
  options.step?.('remove-put')
  report.wrote = true
  let answer: Port
  try {
    answer = await neutron.ports.update(
      portId,
      { fixed_ips: staying.map(({ subnet_id, ip_address }) => ({ subnet_id, ip_address })) },
      { ...limits, purpose: 'reclaim', deadline: atMost(limits.deadline, WRITE_MS), ifRevision: port.revision_number },
    )
  } catch (error) {
    return await afterRefusal(options, state, error, intent, NO_ADDITION)
  }
  await noteOverlap(options, port, answer)
  options.step?.('remove-record')
  const present = new Set(answer.fixed_ips.map(each => each.ip_address))
  options.echo?.note([...leaving])
  journal.transaction(() => {
    for (const each of removable) {
      if (present.has(each.address)) continue
      forgetAddress(journal, each)
      // There is room again.
      state.exhausted.delete(each.subnetId)
    }
    forgetIntent(journal, intent)
    noteAnswer(journal, answer)
  })
}

/** Where somebody else has taken something off the port meanwhile, the next look has to be newer to be believed. */
function noteAnswer(journal: Journal, answer: Port): void {
  const shown = new Set(addressesOf(answer))
  const isWhole = listKnownAddresses(journal, answer.id).every(each => shown.has(each.address) || !isOthers(each))
  if (isWhole) noteRevision(journal, answer.id, answer.revision_number)
}
