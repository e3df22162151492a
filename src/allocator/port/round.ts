// SPDX-License-Identifier: Apache-2.0

import { atMost } from '#base'
import {
  type FixedIpRequest,
  type FloatingIps,
  type Health,
  OpenStackError,
  type Port,
  type Ports,
  type Purpose,
} from '#openstack'
import type { Journal } from '../journal.ts'
import { AllocationError } from './error.ts'
import { type Limits, pause } from './lock.ts'
import {
  comparePort,
  countBySubnet,
  difference,
  type Known,
  type Plan,
  type PortAddress,
  planPort,
  sameCounts,
} from './plan.ts'
import {
  assignAddress,
  disownAddress,
  disownEarlierBoots,
  findKnownPort,
  forgetAddress,
  forgetExpiredWants,
  forgetIntent,
  forgetWant,
  hasReleasing,
  listIntents,
  listKnownAddresses,
  listLooseAddresses,
  listWants,
  noteFloatingIps,
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
  /** Subnets in which somebody was not served, and why. */
  readonly unserved: Map<string, Error>
  /** True if the reserve could not be filled. */
  refillFailed: boolean
  /** Milliseconds until what was released may be removed: Neutron fails often, and a delete can wait. 0: nothing waits for that. */
  removeInMs: number
}

const TRIES_MAX = 64
const CONFLICTS_MAX = 8
const UNKNOWN_MAX = 3
const STALE_MAX = 5
const RETRY_MS = 100
/** Three times what a port with 300 addresses takes: then the answer is lost, and a look tells more than waiting. */
const WRITE_MS = 40_000

type State = {
  readonly report: RoundReport
  readonly exhausted: Set<string>
  refill: boolean
  /** Attachments served by one write at most. */
  batchMax: number
  /** One subnet per write, to learn which of them is full. */
  apart: boolean
  conflicts: number
  unknown: number
}

/**
 * Brings a port and the journal together, and serves who waits: everything that is recorded, in as few writes as Neutron
 * permits. The caller holds the port's lock: there is one writer per port.
 *
 * @throws {OpenStackError}
 * @throws {AllocationError}
 */
export async function settlePort(options: RoundOptions): Promise<RoundReport> {
  const state: State = {
    report: { lost: [], strange: [], unserved: new Map(), refillFailed: false, removeInMs: 0 },
    exhausted: new Set(),
    refill: options.refill,
    batchMax: Number.POSITIVE_INFINITY,
    apart: false,
    conflicts: 0,
    unknown: 0,
  }
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    options.step?.('get')
    const [port, bindings] = await Promise.all([lookAtPort(options), lookAtBindings(options)])
    if (mayRemove(options)) await releaseBindings(options, port, bindings)
    options.step?.('compare')
    const plan = compareAndPlan(options, state, port, bindings)
    options.onAssigned?.()
    if (options.enough?.()) break
    const adding = writable(plan, state)
    if (Object.keys(adding).length > 0) await add(options, state, port, adding, bindings)
    else if (plan.remove.length > 0 && !mayRemove(options)) {
      state.report.removeInMs = options.neutron.health!().retryMs
      break
    } else if (plan.remove.length > 0) await remove(options, port, plan.remove, state)
    else break
    options.onAssigned?.()
    if (options.enough?.() || !hasWork(options)) break
  }
  return state.report
}

const hasWork = ({ journal, portId }: RoundOptions) =>
  listWants(journal, portId).length > 0 || hasReleasing(journal, portId) || listIntents(journal, portId).length > 0

const mayRemove = ({ neutron }: RoundOptions) => (neutron.health?.().level ?? 'normal') === 'normal'

/** What the calls of a round are for: the most urgent thing that it may do. */
function purposeOf({ journal, portId, refill, settings }: RoundOptions): Purpose {
  if (listWants(journal, portId).length > 0) return 'pod'
  return refill && settings.reserve > 0 ? 'refill' : 'reclaim'
}

const limitsOf = (options: RoundOptions) => ({ ...options.limits, purpose: purposeOf(options) })

/** The port as it is now. An answer older than one we have seen comes from a replica that lags: it is asked again. */
async function lookAtPort(options: RoundOptions): Promise<Port> {
  const { journal, neutron, portId } = options
  for (let stale = 0; ; stale++) {
    const limits = limitsOf(options)
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
function compareAndPlan(options: RoundOptions, state: State, port: Port, bindings: ReadonlyMap<string, string>): Plan {
  const { journal, portId, bootId, access, settings } = options
  return journal.transaction(() => {
    const known = findKnownPort(journal, portId)
    if (known === undefined) recordForeign(options, port)
    const revision = Math.max(known?.revision ?? 0, port.revision_number ?? 0)
    putKnownPort(journal, { portId, access, settings, seenBootId: bootId, revision })
    disownEarlierBoots(journal, portId, bootId)
    compare(options, state, port)
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

function compare({ journal, portId, settings, inUse }: RoundOptions, state: State, port: Port): void {
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
  state.report.lost = [...found.lost]
  state.report.strange.push(...found.strange.map(each => each.ip_address))
}

/** Gives what is free to who waits, and says what remains to be done. */
function serve(options: RoundOptions, state: State): Plan {
  const { journal, portId, bootId, settings } = options
  const nowMs = Date.now()
  forgetExpiredWants(journal, portId)
  const plan = planPort({
    known: listLooseAddresses(journal, portId),
    wants: listWants(journal, portId),
    reserveSubnets: settings.subnetIds,
    reserve: settings.reserve,
    coolDownMs: settings.coolDownMs,
    soonMs: settings.usableAfterMs,
    exhausted: state.exhausted,
    refill: state.refill,
    batchMax: state.batchMax,
    nowMs,
  })
  for (const { address, usableMs } of plan.keep) disownAddress(journal, address, 'free', usableMs)
  for (const { want, address } of plan.assign) {
    assignAddress(journal, address, want.owner, bootId)
    forgetWant(journal, want.id)
  }
  // What may not be removed now is still good for a pod.
  if (mayRemove(options))
    for (const each of plan.remove) if (each.state === 'free') disownAddress(journal, each, 'releasing', 0)
  return plan
}

/** What the next write adds, by subnet. */
function writable({ serve, refill }: Plan, { apart }: State): Record<string, number> {
  const sums: Record<string, number> = { ...serve }
  for (const [subnet, count] of Object.entries(refill)) sums[subnet] = (sums[subnet] ?? 0) + count
  return apart ? Object.fromEntries(Object.entries(sums).slice(0, 1)) : sums
}

async function add(
  options: RoundOptions,
  state: State,
  port: Port,
  adding: Record<string, number>,
  bindings: ReadonlyMap<string, string>,
): Promise<void> {
  const { journal, neutron, portId, limits, settings } = options
  const before = port.fixed_ips.map(each => each.ip_address)
  options.step?.('intent')
  const intent = journal.transaction(() => recordIntent(journal, { portId, before, adding, removing: [] }), {
    durable: true,
  })
  // Every address that must stay is named: an entry without one may take any that the port has.
  const fixedIps: FixedIpRequest[] = [
    ...port.fixed_ips.map(({ subnet_id, ip_address }) => ({ subnet_id, ip_address })),
    ...Object.entries(adding).flatMap(([subnet_id, count]) => Array.from({ length: count }, () => ({ subnet_id }))),
  ]
  options.step?.('put')
  let answer: Port
  try {
    answer = await neutron.ports.update(
      portId,
      { fixed_ips: fixedIps },
      { ...limitsOf(options), deadline: atMost(limits.deadline, WRITE_MS), ifRevision: port.revision_number },
    )
  } catch (error) {
    return await afterRefusal(options, state, error, intent, adding)
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
    for (const { subnet_id, ip_address } of made)
      recordAddress(journal, {
        portId,
        subnetId: subnet_id,
        address: ip_address,
        state: 'free',
        floatingIp: bindings.get(ip_address),
        usableMs,
        settling: true,
      })
    forgetIntent(journal, intent)
    noteRevision(journal, portId, answer.revision_number ?? 0)
    serve(options, state)
  })
}

async function afterRefusal(
  { journal, limits }: RoundOptions,
  state: State,
  error: unknown,
  intent: number,
  adding: Readonly<Record<string, number>>,
): Promise<void> {
  if (!(error instanceof OpenStackError)) throw error
  if (error.effect === 'unknown') {
    // The intent stays: the next look at the port tells what became of it. Never a second write without that look.
    if (++state.unknown > UNKNOWN_MAX) throw error
    return await pause(RETRY_MS * 2 ** state.unknown, limits)
  }
  journal.transaction(() => forgetIntent(journal, intent))
  if (isConflict(error)) {
    if (++state.conflicts > CONFLICTS_MAX) throw error
    return await pause(RETRY_MS * (1 + state.conflicts * Math.random()), limits)
  }
  if (error.kind !== 'exhausted' && error.kind !== 'quota') throw error
  narrow(state, error, adding)
}

/** Somebody else changed the port between our look and our write; or took an address that it had at our look. */
const isConflict = (error: OpenStackError) => error.kind === 'conflict' || error.type === 'IpAddressAlreadyAllocated'

/** Neutron adds all or nothing and does not say how many would fit: less is asked for, until it does or one is too many. */
function narrow(state: State, error: OpenStackError, adding: Readonly<Record<string, number>>): void {
  const [first] = Object.entries(adding)
  if (first === undefined) throw error
  if (state.refill) {
    state.refill = false
    state.report.refillFailed = true
  } else if (Object.keys(adding).length > 1) state.apart = true
  else if (first[1] > 1) state.batchMax = Math.floor(first[1] / 2)
  else {
    state.exhausted.add(first[0])
    state.report.unserved.set(first[0], error)
  }
}

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
      { ...limits, purpose: 'reclaim', deadline: atMost(limits.deadline, WRITE_MS), ifRevision: port.revision_number },
    )
  } catch (error) {
    return await afterRefusal(options, state, error, intent, {})
  }
  options.step?.('remove-record')
  const present = new Set(answer.fixed_ips.map(each => each.ip_address))
  journal.transaction(() => {
    for (const each of removable) if (!present.has(each.address)) forgetAddress(journal, each)
    forgetIntent(journal, intent)
    noteRevision(journal, portId, answer.revision_number ?? 0)
  })
}
