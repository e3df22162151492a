// SPDX-License-Identifier: Apache-2.0

import { hostname } from 'node:os'
import {
  AllocationError,
  type CloudObject,
  findObjectPool,
  listObjectPools,
  listOwnedObjects,
  type ObjectPool,
} from '#allocator'
import { deadlineIn, formatIp, parsePrefix } from '#base'
import { type Call, CniError, codes } from '#cni'
import { OpenStackError } from '#openstack'
import type { World } from '../../../world.ts'
import { adopted } from '../adopted/adopted.ts'
import { type Choice, isSpecial } from '../choice.ts'
import type { Config } from '../config.ts'
import type { Place } from '../host-port.ts'
import { lookAgain, lookUp } from '../lookup.ts'
import { objectPoolFor, objectReleases } from '../object-pools.ts'
import { locate, locateAgain } from '../place.ts'
import type { OpenedCloud } from '../sessions.ts'
import { type Given, ownerOf, type Source } from '../source.ts'
import { dnsOf, type Family, familiesOf, resultIp } from '../subnets.ts'
import { explainTaken } from '../unavailable.ts'
import { MODE, type PortPlace, type SpecialPort } from './driver.ts'
import { lookForSite, type Site, type SiteNetwork } from './site.ts'
import { findNotPassing, isPassing } from './with-pairs.ts'

const STATUS_MS = 5_000

/** Each attachment has a Neutron port of its own: one address pool for VMs and pods, also beside OpenStack on bare metal. */
export const separate: Source = {
  acquire,
  ...objectReleases(MODE),
  holds: (owner, world) => heldBy(owner, world).length > 0,
  findFaults,
  examine,
}

function heldBy(owner: ReturnType<typeof ownerOf>, { journal }: World): CloudObject[] {
  const ours = new Set(listObjectPools(journal).flatMap(({ kind, pool }) => (kind === MODE ? [pool] : [])))
  return listOwnedObjects(journal, owner).filter(({ pool }) => ours.has(pool))
}

async function acquire(config: Config, call: Call, world: World, choice: Choice): Promise<Given> {
  if (choice.port !== undefined) return await adopted.acquire(config, call, world, choice)
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  const site = await lookUp(world, lookForSite(cloud, choice), call)
  const host = isPassing(config) ? (await locate(config, world, cloud, call, choice)).place : undefined
  const candidates = candidatesOf(site, config, choice, host)
  for (const [index, candidate] of candidates.entries()) {
    const pool = poolOf(config, world, cloud, { site, choice, host, ...candidate })
    try {
      const port = await pool.acquire(ownerOf(call), call, { special: candidate.special })
      return toGiven(port, candidate)
    } catch (error) {
      if (error instanceof OpenStackError && error.type === 'IpAddressAlreadyAllocated')
        throw await explainTaken(
          error,
          { networkId: candidate.network.id, addresses: choice.addresses },
          cloud.session.neutron,
          call,
        )
      // The next network is for when this one has no room.
      const isFull = error instanceof AllocationError && error.fault === 'full'
      if (!isFull || index === candidates.length - 1) throw error
    }
  }
  throw new Error('there is a last candidate, and it returns or throws')
}

type Candidate = {
  readonly network: SiteNetwork
  readonly families: readonly Family[]
  /** What the attachment asks for beyond the pool; empty for one that takes any port of it. */
  readonly special: string
}

/** The networks that can serve the attachment, in order of preference. Past the node's port come addresses of its own network only. */
function candidatesOf(
  { networks }: Site,
  { neutronConf }: Config,
  choice: Choice,
  host: Place | undefined,
): Candidate[] {
  const failures: unknown[] = []
  const near = host === undefined ? networks : networks.filter(({ id }) => id === host.networkId)
  const found = near.flatMap(network => {
    const what = `network "${network.name}" (${network.id})`
    const elsewhere = networks.flatMap(each => (each === network ? [] : each.subnets))
    try {
      const { ipVersions } = neutronConf
      const options = { all: network.subnets, usual: network.subnets, choice, ipVersions, what, elsewhere }
      const special = specialOf(choice, familiesOf(options))
      return [{ network, families: familiesOf({ ...options, choice: { ...choice, addresses: [] } }), special }]
    } catch (error) {
      failures.push(error)
      return []
    }
  })
  if (near.length === 0)
    throw new CniError(
      codes.invalidConfig,
      `Cannot let addresses pass at port ${host!.portId} of the node: it is on none of the networks of the pods`,
      { details: 'name its network in "neutronConf.networks", or another binding than "allowed_address_pairs"' },
    )
  if (found.length === 0) throw failures[0]
  return found
}

function specialOf(choice: Choice, families: readonly Family[]): string {
  if (!isSpecial(choice)) return ''
  const addresses = families.flatMap(({ address, subnets }) =>
    address === undefined ? [] : [[subnets[0]!.id, address]],
  )
  const special: SpecialPort = { addresses: Object.fromEntries(addresses), mac: choice.mac }
  return JSON.stringify(special)
}

type PoolFacts = Candidate & {
  readonly site: Site
  readonly host: Place | undefined
  readonly choice: Pick<Choice, 'portSecurity' | 'chosen'>
}

function poolOf(config: Config, world: World, { access }: OpenedCloud, facts: PoolFacts): ObjectPool {
  const { cluster, node = hostname(), max, coolDownMs, idleMs, usableAfterMs, dataDir } = config.neutronConf
  const { binding, host = node, maxAddressPairs: pairsMax, verifyAfterMs, retryFullMs } = config.neutronConf
  const { network, families, site, choice } = facts
  const portId = facts.host?.portId
  const place: PortPlace = {
    owner: { cluster, node },
    networkId: network.id,
    families: families.map(each => each.subnets),
    securityGroups: choice.portSecurity === false ? [] : site.securityGroups,
    portSecurity: choice.portSecurity,
    keepsTags: site.keepsTags,
    takesSeveral: !network.subnets.some(each => each.isAutomatic),
    boundTo: binding === 'host' ? host : undefined,
    passing: portId === undefined ? undefined : { portId, pairsMax, verifyAfterMs },
    retryFullMs,
  }
  const pool = keyOf(access, place)
  return objectPoolFor(world, {
    pool,
    kind: MODE,
    access,
    detail: JSON.stringify(place),
    settings: {
      name: `ports of network "${network.name}"`,
      reserve: reserveOf(config, world, pool, choice),
      max,
      // Where nothing on the node's side passes or drops, an address works when Neutron has answered.
      usableAfterMs: binding === 'fixed_ips' ? 0 : usableAfterMs,
      coolDownMs,
      idleMs,
      lockDirectory: dataDir ?? world.dataDir,
    },
  })
}

/** The reserve is the operator's: what one pod chose needs none. */
function reserveOf({ neutronConf }: Config, { journal }: World, pool: string, { chosen }: PoolFacts['choice']): number {
  const isOperators = (['networks', 'subnets', 'securityGroups', 'portSecurity'] as const).every(
    each => chosen[each] === undefined,
  )
  return isOperators ? neutronConf.reserve : (findObjectPool(journal, pool)?.settings.reserve ?? 0)
}

/** What makes the ports of two pools different. */
function keyOf(access: string, place: PortPlace): string {
  const { owner, networkId, families, securityGroups, portSecurity, boundTo, passing } = place
  const subnets = families.map(each => each.map(({ id }) => id))
  const where = [access, owner.cluster, owner.node, networkId, subnets, boundTo, passing?.portId]
  return JSON.stringify([MODE, ...where, securityGroups, portSecurity])
}

/** A port may have more addresses than were asked for: Neutron adds that of a SLAAC subnet by itself. */
function toGiven(port: CloudObject, { families, special }: Pick<Candidate, 'families' | 'special'>): Given {
  const { addresses }: Pick<SpecialPort, 'addresses'> = special === '' ? { addresses: {} } : JSON.parse(special)
  const used = families.map(({ version, subnets }) => {
    const chosen = subnets.filter(({ id }) => addresses[id] !== undefined)
    for (const subnet of chosen.length > 0 ? chosen : subnets) {
      const found = port.addresses.find(({ subnetId }) => subnetId === subnet.id)
      if (found !== undefined) return { subnet, address: found.address }
    }
    throw new AllocationError('strange', `Cannot use port ${port.id}: Neutron gave it no IPv${version} address`)
  })
  return {
    ips: used.map(({ address, subnet }) => resultIp(address, subnet)),
    dns: dnsOf(used.map(({ subnet }) => subnet)),
  }
}

async function findFaults(config: Config, call: Call, world: World): Promise<string[]> {
  const given = (call.prevResult?.ips ?? []).map(each => formatIp(parsePrefix(each.address).ip))
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  const faults: string[] = []
  for (const { id, addresses, pool } of heldBy(ownerOf(call), world)) {
    const own = addresses.map(each => each.address)
    if (call.prevResult !== undefined && !own.some(each => given.includes(each)))
      faults.push(`its result does not have ${own.join(', ')}, which is recorded for it`)
    const port = await cloud.session.neutron.ports.get(id, call)
    const lost = own.filter(address => !port?.fixed_ips.some(each => each.ip_address === address))
    if (port === undefined) faults.push(`its port ${id} (${own.join(', ')}) does not exist`)
    else if (lost.length > 0) faults.push(`its port ${id} does not have ${lost.join(', ')} any more`)
    const { passing } = JSON.parse(findObjectPool(world.journal, pool)!.detail) as PortPlace
    faults.push(...(await findNotPassing(cloud.session.neutron, passing, own, call)))
  }
  return faults
}

async function examine(config: Config, world: World): Promise<void> {
  const { networks, securityGroups, portSecurity, subnets } = config.neutronConf
  const usual = { networks, securityGroups, portSecurity, subnets, addresses: [], mac: undefined, port: undefined }
  const choice: Choice = { ...usual, chosen: {}, portAnywhere: false }
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  const limits = { deadline: deadlineIn(STATUS_MS) }
  const site = await lookAgain(world, lookForSite(cloud, choice), limits)
  const host = isPassing(config) ? (await locateAgain(config, world, cloud, limits)).place : undefined
  const [first] = candidatesOf(site, config, choice, host)
  // The first question of the runtime, before any pod, is the time to make the reserve.
  if (world.longLived) poolOf(config, world, cloud, { site, choice, host, ...first! }).kick()
}
