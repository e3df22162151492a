// SPDX-License-Identifier: Apache-2.0

import { atMost } from '#base'
import { type FixedIpRequest, type FloatingIps, OpenStackError, type Port, type Ports } from '#openstack'
import { reserveOf } from '../ahead.ts'
import type { Journal } from '../journal.ts'
import { AllocationError } from './error.ts'
import { type Limits, pause } from './lock.ts'
import {
  comparePort,
  countBySubnet,
  difference,
  type Known,
  type Owner,
  type Plan,
  type PortAddress,
  planPort,
  sameCounts,
  type Want,
} from './plan.ts'
import { type AddRequest, learn, NO_ADDITION, newState, noteUnserved, type State } from './refusal.ts'
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
  /** Addresses that attachments hold and the port does not have. */
  lost: Known[]
  /** Addresses put into quarantine in this round. */
  strange: string[]
  /** Why somebody was not served, by the want's id. */
  readonly unserved: Map<number, Error>
  /** Why the reserve could not be filled; undefined if it could. */
  refillFailed: Error | undefined
}

const TRIES_MAX = 64
const UNKNOWN_MAX = 3
const STALE_MAX = 5
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
  const report: RoundReport = { lost: [], strange: [], unserved: state.unserved, refillFailed: undefined }
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    options.step?.('get')
    const [port, bindings] = await Promise.all([lookAtPort(options), lookAtBindings(options)])
    await releaseBindings(options, port, bindings)
    options.step?.('compare')
    const plan = compareAndPlan(options, state, report, port, bindings)
    options.onAssigned?.()
    if (options.enough?.()) break
    const request = nextRequest(plan, state)
    if (request !== undefined) await add(options, state, port, request, bindings)
    else if (plan.remove.length > 0) await remove(options, port, plan.remove, state)
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

/** The port as it is now. An answer older than one we have seen comes from a replica that lags: it is asked again. */
async function lookAtPort({ journal, neutron, portId, limits }: RoundOptions): Promise<Port> {
  for (let stale = 0; ; stale++) {
    const port = await neutron.ports.get(portId, limits)
    if (port === undefined)
      throw new AllocationError(
        'gone',
        `Cannot use port ${portId}: Neutron does not know it; it was deleted, or belongs to another project`,
      )
    const known = findKnownPort(journal, portId)?.revision ?? 0
    // A database that was restored shows older revisions for good: after some looks they count.
    if ((port.revision_number ?? known) >= known || stale === STALE_MAX) return port
    await pause(RETRY_MS * 2 ** stale, limits)
  }
}

/** Floating IPs of the port by the address they lead to; also addresses that the port does not have any more. */
async function lookAtBindings({ neutron, portId, limits }: RoundOptions): Promise<Map<string, string>> {
  try {
    const found = await neutron.floatingIps.list({ port_id: portId }, limits)
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
    await options.neutron.floatingIps.disassociate(bindings.get(address)!, options.limits)
    bindings.delete(address)
  }
}

/** One transaction: what the port shows is recorded, who can be served is served, and the next write is planned. */
function compareAndPlan(
  options: RoundOptions,
  state: State,
  report: RoundReport,
  port: Port,
  bindings: ReadonlyMap<string, string>,
): Plan {
  const { journal, portId, bootId, access, settings } = options
  return journal.transaction(() => {
    const known = findKnownPort(journal, portId)
    if (known === undefined) recordForeign(options, port)
    const revision = Math.max(known?.revision ?? 0, port.revision_number ?? 0)
    putKnownPort(journal, { portId, access, settings, seenBootId: bootId, revision })
    disownEarlierBoots(journal, portId, bootId)
    compare(options, report, port)
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

function compare({ journal, portId, settings, inUse }: RoundOptions, report: RoundReport, port: Port): void {
  const nowMs = Date.now()
  const found = comparePort(port.fixed_ips, listKnownAddresses(journal, portId), listIntents(journal, portId), {
    nowMs,
    inUse,
  })
  const record = (kind: 'free' | 'quarantined', usableMs: number) => (each: (typeof found.strange)[number]) =>
    recordAddress(journal, {
      portId,
      subnetId: each.subnet_id,
      address: each.ip_address,
      state: kind,
      floatingIp: undefined,
      usableMs,
      settling: kind === 'free',
    })
  found.attributed.forEach(record('free', nowMs + settings.usableAfterMs))
  found.strange.forEach(record('quarantined', 0))
  for (const each of found.vanished) forgetAddress(journal, each)
  for (const id of found.settled) forgetIntent(journal, id)
  report.lost = [...found.lost]
  report.strange.push(...found.strange.map(each => each.ip_address))
}

/** Gives what is free to who waits, and says what remains to be done. */
function serve({ journal, portId, bootId, settings }: RoundOptions, state: State): Plan {
  const nowMs = Date.now()
  forgetExpiredWants(journal, portId)
  const wants = listWants(journal, portId)
  for (const want of wants) {
    const fault = want.address === undefined ? undefined : faultOfNamed(journal, { ...want, address: want.address })
    if (fault !== undefined) state.unserved.set(want.id, fault)
  }
  const plan = planPort({
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
    refill: state.refill,
    batchMax: state.batchMax,
    nowMs,
  })
  for (const { address, usableMs } of plan.keep) disownAddress(journal, address, 'free', usableMs)
  for (const { want, address } of plan.assign) {
    assignAddress(journal, address, want.owner, bootId)
    if (want.address !== undefined) endCoolDown(journal, address)
    forgetWant(journal, want.id)
  }
  for (const each of plan.remove) if (each.state === 'free') disownAddress(journal, each, 'releasing', 0)
  return plan
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

async function add(
  options: RoundOptions,
  state: State,
  port: Port,
  request: AddRequest,
  bindings: ReadonlyMap<string, string>,
): Promise<void> {
  const { journal, neutron, portId, limits, settings } = options
  const { named, adding } = request
  const naming = named.map(want => want.address!)
  const before = port.fixed_ips.map(each => each.ip_address)
  options.step?.('intent')
  const intent = journal.transaction(() => recordIntent(journal, { portId, before, adding, naming, removing: [] }), {
    durable: true,
  })
  // Every address that must stay is named: an entry without one may take any that the port has.
  const fixedIps: FixedIpRequest[] = [
    ...port.fixed_ips.map(({ subnet_id, ip_address }) => ({ subnet_id, ip_address })),
    ...(named.length > 0 ? named.map(namedEntry) : bareEntries(adding)),
  ]
  options.step?.('put')
  let answer: Port
  try {
    answer = await neutron.ports.update(
      portId,
      { fixed_ips: fixedIps },
      { ...limits, deadline: atMost(limits.deadline, WRITE_MS), ifRevision: port.revision_number },
    )
  } catch (error) {
    return await afterRefusal(options, state, error, intent, request)
  }
  options.step?.('answer')
  const made = difference(port.fixed_ips, answer.fixed_ips)
  // Otherwise somebody else wrote at the same time: the intent stays, and the next look at the port decides.
  if (!sameCounts(countBySubnet(made), adding)) {
    if (++state.unknown > UNKNOWN_MAX)
      throw new AllocationError('strange', `Cannot add addresses to port ${portId}: it does not show what was written`)
    return
  }
  options.step?.('record')
  journal.transaction(() => {
    const usableMs = Date.now() + settings.usableAfterMs
    const known = new Set(listKnownAddresses(journal, portId).map(each => each.address))
    // What an attachment has whose address somebody took off the port is the attachment's still, now that it is back.
    for (const { subnet_id, ip_address } of made.filter(each => !known.has(each.ip_address)))
      recordAddress(journal, {
        portId,
        subnetId: subnet_id,
        address: ip_address,
        state: 'free',
        floatingIp: bindings.get(ip_address),
        usableMs,
        settling: true,
      })
    for (const subnet of Object.keys(adding)) noteNotFull(journal, portId, subnet)
    forgetIntent(journal, intent)
    noteRevision(journal, portId, answer.revision_number ?? 0)
    serve(options, state)
  })
}

const namedEntry = ({ subnetIds, address }: Want): FixedIpRequest => ({
  subnet_id: subnetIds[0]!,
  ip_address: address!,
})

const bareEntries = (adding: Readonly<Record<string, number>>): FixedIpRequest[] =>
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
  port: Port,
  removable: readonly PortAddress[],
  state: State,
): Promise<void> {
  const { journal, neutron, portId, limits } = options
  const leaving = new Set(removable.map(each => each.address))
  const staying = port.fixed_ips.filter(each => !leaving.has(each.ip_address))
  if (staying.length === 0)
    throw new AllocationError(
      'strange',
      `Cannot remove ${[...leaving].join(', ')} from port ${portId}: it would be left without an address`,
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
  let answer: Port
  try {
    answer = await neutron.ports.update(
      portId,
      { fixed_ips: staying.map(({ subnet_id, ip_address }) => ({ subnet_id, ip_address })) },
      { ...limits, deadline: atMost(limits.deadline, WRITE_MS), ifRevision: port.revision_number },
    )
  } catch (error) {
    return await afterRefusal(options, state, error, intent, NO_ADDITION)
  }
  options.step?.('remove-record')
  const present = new Set(answer.fixed_ips.map(each => each.ip_address))
  journal.transaction(() => {
    for (const each of removable) {
      if (present.has(each.address)) continue
      forgetAddress(journal, each)
      // There is room again.
      state.exhausted.delete(each.subnetId)
    }
    forgetIntent(journal, intent)
    noteRevision(journal, portId, answer.revision_number ?? 0)
  })
}
