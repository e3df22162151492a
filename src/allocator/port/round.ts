// SPDX-License-Identifier: Apache-2.0

import { atMost } from '#base'
import {
  type FixedIp,
  type FixedIpRequest,
  type FloatingIps,
  type Health,
  OpenStackError,
  type Port,
  type Ports,
} from '#openstack'
import { reserveOf } from '../ahead.ts'
import type { Journal } from '../journal.ts'
import { wholeBlocks } from './blocks.ts'
import type { PortCover } from './cover.ts'
import { AllocationError } from './error.ts'
import { type Limits, pause } from './lock.ts'
import { type Look, lookAtPort } from './look.ts'
import {
  comparePort,
  countBySubnet,
  difference,
  type Known,
  type Owner,
  type Plan,
  type PlanFacts,
  type PortAddress,
  planPort,
  type Shown,
  sameCounts,
  type Want,
} from './plan.ts'
import {
  type AddRequest,
  learn,
  learnOfCover,
  learnOfTaken,
  NO_ADDITION,
  newState,
  noteUnserved,
  type State,
} from './refusal.ts'
import {
  assignAddress,
  disownAddress,
  disownEarlierBoots,
  endCoolDown,
  findKnownPort,
  findPortAddress,
  forgetAddress,
  forgetExpiredWants,
  forgetIntent,
  forgetWant,
  hasReleasing,
  listFullSubnets,
  listIntents,
  listKnownAddresses,
  listLooseAddresses,
  listWants,
  noteFloatingIps,
  noteFull,
  noteNotFull,
  noteRevision,
  type PortSettings,
  putKnownPort,
  recordAddress,
  recordIntent,
} from './store.ts'

/** What a round needs of Neutron. */
export type PortNeutron = {
  readonly ports: Pick<Ports, 'get' | 'update'>
  readonly floatingIps: Pick<FloatingIps, 'list' | 'disassociate'>
  /** What may be asked of it at the moment; left out, anything. */
  readonly health?: (() => Health) | undefined
}

export type RoundOptions = {
  readonly journal: Journal
  readonly neutron: PortNeutron
  readonly portId: string
  readonly bootId: string
  readonly access: string
  readonly settings: PortSettings
  readonly limits: Limits
  /** False for a while after a refill failed for want of addresses. */
  readonly refill: boolean
  /** False while what is left over after a surge is kept. */
  readonly shrink: boolean
  /** What addresses need elsewhere; undefined where they work by being on the port. */
  readonly cover?: PortCover | undefined
  /** Addresses that we have removed a moment ago: one that comes back was in a list that somebody had read before. */
  readonly echo?: { note(addresses: readonly string[]): void; has(address: string): boolean } | undefined
  /** Addresses that something on this node has. */
  readonly inUse?: ((address: string) => boolean) | undefined
  /** Told whenever attachments were given addresses. */
  readonly onAssigned?: (() => void) | undefined
  /** True when the round has done what its caller came for; the rest is left to others. */
  readonly enough?: (() => boolean) | undefined
  /** Told before each step that changes journal or cloud; tests stop the world there. */
  readonly step?: ((name: RoundStep) => void) | undefined
}

export type RoundStep =
  | 'get'
  | 'disassociate'
  | 'compare'
  | 'intent'
  | 'put'
  | 'answer'
  | 'record'
  | 'remove-intent'
  | 'remove-put'
  | 'remove-record'

export type RoundReport = {
  /** Addresses that attachments hold, that the port does not have, and that could not be put back. */
  lost: Known[]
  /** The same, put back. */
  repaired: string[]
  /** Addresses that we had removed, that somebody's older list has brought back, and that are on their way out again. */
  returned: string[]
  /** Addresses put into quarantine in this round. */
  strange: string[]
  /** Why somebody was not served, by the want's id. */
  readonly unserved: Map<number, Error>
  /** Why the reserve could not be filled; undefined if it could. */
  refillFailed: Error | undefined
  /** True if something was written: an overlapping write of somebody else shows itself a moment later. */
  wrote: boolean
  /** True if something is left over after a surge and kept for the moment. */
  hasSurplus: boolean
  /** Milliseconds until what was released may be removed: Neutron fails often, and a delete can wait. 0: nothing waits for that. */
  removeInMs: number
}

const TRIES_MAX = 64
const UNKNOWN_MAX = 3
const RETRY_MS = 100
/** Three times what a port with 300 addresses takes: then the answer is lost, and a look tells more than waiting. */
const WRITE_MS = 40_000
/** Where the settings do not say it. */
const RETRY_FULL_MS = 60_000

/**
 * Brings a port and the journal together, and serves who waits: everything that is recorded, in as few writes as Neutron
 * permits. The caller holds the port's lock: there is one writer per port.
 *
 * @throws {OpenStackError}
 * @throws {AllocationError}
 */
export async function settlePort(options: RoundOptions): Promise<RoundReport> {
  const state = newState(options.refill)
  const report: RoundReport = {
    lost: [],
    repaired: [],
    returned: [],
    strange: [],
    unserved: state.unserved,
    refillFailed: undefined,
    wrote: false,
    hasSurplus: false,
    removeInMs: 0,
  }
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    options.step?.('get')
    const [look, bindings] = await Promise.all([
      lookAtPort({ ...options, limits: limitsOf(options) }),
      lookAtBindings(options),
    ])
    const { port } = look
    if (mayRemove(options)) await releaseBindings(options, port, bindings)
    await cover(options, state, port)
    options.step?.('compare')
    const plan = compareAndPlan(options, state, report, look, bindings)
    options.onAssigned?.()
    if (options.enough?.()) break
    report.hasSurplus = plan.surplus.length > 0
    const back = report.lost.map(each => each.address).filter(each => !state.taken.has(each))
    const request = nextRequest(plan, state) ?? (back.length > 0 ? NO_ADDITION : undefined)
    if (request !== undefined) await add(options, state, report, port, { ...request, back, bindings })
    else if (plan.remove.length > 0 && !mayRemove(options)) {
      report.removeInMs = options.neutron.health!().retryMs
      break
    } else if (plan.remove.length > 0) await remove(options, state, report, port, plan.remove)
    else break
    options.onAssigned?.()
    if (options.enough?.() || !hasWork(options)) break
  }
  report.refillFailed = state.refillFailed
  noteUnserved(state, listWants(options.journal, options.portId))
  return report
}

const hasWork = ({ journal, portId }: RoundOptions) =>
  listWants(journal, portId).length > 0 || hasReleasing(journal, portId) || listIntents(journal, portId).length > 0

const mayRemove = ({ neutron }: RoundOptions) => (neutron.health?.().level ?? 'normal') === 'normal'

/** The limits of a call, with what it is for: the most urgent thing that the round may do. */
function limitsOf({ journal, portId, refill, settings, limits }: RoundOptions): Limits {
  if (listWants(journal, portId).length > 0) return { ...limits, purpose: 'pod' }
  return { ...limits, purpose: refill && settings.reserve > 0 ? 'refill' : 'reclaim' }
}

/** Before anything on the port is anybody's, it has to work. Where it does not fit, releases go on: they may make room. */
async function cover({ cover, limits }: RoundOptions, state: State, port: Port): Promise<void> {
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

/** Floating IPs of the port by the address they lead to; also addresses that the port does not have any more. */
async function lookAtBindings(options: RoundOptions): Promise<Map<string, string>> {
  const { neutron, portId } = options
  try {
    const found = await neutron.floatingIps.list({ port_id: portId }, limitsOf(options))
    return new Map(found.flatMap(each => (each.fixed_ip_address === null ? [] : [[each.fixed_ip_address, each.id]])))
  } catch (error) {
    // A Neutron without routers has no floating IPs, and a user who may not see them cannot have made one.
    if (error instanceof OpenStackError && (error.status === 403 || error.status === 404)) return new Map()
    throw error
  }
}

/** A floating IP goes before its address: Neutron would leave it pointing at an address that is somebody else's next. */
async function releaseBindings(options: RoundOptions, port: Port, bindings: Map<string, string>): Promise<void> {
  if (bindings.size === 0) return
  const present = new Set(port.fixed_ips.map(each => each.ip_address))
  const bound = listLooseAddresses(options.journal, options.portId).filter(
    each => each.state === 'releasing' && bindings.has(each.address) && present.has(each.address),
  )
  for (const { address } of bound) {
    options.step?.('disassociate')
    await options.neutron.floatingIps.disassociate(bindings.get(address)!, { ...options.limits, purpose: 'reclaim' })
    bindings.delete(address)
  }
}

/** One transaction: what the port shows is recorded, who can be served is served, and the next write is planned. */
function compareAndPlan(
  options: RoundOptions,
  state: State,
  report: RoundReport,
  { port, isOlder }: Look,
  bindings: ReadonlyMap<string, string>,
): Plan {
  const { journal, portId, bootId, access, settings } = options
  return journal.transaction(() => {
    const known = findKnownPort(journal, portId)
    if (known === undefined) recordForeign(options, port)
    const revision = Math.max(known?.revision ?? 0, port.revision_number ?? 0)
    putKnownPort(journal, { portId, access, settings, seenBootId: bootId, revision })
    disownEarlierBoots(journal, portId, bootId)
    // What an old answer has or lacks says nothing; a write on its ground is refused, unless it is the newest after all.
    if (!isOlder) compare(options, report, port)
    noteFloatingIps(journal, portId, bindings)
    return serve(options, state)
  })
}

/** What was on the port before us is not ours, and never will be. */
function recordForeign({ journal, portId }: RoundOptions, port: Port): void {
  for (const { subnet_id, ip_address } of port.fixed_ips)
    recordAddress(journal, {
      portId,
      subnetId: subnet_id,
      address: ip_address,
      state: 'foreign',
      floatingIp: undefined,
      usableMs: 0,
      settling: false,
    })
}

function compare(options: RoundOptions, report: RoundReport, port: Port): void {
  const { journal, portId, settings, inUse, cover, echo } = options
  const nowMs = Date.now()
  const isCovered = (address: string) => cover?.covers(address) ?? true
  const found = comparePort(port.fixed_ips, listKnownAddresses(journal, portId), listIntents(journal, portId), {
    nowMs,
    inUse,
  })
  const record = (kind: 'free' | 'releasing' | 'quarantined', usableMs: number) => (each: Shown) =>
    recordAddress(journal, {
      portId,
      subnetId: each.subnet_id,
      address: each.ip_address,
      state: kind,
      floatingIp: undefined,
      usableMs,
      settling: kind === 'free',
    })
  for (const each of found.attributed)
    record(isCovered(each.ip_address) ? 'free' : 'releasing', nowMs + settings.usableAfterMs)(each)
  const isEcho = ({ ip_address }: Shown) => echo?.has(ip_address) === true && inUse?.(ip_address) !== true
  const [returned, strange] = [found.strange.filter(isEcho), found.strange.filter(each => !isEcho(each))]
  returned.forEach(record('releasing', 0))
  strange.forEach(record('quarantined', 0))
  for (const each of found.vanished) forgetAddress(journal, each)
  for (const id of found.settled) forgetIntent(journal, id)
  report.lost = [...found.lost]
  report.returned.push(...returned.map(each => each.ip_address))
  report.strange.push(...strange.map(each => each.ip_address))
}

/** Gives what is free to who waits, and says what remains to be done. */
function serve(options: RoundOptions, state: State): Plan {
  const { journal, portId, bootId, settings } = options
  const nowMs = Date.now()
  forgetExpiredWants(journal, portId)
  const wants = listWants(journal, portId)
  for (const want of wants) {
    const named = want.address === undefined ? undefined : faultOfNamed(journal, { ...want, address: want.address })
    const fault = named ?? state.uncovered
    if (fault !== undefined) state.unserved.set(want.id, fault)
  }
  const facts: PlanFacts = {
    known: listLooseAddresses(journal, portId),
    wants,
    leaving: new Set(listIntents(journal, portId).flatMap(each => each.removing)),
    reserveSubnets: reservesOf(settings),
    reserve: reserveOf(journal, portId, settings.reserve),
    coolDownMs: settings.coolDownMs,
    soonMs: settings.usableAfterMs,
    exhausted: new Set(state.exhausted.keys()),
    full: listFullSubnets(journal, portId),
    refused: new Set(state.unserved.keys()),
    refill: state.refill && state.uncovered === undefined,
    batchMax: state.batchMax,
    room: roomOf(options),
    shrink: options.shrink && options.cover === undefined,
    nowMs,
  }
  const plan = inBlocks(options, facts, planPort(facts))
  for (const { id } of plan.capped) state.unserved.set(id, capError(options))
  for (const { address, usableMs } of plan.keep) disownAddress(journal, address, 'free', usableMs)
  for (const { want, address } of plan.assign) {
    assignAddress(journal, address, want.owner, bootId)
    if (want.address !== undefined) endCoolDown(journal, address)
    forgetWant(journal, want.id)
  }
  // Nobody is given one that is about to go.
  const kept = new Set(plan.keep.map(each => each.address.address))
  // What may not be removed now is still good for a pod.
  for (const each of mayRemove(options) ? plan.remove : [])
    if (each.state === 'free' || kept.has(each.address)) disownAddress(journal, each, 'releasing', 0)
  return plan
}

/** Addresses that the cap still permits. */
function roomOf({ journal, portId, settings }: RoundOptions): number {
  if (settings.maxAddresses === undefined) return Number.POSITIVE_INFINITY
  const ours = listKnownAddresses(journal, portId).filter(each => each.state !== 'foreign')
  return Math.max(0, settings.maxAddresses - ours.length)
}

function capError({ journal, portId, settings }: RoundOptions): AllocationError {
  const states = listKnownAddresses(journal, portId).map(each => each.state)
  const count = (state: Known['state']) => states.filter(each => each === state).length
  return new AllocationError(
    'full',
    `Cannot add an address to port ${portId}: it may have ${settings.maxAddresses} of ours, and has ${count('assigned')} in use, ` +
      `${count('releasing')} on their way out, ${count('free')} free, ${count('quarantined')} in quarantine`,
    { remedy: 'delete pods of this node, or raise "neutronConf.maxAddresses"' },
  )
}

/** Where a prefix stands for a block of addresses, a block goes as a whole or not at all; what it does not cover goes alone. */
function inBlocks({ journal, portId, shrink, cover }: RoundOptions, facts: PlanFacts, plan: Plan): Plan {
  if (cover === undefined) return plan
  const assigned = new Set(plan.assign.map(each => each.address.address))
  const loose = facts.known.filter(each => each.floatingIp === undefined && !assigned.has(each.address))
  const isCovered = ({ address }: { readonly address: string }) => cover.covers(address)
  const [covered, uncovered] = [loose.filter(isCovered), loose.filter(each => !isCovered(each))]
  const going = new Set(covered.map(each => each.address))
  const staying = listKnownAddresses(journal, portId).filter(each => !going.has(each.address))
  const free = countBySubnet(plan.surplus.map(({ subnetId }) => ({ subnet_id: subnetId })))
  const idle = Object.entries(free).flatMap(([subnet, surplus]) =>
    wholeBlocks(
      covered.filter(each => each.subnetId === subnet),
      staying.map(each => each.address),
      cover.blockSize,
      surplus,
    ),
  )
  return {
    ...plan,
    keep: plan.keep.filter(each => isCovered(each.address)),
    remove: [...new Set([...plan.remove, ...uncovered, ...(shrink ? idle : [])])],
    surplus: shrink ? [] : idle,
  }
}

/** Why a port's own records forbid to give an attachment the address that it names, undefined where they do not. */
export function faultOfNamed(
  journal: Journal,
  { portId, address, owner }: { portId: string; address: string; owner: Owner },
): AllocationError | undefined {
  const there = findPortAddress(journal, portId, address)
  const reason = there === undefined ? undefined : reasonAgainst(there)
  if (reason === undefined) return undefined
  const whom = `interface ${owner.ifName} of container ${owner.containerId}`
  return new AllocationError('taken', `Cannot give address ${address} to ${whom}: ${reason}`)
}

function reasonAgainst({ portId, state, owner, floatingIp }: PortAddress): string | undefined {
  switch (state) {
    case 'assigned':
      return `interface ${owner?.ifName} of container ${owner?.containerId} in network "${owner?.network}" has it`
    case 'foreign':
      return `it is an address of port ${portId} that was there before us, the node's own most likely`
    case 'quarantined':
      return 'it is in quarantine, because nobody can say whose it is: "mooring ip adopt" or "mooring ip release" ends that'
    case 'free':
      return floatingIp === undefined ? undefined : `floating IP ${floatingIp} leads to it`
    case 'releasing':
      return undefined
  }
}

/** What the next write adds: addresses by name alone, else by subnet. Undefined for nothing. */
function nextRequest({ name, serve, refill }: Plan, { apart, namedMax }: State): AddRequest | undefined {
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

async function add(
  options: RoundOptions,
  state: State,
  report: RoundReport,
  port: Port,
  addition: Addition,
): Promise<void> {
  const { journal, neutron, portId, limits } = options
  const { back } = addition
  const asked = await entriesFor(options, state, port, addition)
  if (asked === undefined) return
  const adding = countBySubnet(asked)
  const naming = addition.named.map(want => want.address!)
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
    if (learnOfTaken(state, error, back)) return journal.transaction(() => forgetIntent(journal, intent))
    return await afterRefusal(options, state, error, intent, addition)
  }
  options.step?.('answer')
  const made = difference(port.fixed_ips, answer.fixed_ips).filter(each => !back.includes(each.ip_address))
  // Otherwise somebody else wrote at the same time: the intent stays, and the next look at the port decides.
  if (!sameCounts(countBySubnet(made), adding)) {
    if (++state.unknown > UNKNOWN_MAX)
      throw new AllocationError('strange', `Cannot add addresses to port ${portId}: it does not show what was written`)
    return
  }
  await cover(options, state, answer)
  options.step?.('record')
  recordMade(options, state, { made, intent, answer, bindings: addition.bindings })
  report.repaired.push(...back)
  report.lost = report.lost.filter(each => !back.includes(each.address))
}

type Made = {
  readonly made: readonly FixedIp[]
  readonly intent: number
  readonly answer: Port
  readonly bindings: ReadonlyMap<string, string>
}

function recordMade(options: RoundOptions, state: State, { made, intent, answer, bindings }: Made): void {
  const { journal, portId, settings } = options
  journal.transaction(() => {
    const usableMs = Date.now() + settings.usableAfterMs
    const known = new Set(listKnownAddresses(journal, portId).map(each => each.address))
    // What an attachment has whose address somebody took off the port is the attachment's still, now that it is back.
    for (const { subnet_id, ip_address } of made.filter(each => !known.has(each.ip_address))) {
      recordAddress(journal, {
        portId,
        subnetId: subnet_id,
        address: ip_address,
        state: (options.cover?.covers(ip_address) ?? true) ? 'free' : 'releasing',
        floatingIp: bindings.get(ip_address),
        usableMs,
        settling: true,
      })
      noteNotFull(journal, portId, subnet_id)
    }
    forgetIntent(journal, intent)
    noteRevision(journal, portId, answer.revision_number)
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
  if (cover === undefined) return bareEntries(request.adding)
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

/** For each reserve the subnets that may hold it, in order. */
const reservesOf = ({ subnetIds, fallbacks }: PortSettings) =>
  subnetIds.map(each => [each, ...(fallbacks?.[each] ?? [])])

async function remove(
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
    noteRevision(journal, portId, answer.revision_number)
  })
}
