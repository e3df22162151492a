// SPDX-License-Identifier: Apache-2.0

import {
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
import { type Call, CniError, codes, type Result } from '#cni'
import { isMissing } from '#openstack'
import type { World } from '../../world.ts'
import { type Carrier, findCarrier } from './carrier.ts'
import type { Choice } from './choice.ts'
import type { Config } from './config.ts'
import type { HostInterface, Place } from './host-port.ts'
import { type Located, locate, locateAgain } from './place.ts'
import { poolFor, poolOfKnown } from './ports.ts'
import type { OpenedCloud } from './sessions.ts'
import { ownerOf, type Source } from './source.ts'
import {
  describeSubnet,
  dnsOf,
  type Family,
  type FamilyOptions,
  familiesOf,
  type PlaceSubnet,
  resultIp,
  subnetsOfPort,
} from './subnets.ts'
import { explain } from './unavailable.ts'
import { findUncovered } from './uncovered.ts'
import { tryBring, warnOfRelease } from './untold.ts'

/** A DEL that nobody finishes in the background tries for so long, then leaves it to the next call. */
const RELEASE_MS = 20_000
const STATUS_MS = 5_000

/**
 * Pods' addresses are further `fixed_ips` of the node's own port (mode `mix`); or those of a port that only holds them, and
 * pass at the node's by address pairs; with `mix_route` they may be of another subnet, to which the router has routes.
 */
export const mix: Source = {
  acquire,
  release: (call, world) => tellCloud(call, world, releaseOwner(world.journal, ownerOf(call))),
  releaseOthers: async (call, world, isLiving, beforeMs) =>
    await tellCloud(call, world, await releaseOthers(world.journal, call.network, isLiving, beforeMs)),
  holds: (owner, { journal }) => listOwnedAddresses(journal, owner).length > 0,
  findFaults,
  examine,
}

async function acquire(
  config: Config,
  call: Call,
  world: World,
  choice: Choice,
): Promise<Required<Pick<Result, 'ips' | 'dns'>>> {
  refuseChoice(config, choice)
  const { pool, lookups, carrier, families, cloud } = await open(config, world, call, choice)
  try {
    const wishes = families.map(({ subnets, address }) => ({ subnetIds: subnets.map(each => each.id), address }))
    const taken = await pool.acquire(ownerOf(call), wishes, call)
    const used = families.map(({ subnets }) => findUsed(subnets, taken))
    const ips = used.map(({ address, subnet }) => resultIp(address, subnet))
    return { ips, dns: dnsOf(used.map(each => each.subnet)) }
  } catch (error) {
    // The port was replaced, or a subnet: the next call looks for them afresh.
    if (isMissing(error) || (error instanceof AllocationError && error.fault === 'gone'))
      for (const lookup of lookups) forgetLookup(world.journal, lookup)
    throw await explain({ error, place: carrier, families }, world.journal, cloud.session.neutron, call)
  }
}

function findUsed(subnets: readonly PlaceSubnet[], taken: readonly PortAddress[]) {
  for (const { address, subnetId } of taken) {
    const subnet = subnets.find(each => each.id === subnetId)
    if (subnet !== undefined) return { address, subnet }
  }
  throw new Error(`no address of ${subnets.map(describeSubnet).join(', ')} was given`)
}

/** The port is the node's and all its pods': it has one MAC, one set of security groups, and is the only one. */
function refuseChoice({ neutronConf }: Config, { chosen }: Choice): void {
  for (const aspect of ['mac', 'port', 'securityGroups', 'portSecurity'] as const) {
    const isOperators = aspect !== 'mac' && aspect !== 'port' && neutronConf[aspect] !== undefined
    const key = chosen[aspect] ?? (isOperators ? `neutronConf.${aspect}` : undefined)
    if (key === undefined) continue
    throw new CniError(
      codes.invalidConfig,
      `Cannot do what "${key}" says in mode "${neutronConf.mode}": all pods of a node share its port`,
      { details: 'mode "separate" makes a port for each' },
    )
  }
}

type Opened = {
  readonly cloud: OpenedCloud
  readonly carrier: Carrier
  readonly pool: PortPool
  readonly families: readonly Family[]
  readonly lookups: readonly string[]
}

const NO_CHOICE = { addresses: [], chosen: {} }

async function open(config: Config, world: World, limits: Limits, choice: Choice): Promise<Opened> {
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  const located = await locate(config, world, cloud, limits, choice)
  const { carrier, lookup } = await findCarrier(config, world, cloud, located, limits)
  return {
    cloud,
    carrier,
    families: familiesAt(carrier, config, choice),
    pool: poolOf(config, world, cloud, located, carrier),
    lookups: lookup === undefined ? [located.lookup] : [located.lookup, lookup],
  }
}

/** The subnets of the port's network that serve. */
function familiesAt({ portId, subnets }: Carrier, { neutronConf }: Config, choice: FamilyOptions['choice']): Family[] {
  const families = familiesOf({
    all: subnets,
    usual: subnetsOfPort(subnets),
    choice,
    ipVersions: neutronConf.ipVersions,
    what: `port ${portId}`,
    network: `the network of port ${portId}`,
  })
  const automatic = families.flatMap(each => each.subnets).find(each => each.isAutomatic)
  if (automatic !== undefined)
    throw new CniError(
      codes.invalidConfig,
      `Cannot give addresses of subnet ${describeSubnet(automatic)}: a port has one address of it, made from its MAC`,
      {
        details:
          'use a subnet with ipv6_address_mode "dhcpv6-stateful" or without one, or write "ipVersions": [4] into "neutronConf"',
      },
    )
  return families
}

/** The reserve is the operator's: what one pod chose needs none. */
function poolOf(
  config: Config,
  world: World,
  cloud: OpenedCloud,
  { place, uplink }: Located,
  carrier: Carrier,
): PortPool {
  const { reserve, usableAfterMs, coolDownMs, retryFullMs, dataDir, subnets, maxAddresses, verifyAfterMs } =
    config.neutronConf
  const lists = familiesAt(carrier, config, { ...NO_CHOICE, subnets }).map(each => each.subnets.map(({ id }) => id))
  return poolFor(world, {
    portId: carrier.portId,
    access: cloud.access,
    probe: probeOf(world, place, carrier, uplink),
    settings: {
      subnetIds: lists.map(([first]) => first!),
      fallbacks: Object.fromEntries(lists.map(([first, ...others]) => [first!, others])),
      retryFullMs,
      reserve,
      usableAfterMs,
      coolDownMs,
      lockDirectory: dataDir ?? world.dataDir,
      maxAddresses,
      verifyAfterMs,
      nic: carrier.holder === undefined ? place.nic : undefined,
      holder: carrier.holder,
    },
  })
}

/** Asks the gateway in the address's name: it answers as soon as port security lets the question pass. */
function probeOf(
  world: World,
  { networkSubnets }: Place,
  { subnets, holder }: Carrier,
  uplink: HostInterface | undefined,
): PortProbe | undefined {
  // A routed address is none of its gateway's network: it is the node's gateway that has to answer it.
  const isRouted = holder?.route !== undefined
  const near = isRouted ? subnetsOfPort(networkSubnets) : subnets
  if (uplink === undefined || !near.some(({ gateway }) => gateway?.includes('.'))) return undefined
  return async addresses => {
    // Read here: a network may have hundreds of subnets, and most ADDs are served without a probe.
    const gateways = near.flatMap(({ cidr, gateway }) =>
      gateway === undefined ? [] : [{ subnet: parsePrefix(cidr), target: parseIp(gateway) }],
    )
    const probes = addresses.map(parseIp).flatMap(address => {
      const found = gateways.find(({ subnet, target }) => (isRouted ? isV4(target) : prefixContains(subnet, address)))
      return found === undefined || !isV4(found.target) || !isV4(address) ? [] : [{ address, target: found.target }]
    })
    return (await world.host.probeArp({ uplink, probes })).map(formatIp)
  }
}

/**
 * Records the release, which is all that the caller has to wait for: the agent tells the cloud in the background. A process
 * that lives for one call tries it itself, and leaves to the next one what does not succeed.
 */
async function tellCloud(call: Call, world: World, released: readonly PortAddress[]): Promise<void> {
  const own = Map.groupBy(released, each => each.portId)
  for (const portId of new Set([...own.keys(), ...listPortsReleasing(world.journal)]))
    try {
      const pool = await poolForRelease(call, world, portId, own.has(portId))
      if (world.longLived) pool?.kick()
      else await pool?.settle(releaseLimits(call), isDone(world.journal, portId, own.get(portId)))
    } catch (error) {
      warnOfRelease(world, `addresses of port ${portId}`, error)
    }
}

/** What is left of earlier calls is finished too, but nobody waits for what others released meanwhile. */
function isDone(journal: Journal, portId: string, own: readonly PortAddress[] | undefined): () => boolean {
  if (own === undefined) return () => !listPortsReleasing(journal).includes(portId)
  return () => own.every(each => isReleased(journal, each))
}

const releaseLimits = (call: Call): Limits => ({ deadline: atMost(call.deadline, RELEASE_MS), signal: call.signal })

/**
 * With the credentials that the journal names, else, for an address of this network, with those of this call. What others
 * left is none of this call's business where it does not lead to their cloud.
 * @throws why there is no way to the cloud
 */
async function poolForRelease(call: Call, world: World, portId: string, isOwn: boolean): Promise<PortPool | undefined> {
  // First, because the call may bring what the journal only names.
  const brought = await tryBring(call, world)
  const open = await poolOfKnown(world, portId).catch((error: unknown) => {
    if (!isOwn || 'error' in brought) throw error
    return undefined
  })
  const known = findKnownPort(world.journal, portId)
  if (open !== undefined || known === undefined || !isOwn) return open
  if ('error' in brought) throw brought.error
  return poolFor(world, { portId, access: brought.access, settings: known.settings })
}

async function findFaults(config: Config, call: Call, world: World): Promise<string[]> {
  const held = listOwnedAddresses(world.journal, ownerOf(call))
  const given = (call.prevResult?.ips ?? []).map(each => formatIp(parsePrefix(each.address).ip))
  const unknown = call.prevResult === undefined ? [] : held.filter(({ address }) => !given.includes(address))
  const faults = unknown.map(({ address }) => `its result does not have ${address}, which is recorded for it`)
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  for (const { portId, address } of held) {
    const port = await cloud.session.neutron.ports.get(portId, call)
    if (port === undefined) faults.push(`port ${portId} of ${address} does not exist`)
    else if (!port.fixed_ips.some(each => each.ip_address === address))
      faults.push(`port ${portId} does not have its address ${address} any more`)
    const holder = findKnownPort(world.journal, portId)?.settings.holder
    if (holder !== undefined) faults.push(...(await findUncovered(cloud.session.neutron, holder, address, call)))
  }
  return faults
}

async function examine(config: Config, world: World): Promise<void> {
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  const limits = { deadline: deadlineIn(STATUS_MS) }
  const located = await locateAgain(config, world, cloud, limits)
  const { carrier } = await findCarrier(config, world, cloud, located, limits, true)
  // The first question of the runtime, before any pod, is the time to make the reserve.
  if (world.longLived) poolOf(config, world, cloud, located, carrier).kick()
}
