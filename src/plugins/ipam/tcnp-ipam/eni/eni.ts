// SPDX-License-Identifier: Apache-2.0

import { createHash } from 'node:crypto'
import {
  AllocationError,
  breakObject,
  type CloudObject,
  countObjects,
  findObjectPool,
  forgetLookup,
  type Limits,
  listOwnedObjects,
  type ObjectPool,
} from '#allocator'
import { deadlineIn, formatIp, parseIp, parsePrefix } from '#base'
import { type Call, CniError, codes } from '#cni'
import { isMissing } from '#openstack'
import type { World } from '../../../world.ts'
import type { Choice } from '../choice.ts'
import type { Config } from '../config.ts'
import { type Look, lookAgain, lookUp } from '../lookup.ts'
import { objectPoolFor, objectReleases } from '../object-pools.ts'
import type { OpenedCloud } from '../sessions.ts'
import { type Given, ownerOf, type Source } from '../source.ts'
import { dnsOf, familiesOf, type PlaceSubnet, resultIp } from '../subnets.ts'
import { ENI, nicDriverOf } from './driver-of.ts'
import { awaitLink } from './link.ts'
import type { NicPool, SpecialNic } from './port.ts'
import { lookForSite, type Site } from './site.ts'

const STATUS_MS = 5_000
/** A NIC whose last pod died without DEL is on its way back to the node: from the end of the pod's namespace until then. */
const RETURN_MS = 3_000
/** NICs without a link that one ADD passes over. */
const PASSED_MAX = 3
/** What a NIC whose pod is gone, and that is above the reserve, waits for the next pod. */
const IDLE_MS = 600_000

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
    const pool = objectPoolFor(world, poolOf(config, world, cloud, site, choice))
    const { nic, name } = await takeNic(pool, call, world, {
      special: specialOf(config, site, choice),
      returnMs: Math.min(RETURN_MS, config.neutronConf.plugMs),
    })
    return givenOf(nic, name, await subnetsOf(nic, site, world, look, call))
  } catch (error) {
    // The server was rebuilt, or the network is gone: the next call looks for them afresh.
    if (isMissing(error)) forgetLookup(world.journal, look.lookup)
    throw error
  }
}

/** An existing port has no mark of ours, so nobody could tell after a crash that it was attached for a pod. */
function refuseChoice({ port, chosen }: Choice): void {
  if (port !== undefined)
    throw new CniError(codes.invalidConfig, `Cannot do what "${chosen.port}" says in mode "eni": it makes its ports`, {
      details: 'mode "separate" takes a port that exists',
    })
}

function specialOf(config: Config, site: Site, choice: Choice): string {
  if (choice.addresses.length === 0 && choice.mac === undefined) return ''
  const addresses = familiesAt(config, site, choice).flatMap(({ subnets: [subnet], address }) =>
    address === undefined ? [] : { subnetId: subnet!.id, address },
  )
  return JSON.stringify({ addresses, mac: choice.mac } satisfies SpecialNic)
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
    const flaw = `port ${nic.id} (${nic.mac}) was given to ${call.ifName} of container ${call.containerId}, and no link of the node has this MAC any more`
    breakObject(world.journal, nic.mark, flaw)
    if (passed + 1 >= PASSED_MAX)
      throw new AllocationError('broken', `Cannot take a NIC: ${flaw}`, {
        remedy: 'see ip link and "mooring ip list"; a virtual link that died with its namespace does not come back',
      })
  }
}

function poolOf(config: Config, world: World, cloud: OpenedCloud, site: Site, choice: Choice): WantedPool {
  const { reserve, coolDownMs, dataDir, plugMs } = config.neutronConf
  const { subnets: _, ...rest } = site
  const nicPool: NicPool = {
    ...rest,
    families: familiesAt(config, site, { ...choice, addresses: [] }),
    securityGroups: choice.securityGroups,
    portSecurity: choice.portSecurity,
    description: `Mooring NIC of server ${site.server.id}`,
    plugMs,
  }
  return {
    pool: keyOf(cloud, nicPool),
    kind: ENI,
    access: cloud.access,
    detail: JSON.stringify(nicPool),
    settings: {
      name: `NICs on network "${site.network.name}"`,
      // What one pod chose needs none.
      reserve: isUsual(config, choice) ? reserve : 0,
      max: site.nicsMax,
      // Made when the port passes packets.
      usableAfterMs: 0,
      coolDownMs,
      idleMs: IDLE_MS,
      lockDirectory: dataDir ?? world.dataDir,
    },
  }
}

type WantedPool = Parameters<typeof objectPoolFor>[1]

const isUsual = (config: Config, choice: Choice) => poolWords(choice) === poolWords(operatorsChoice(config))
const poolWords = ({ networks, subnets, securityGroups, portSecurity }: Choice) =>
  JSON.stringify([networks, subnets, securityGroups, portSecurity])

/** The same for the same NICs, whatever they are called and however many there may be. */
function keyOf({ access }: OpenedCloud, { server, network, families, securityGroups, portSecurity }: NicPool): string {
  const subnets = families.map(each => each.subnets.map(({ id }) => id))
  const what = JSON.stringify([access, server.id, network.id, subnets, securityGroups, portSecurity])
  return `${ENI}-${createHash('sha256').update(what).digest('hex').slice(0, 24)}`
}

function familiesAt({ neutronConf }: Config, { network, subnets }: Site, choice: Choice) {
  const usual = [4, 6].flatMap(version => subnets.find(each => each.version === version) ?? [])
  const { ipVersions } = neutronConf
  const what = `network "${network.name}" (${network.id})`
  return familiesOf({ all: subnets, usual, choice, ipVersions, what })
}

/** The subnets of a NIC's addresses; asked for again where the network has got one since it was looked at. */
async function subnetsOf(
  nic: CloudObject,
  site: Site,
  world: World,
  look: Look<Site>,
  limits: Limits,
): Promise<PlaceSubnet[]> {
  const pick = ({ subnets }: Site) =>
    nic.addresses.map(({ subnetId }) => subnets.find(({ id }) => id === subnetId)).filter(each => each !== undefined)
  const found = pick(site)
  return found.length === nic.addresses.length ? found : pick(await lookAgain(world, look, limits))
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
  const site = await lookAgain(world, await lookForSite(config, world, cloud), limits)
  const wanted = poolOf(config, world, cloud, site, operatorsChoice(config))
  const counts = countObjects(world.journal, wanted.pool)
  // A node whose NICs are all in use is full, not broken: what a NotReady node costs, the eviction of its pods, helps nobody.
  if (Object.values(counts).every(count => count === 0)) {
    const room = await nicDriverOf(wanted, world, cloud.session, () => {}).room?.(limits)
    if (room?.count === 0)
      throw new CniError(codes.addressUnavailable, `Cannot attach a NIC: ${room.text}`, {
        details: 'delete a pod that has one, detach a NIC that nobody uses, or raise "neutronConf.maxNics"',
      })
  }
  // The first question of the runtime, before any pod, is the time to make the reserve.
  if (world.longLived) objectPoolFor(world, wanted).kick()
}

const operatorsChoice = ({ neutronConf: { networks, subnets, securityGroups, portSecurity } }: Config): Choice => ({
  networks,
  subnets,
  addresses: [],
  mac: undefined,
  port: undefined,
  securityGroups: portSecurity === false ? [] : securityGroups,
  portSecurity,
  chosen: {},
  portAnywhere: false,
})
