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
import type { Choice } from './choice.ts'
import { type Config, parseConfig } from './config.ts'
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

/** A DEL that nobody finishes in the background tries for so long, then leaves it to the next call. */
const RELEASE_MS = 20_000
const STATUS_MS = 5_000

/** Pods' addresses are further `fixed_ips` of the node's own port. */
export const mix: Source = {
  acquire,
  release: (call, world) => tellCloud(call, world, releaseOwner(world.journal, ownerOf(call))),
  releaseOthers: (call, world, isLiving, beforeMs) =>
    tellCloud(call, world, releaseOthers(world.journal, call.network, isLiving, beforeMs)),
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
  const { pool, lookup, place, families, cloud } = await open(config, world, call, choice)
  try {
    const wishes = families.map(({ subnets, address }) => ({ subnetIds: subnets.map(each => each.id), address }))
    const taken = await pool.acquire(ownerOf(call), wishes, call)
    const used = families.map(({ subnets }) => findUsed(subnets, taken))
    const ips = used.map(({ address, subnet }) => resultIp(address, subnet))
    return { ips, dns: dnsOf(used.map(each => each.subnet)) }
  } catch (error) {
    // The port was replaced, or a subnet: the next call looks for them afresh.
    if (isMissing(error) || (error instanceof AllocationError && error.fault === 'gone'))
      forgetLookup(world.journal, lookup)
    throw await explain({ error, place, families }, world.journal, cloud.session.neutron, call)
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
      `Cannot do what "${key}" says in mode "mix": all pods of a node share its port`,
      { details: 'mode "separate" makes a port for each' },
    )
  }
}

type Opened = Located & {
  readonly cloud: OpenedCloud
  readonly pool: PortPool
  readonly families: readonly Family[]
}

const NO_CHOICE = { addresses: [], chosen: {} }

async function open(config: Config, world: World, limits: Limits, choice: Choice): Promise<Opened> {
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  const located = await locate(config, world, cloud, limits, choice)
  const families = familiesAt(located.place, config, choice)
  return { ...located, cloud, families, pool: poolOf(config, world, cloud, located) }
}

/** The subnets of the port's network that serve. */
function familiesAt(
  { portId, networkSubnets }: Place,
  { neutronConf }: Config,
  choice: FamilyOptions['choice'],
): Family[] {
  const families = familiesOf({
    all: networkSubnets,
    usual: subnetsOfPort(networkSubnets),
    choice,
    ipVersions: neutronConf.ipVersions,
    what: `port ${portId}`,
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
function poolOf(config: Config, world: World, cloud: OpenedCloud, { place, uplink }: Located): PortPool {
  const { reserve, usableAfterMs, coolDownMs, retryFullMs, dataDir, subnets } = config.neutronConf
  const lists = familiesAt(place, config, { ...NO_CHOICE, subnets }).map(each => each.subnets.map(({ id }) => id))
  return poolFor(world, {
    portId: place.portId,
    access: cloud.access,
    probe: probeOf(world, place, uplink),
    settings: {
      subnetIds: lists.map(([first]) => first!),
      fallbacks: Object.fromEntries(lists.map(([first, ...others]) => [first!, others])),
      retryFullMs,
      reserve,
      usableAfterMs,
      coolDownMs,
      lockDirectory: dataDir ?? world.dataDir,
    },
  })
}

/** Asks the gateway in the address's name: it answers as soon as port security lets the question pass. */
function probeOf(world: World, { networkSubnets }: Place, uplink: HostInterface | undefined): PortProbe | undefined {
  const gateways = networkSubnets.flatMap(({ cidr, gateway }) =>
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
  }
  return faults
}

async function examine(config: Config, world: World): Promise<void> {
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  const located = await locateAgain(config, world, cloud, { deadline: deadlineIn(STATUS_MS) })
  // The first question of the runtime, before any pod, is the time to make the reserve.
  if (world.longLived) poolOf(config, world, cloud, located).kick()
}
