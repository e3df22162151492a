// SPDX-License-Identifier: Apache-2.0

import {
  AllocationError,
  breakObject,
  type CloudObject,
  countObjects,
  findObjectPool,
  forgetLookup,
  type Limits,
  lateFor,
  listOwnedObjects,
  type ObjectPool,
  releaseObjectsOf,
} from '#allocator'
import { deadlineIn, formatIp, isPast, parseIp, parsePrefix } from '#base'
import { type Call, CniError, codes } from '#cni'
import { isMissing, OpenStackError } from '#openstack'
import type { World } from '../../../world.ts'
import type { Choice } from '../choice.ts'
import type { Config } from '../config.ts'
import { type Look, lookAgain, lookUp } from '../lookup.ts'
import { objectPoolFor, objectReleases } from '../object-pools.ts'
import type { SiteNetwork } from '../separate/site.ts'
import { type Given, ownerOf, type Source } from '../source.ts'
import { dnsOf, type PlaceSubnet, resultIp } from '../subnets.ts'
import { type Candidate, candidatesOf, operatorsChoice } from './candidates.ts'
import { ENI, nicDriverOf } from './driver-of.ts'
import { awaitLink } from './link.ts'
import type { NicPool } from './port.ts'
import { lookForSite, type Site } from './site.ts'

const STATUS_MS = 5_000
/** A NIC whose last pod died without DEL is on its way back to the node: from the end of the pod's namespace until then. */
const RETURN_MS = 3_000
/** NICs without a link that one ADD passes over. */
const PASSED_MAX = 3
/** A NIC of the server for each pod, attached ahead by Nova; its addresses are those of the NIC's own port. */
export const eni: Source = {
  acquire,
  ...objectReleases(ENI),
  holds: (owner, { journal }) => heldBy(owner, journal).length > 0,
  findFaults,
  examine,
}

const heldBy = (owner: Parameters<Source['holds']>[0], journal: World['journal']): CloudObject[] =>
  listOwnedObjects(journal, owner).filter(({ pool }) => findObjectPool(journal, pool)?.kind === ENI)

async function acquire(config: Config, call: Call, world: World, choice: Choice): Promise<Given> {
  refuseChoice(choice)
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  const look = await lookForSite(config, world, cloud, choice)
  try {
    const site = await lookUp(world, look, call)
    const candidates = candidatesOf(config, world, cloud, { site, choice })
    const returnMs = Math.min(RETURN_MS, config.neutronConf.plugMs)
    return await takeFirst(candidates, async ({ network, known, special }) => {
      const pool = objectPoolFor(world, known)
      const { nic, name } = await takeNic(pool, call, world, { special, returnMs })
      try {
        return givenOf(nic, name, await subnetsOf(nic, network, world, look, call))
      } catch (error) {
        giveBack(pool, call, world)
        throw error
      }
    })
  } catch (error) {
    // The server was rebuilt, or the network is gone: the next call looks for them afresh.
    if (isMissing(error)) forgetLookup(world.journal, look.lookup)
    throw error
  }
}

/** Of the first network that has an address. */
async function takeFirst(
  candidates: readonly Candidate[],
  take: (candidate: Candidate) => Promise<Given>,
): Promise<Given> {
  for (const [index, candidate] of candidates.entries())
    try {
      return await take(candidate)
    } catch (error) {
      // The server's own limit is the same for all networks.
      const isNetworkFull = error instanceof AllocationError && error.cause instanceof OpenStackError
      if (!isNetworkFull || index === candidates.length - 1) throw error
    }
  throw new Error('there is a last candidate, and it returns or throws')
}

/** An existing port has no mark of ours, so nobody could tell after a crash that it was attached for a pod. */
function refuseChoice({ port, chosen }: Choice): void {
  if (port !== undefined)
    throw new CniError(codes.invalidConfig, `Cannot do what "${chosen.port}" says in mode "eni": it makes its ports`, {
      details: 'mode "separate" takes a port that exists',
    })
}

/** A NIC whose link is on the node; others go to quarantine. */
async function takeNic(
  pool: ObjectPool,
  call: Call,
  world: World,
  { special, returnMs }: { special: string; returnMs: number },
): Promise<{ nic: CloudObject; name: string }> {
  for (let passed = 0; ; passed++) {
    const nic = await pool.acquire(ownerOf(call), call, { special })
    const name = await awaitLink(world.host, nic.mac, call, returnMs)
    if (name !== undefined) return { nic, name }
    // Whoever is not waited for any more has not seen that it does not come.
    if (isPast(call.deadline) || call.signal.aborted) {
      giveBack(pool, call, world)
      throw lateFor('a NIC', 'the kernel', ownerOf(call), call)
    }
    const flaw = `port ${nic.id} (${nic.mac}) was given to ${call.ifName} of container ${call.containerId}, and no link of the node has this MAC any more`
    breakObject(world.journal, nic.mark, flaw)
    if (passed + 1 >= PASSED_MAX)
      throw new AllocationError('broken', `Cannot take a NIC: ${flaw}`, {
        remedy: 'see ip link and "mooring ip list"; a virtual link that died with its namespace does not come back',
      })
  }
}

function giveBack(pool: ObjectPool, call: Call, world: World): void {
  releaseObjectsOf(world.journal, ENI, ownerOf(call))
  if (world.longLived) pool.kick()
}

/** The subnets of a NIC's addresses; asked for again where the network has got one since it was looked at. */
async function subnetsOf(
  nic: CloudObject,
  network: SiteNetwork,
  world: World,
  look: Look<Site>,
  limits: Limits,
): Promise<PlaceSubnet[]> {
  const pick = ({ subnets }: Pick<SiteNetwork, 'subnets'>) =>
    nic.addresses.map(({ subnetId }) => subnets.find(({ id }) => id === subnetId)).filter(each => each !== undefined)
  const found = pick(network)
  if (found.length === nic.addresses.length) return found
  const { networks } = await lookAgain(world, look, limits)
  return pick({ subnets: networks.flatMap(each => each.subnets) })
}

function givenOf({ addresses, mac }: CloudObject, name: string, subnets: readonly PlaceSubnet[]): Given {
  const ips = addresses.flatMap(({ subnetId, address }) => {
    const subnet = subnets.find(({ id }) => id === subnetId)
    return subnet === undefined ? [] : [{ ...resultIp(address, subnet), interface: 0 }]
  })
  return { interfaces: [{ name, mac }], ips, dns: dnsOf(subnets) }
}

async function findFaults(config: Config, call: Call, world: World): Promise<string[]> {
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  const given = (call.prevResult?.ips ?? []).map(each => formatIp(parsePrefix(each.address).ip))
  const faults: string[] = []
  for (const { id, mac, addresses, pool } of heldBy(ownerOf(call), world.journal)) {
    const { server } = JSON.parse(findObjectPool(world.journal, pool)!.detail) as NicPool
    const own = addresses.map(({ address }) => formatIp(parseIp(address)))
    if (call.prevResult !== undefined)
      for (const address of own.filter(each => !given.includes(each)))
        faults.push(`its result does not have ${address}, which is recorded for it`)
    const port = await cloud.session.neutron.ports.get(id, call)
    if (port === undefined) {
      faults.push(`its port ${id} does not exist`)
      continue
    }
    if (port.device_id !== server.id)
      faults.push(`its port ${id} is not attached to server ${server.name} (${server.id}) any more`)
    if (port.mac_address.toLowerCase() !== mac)
      faults.push(`its port ${id} has MAC ${port.mac_address} instead of ${mac}`)
    const present = port.fixed_ips.map(each => each.ip_address)
    for (const { address } of addresses)
      if (!present.includes(address)) faults.push(`its port ${id} does not have its address ${address} any more`)
  }
  return faults
}

async function examine(config: Config, world: World): Promise<void> {
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  const limits = { deadline: deadlineIn(STATUS_MS) }
  const choice = operatorsChoice(config)
  const site = await lookAgain(world, await lookForSite(config, world, cloud, choice), limits)
  const { known } = candidatesOf(config, world, cloud, { site, choice })[0]!
  const counts = countObjects(world.journal, known.pool)
  // A node whose NICs are all in use is full, not broken: what a NotReady node costs, the eviction of its pods, helps nobody.
  if (Object.values(counts).every(count => count === 0)) {
    const room = await nicDriverOf(known, world, cloud.session, () => {}).room?.(limits)
    if (room?.count === 0)
      throw new CniError(codes.addressUnavailable, `Cannot attach a NIC: ${room.text}`, {
        details: 'delete a pod that has one, detach a NIC that nobody uses, or raise "neutronConf.maxNics"',
      })
  }
  // The first question of the runtime, before any pod, is the time to make the reserve.
  if (world.longLived) objectPoolFor(world, known).kick()
}
