// SPDX-License-Identifier: Apache-2.0

import {
  type AddressOwner,
  AllocationError,
  findKnownPort,
  forgetLookup,
  isReleased,
  type Journal,
  type Limits,
  listOwnedAddresses,
  listPortsReleasing,
  type PortAddress,
  type PortPool,
  type PortProbe,
  releaseOthers,
  releaseOwner,
} from '#allocator'
import { atMost, deadlineIn, formatIp, isV4, parseIp, parsePrefix, prefixContains } from '#base'
import { type Call, CniError, codes, type Dns, type Plugin, type Result, type ValidAttachment } from '#cni'
import { isMissing } from '#openstack'
import type { World } from '../../world.ts'
import { type Config, parseConfig } from './config.ts'
import { type HostInterface, type Place, resultIp } from './host-port.ts'
import { type Located, locate, lookAgain } from './place.ts'
import { poolFor, poolOfKnown } from './ports.ts'
import { readResolvConf } from './resolv-conf.ts'
import type { OpenedCloud } from './sessions.ts'
import { fromCloud } from './to-cni-error.ts'

const TYPE = 'tcnp-ipam'
/** A DEL that nobody finishes in the background tries for so long, then leaves it to the next call. */
const RELEASE_MS = 20_000
const STATUS_MS = 5_000
const STATUS_AGE_MS = 10_000
/** A GC list made this short a time before the call may not know an ADD that has just ended. */
const GC_GUARD_MS = 100

/** Addresses of Neutron for pods: further `fixed_ips` of the node's own port (mode `mix`). */
export const tcnpIpam: Plugin<World> = {
  type: TYPE,
  needsNetns: false,
  add: (call, world) => mapped(add(call, world)),
  del: (call, world) => mapped(del(call, world)),
  check: (call, world) => mapped(check(call, world)),
  status: (call, world) => status(call, world),
  gc: (call, world, valid) => mapped(gc(call, world, valid)),
}

async function mapped<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    throw fromCloud(error) ?? error
  }
}

const ownerOf = ({ network, containerId, ifName }: Call): AddressOwner => ({ network, containerId, ifName })

async function add(call: Call, world: World): Promise<Result> {
  const config = parseConfig(call.config)
  // Read first: a file that is missing must not cost an address.
  const resolv = config.resolvConf === undefined ? undefined : await readResolvConf(config.resolvConf)
  const { place, pool, lookup } = await open(config, world, call)
  try {
    const subnetIds = place.subnets.map(subnet => subnet.id)
    const taken = await pool.acquire(ownerOf(call), subnetIds, call)
    const ips = place.subnets.map(subnet => {
      const { address } = taken.find(each => each.subnetId === subnet.id)!
      return resultIp(address, subnet)
    })
    return { ips, routes: [...config.routes], dns: resolv ?? dnsOf(place) }
  } catch (error) {
    // The port was replaced, or a subnet: the next call looks for them afresh.
    if (isMissing(error) || (error instanceof AllocationError && error.fault === 'gone'))
      forgetLookup(world.journal, lookup)
    throw error
  }
}

function dnsOf(place: Place): Dns {
  const nameservers = [...new Set(place.subnets.flatMap(subnet => subnet.nameservers))]
  return nameservers.length === 0 ? {} : { nameservers }
}

type Opened = Located & { readonly pool: PortPool }

async function open(config: Config, world: World, limits: Limits): Promise<Opened> {
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  const located = await locate(config, world, cloud, limits)
  return { ...located, pool: poolOf(config, world, cloud, located) }
}

function poolOf({ neutronConf }: Config, world: World, cloud: OpenedCloud, { place, uplink }: Located): PortPool {
  const { reserve, usableAfterMs, coolDownMs, dataDir } = neutronConf
  return poolFor(world, {
    portId: place.portId,
    access: cloud.access,
    probe: probeOf(world, place, uplink),
    settings: {
      subnetIds: place.subnets.map(subnet => subnet.id),
      reserve,
      usableAfterMs,
      coolDownMs,
      lockDirectory: dataDir ?? world.dataDir,
    },
  })
}

/** Asks the gateway in the address's name: it answers as soon as port security lets the question pass. */
function probeOf(world: World, { subnets }: Place, uplink: HostInterface | undefined): PortProbe | undefined {
  const gateways = subnets.flatMap(({ cidr, gateway }) =>
    gateway === undefined ? [] : [{ subnet: parsePrefix(cidr), target: parseIp(gateway) }],
  )
  if (uplink === undefined || !gateways.some(({ target }) => isV4(target))) return undefined
  return async addresses => {
    const probes = addresses.map(parseIp).flatMap(address => {
      const target = gateways.find(({ subnet }) => prefixContains(subnet, address))?.target
      return target === undefined || !isV4(target) ? [] : [{ address, target }]
    })
    return (await world.host.probeArp({ uplink, probes })).map(formatIp)
  }
}

/**
 * Records the release, which is all that the caller has to wait for: the agent tells the cloud in the background. A process
 * that lives for one call tries it itself, and leaves to the next one what does not succeed.
 */
async function del(call: Call, world: World): Promise<void> {
  const owner = ownerOf(call)
  await tellCloud(call, world, releaseOwner(world.journal, owner))
}

async function tellCloud(call: Call, world: World, released: readonly PortAddress[]): Promise<void> {
  const own = Map.groupBy(released, each => each.portId)
  for (const portId of new Set([...own.keys(), ...listPortsReleasing(world.journal)])) {
    const pool = await poolForRelease(call, world, portId, own.has(portId)).catch(() => undefined)
    if (world.longLived) pool?.kick()
    else await pool?.settle(releaseLimits(call), isDone(world.journal, portId, own.get(portId))).catch(() => {})
  }
}

/** What is left of earlier calls is finished too, but nobody waits for what others released meanwhile. */
function isDone(journal: Journal, portId: string, own: readonly PortAddress[] | undefined): () => boolean {
  if (own === undefined) return () => !listPortsReleasing(journal).includes(portId)
  return () => own.every(each => isReleased(journal, each))
}

const releaseLimits = (call: Call): Limits => ({ deadline: atMost(call.deadline, RELEASE_MS), signal: call.signal })

/** With the credentials that the journal names, else, for an address of this network, with those of this call. */
async function poolForRelease(call: Call, world: World, portId: string, isOwn: boolean): Promise<PortPool | undefined> {
  // First, because the call may bring what the journal only names.
  const access = await accessOf(call, world).catch(() => undefined)
  const open = await poolOfKnown(world, portId).catch(() => undefined)
  const known = findKnownPort(world.journal, portId)
  if (open !== undefined || known === undefined || access === undefined || !isOwn) return open
  return poolFor(world, { portId, access, settings: known.settings })
}

async function accessOf(call: Call, world: World): Promise<string> {
  const { cloud, neutronConf } = parseConfig(call.config)
  return (await world.clouds.open(cloud, { dataDir: neutronConf.dataDir })).access
}

async function check(call: Call, world: World): Promise<void> {
  const config = parseConfig(call.config)
  const held = listOwnedAddresses(world.journal, ownerOf(call))
  const wrong = (message: string) =>
    new CniError(codes.checkFailed, `Interface ${call.ifName} of container ${call.containerId}: ${message}`)
  if (held.length === 0) throw wrong('no address of Neutron is recorded for it')
  const given = (call.prevResult?.ips ?? []).map(each => formatIp(parsePrefix(each.address).ip))
  for (const { address } of held)
    if (call.prevResult !== undefined && !given.includes(address))
      throw wrong(`its result does not have ${address}, which is recorded for it`)
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  for (const { portId, address } of held) {
    const port = await cloud.session.neutron.ports.get(portId, call)
    if (port === undefined) throw wrong(`port ${portId} of ${address} does not exist`)
    if (!port.fixed_ips.some(each => each.ip_address === address))
      throw wrong(`port ${portId} does not have its address ${address} any more`)
  }
}

type Verdict = { readonly atMs: number; readonly error: CniError | undefined; readonly passes: boolean }
type Memory = { verdict: Verdict | undefined; running: Promise<Verdict> | undefined }
const memories = new WeakMap<Journal, Map<string, Memory>>()

/** Says what was found a moment ago, so that a runtime may ask often; only the first question waits for the cloud. */
async function status(call: Call, world: World): Promise<void> {
  const config = parseConfig(call.config)
  const memory = memoryOf(call, world)
  if (memory.verdict === undefined || performance.now() - memory.verdict.atMs > STATUS_AGE_MS) {
    memory.running ??= examine(config, world).finally(() => {
      memory.running = undefined
    })
    const fresh = memory.running.then(verdict => {
      // A node that was ready stays so while the cloud is away for a while: its pods run, its reserve serves, and what a
      // NotReady node costs, the eviction of all its pods, helps nobody. An ADD that cannot be served says so itself.
      const stays = verdict.passes && memory.verdict !== undefined && memory.verdict.error === undefined
      memory.verdict = stays ? { ...verdict, error: undefined } : verdict
    })
    if (memory.verdict === undefined) await fresh
    else fresh.catch(() => {})
  }
  if (memory.verdict?.error !== undefined) throw memory.verdict.error
}

function memoryOf(call: Call, world: World): Memory {
  const all = memories.get(world.journal) ?? new Map<string, Memory>()
  memories.set(world.journal, all)
  const key = JSON.stringify(call.config['ipam'])
  const memory = all.get(key) ?? { verdict: undefined, running: undefined }
  all.set(key, memory)
  return memory
}

async function examine(config: Config, world: World): Promise<Verdict> {
  try {
    const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
    const located = await lookAgain(config, world, cloud, { deadline: deadlineIn(STATUS_MS) })
    // The first question of the runtime, before any pod, is the time to make the reserve.
    if (world.longLived) poolOf(config, world, cloud, located).kick()
    return { atMs: performance.now(), error: undefined, passes: false }
  } catch (error) {
    const known = error instanceof CniError ? error : fromCloud(error)
    if (known === undefined) throw error
    const { message, details } = known
    return {
      atMs: performance.now(),
      error: new CniError(codes.notAvailable, `No address can be given: ${message}`, { details, cause: error }),
      passes: known.code === codes.tryAgainLater,
    }
  }
}

async function gc(call: Call, world: World, valid: readonly ValidAttachment[] | undefined): Promise<void> {
  if (valid === undefined) return
  const beforeMs = Date.now() - GC_GUARD_MS
  const living = new Set(valid.map(({ containerId, ifName }) => `${containerId}/${ifName}`))
  const isLiving = ({ containerId, ifName }: AddressOwner) => living.has(`${containerId}/${ifName}`)
  await tellCloud(call, world, releaseOthers(world.journal, call.network, isLiving, beforeMs))
}
