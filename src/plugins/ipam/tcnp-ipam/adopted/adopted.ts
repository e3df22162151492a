// SPDX-License-Identifier: Apache-2.0

import { hostname } from 'node:os'
import {
  type CloudObject,
  findObjectPool,
  listObjectPools,
  listOwnedObjects,
  nameOfMark,
  type ObjectPool,
} from '#allocator'
import { type Call, CniError, codes } from '#cni'
import type { Port } from '#openstack'
import type { World } from '../../../world.ts'
import type { Choice } from '../choice.ts'
import type { Config } from '../config.ts'
import { findNamedPort, findNetworks, type Place } from '../host-port.ts'
import { objectPoolFor, objectReleases } from '../object-pools.ts'
import { locate } from '../place.ts'
import { findNotPassing, isPassing, type Passing } from '../separate/with-pairs.ts'
import type { OpenedCloud } from '../sessions.ts'
import { type Given, ownerOf, type Source } from '../source.ts'
import { dnsOf, resultIp, toPlaceSubnet } from '../subnets.ts'
import { type AdoptedPort, KIND } from './driver.ts'

/** A port that exists and that a pod names: it is the attachment's while that lives, and its owner's afterwards, as it was. */
export const adopted: Omit<Source, 'examine'> = {
  acquire,
  ...objectReleases(KIND),
  holds: (owner, world) => heldBy(owner, world).length > 0,
  findFaults,
}

async function acquire(config: Config, call: Call, world: World, choice: Choice): Promise<Given> {
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  const { neutron } = cloud.session
  const port = await findChosen(cloud, choice, call)
  const subnets = await neutron.subnets.list({ network_id: port.network_id }, call)
  const special: AdoptedPort = { portId: port.id }
  const host = isPassing(config) ? (await locate(config, world, cloud, call)).place : undefined
  if (host !== undefined && host.networkId !== port.network_id)
    throw new CniError(
      codes.invalidConfig,
      `Cannot let the addresses of port ${port.id} pass at port ${host.portId} of the node: it is on another network`,
    )
  const { addresses } = await poolOf(config, world, cloud, host).acquire(ownerOf(call), call, {
    special: JSON.stringify(special),
  })
  const used = addresses.map(({ subnetId, address }) => {
    const subnet = subnets.find(each => each.id === subnetId)!
    return { address, subnet: toPlaceSubnet(subnet, 'network') }
  })
  return {
    ips: used.map(({ address, subnet }) => resultIp(address, subnet)),
    dns: dnsOf(used.map(each => each.subnet)),
  }
}

/** The port that is named: on the operator's networks, unless the operator names this very port. */
async function findChosen({ session: { neutron } }: OpenedCloud, choice: Choice, call: Call): Promise<Port> {
  const key = choice.chosen.port!
  const wanted = { networks: choice.networks, key: 'neutronConf.networks' }
  if (choice.networks.length === 0 && !choice.portAnywhere)
    throw new CniError(
      codes.invalidConfig,
      `Cannot use port "${choice.port}" of "${key}": "neutronConf.networks" does not say on which networks it may be`,
      { details: `name them there, or allow this very port: "port:${choice.port}"` },
    )
  const networks = choice.portAnywhere ? undefined : await findNetworks(neutron, wanted, call)
  const port = await findNamedPort(neutron, { name: choice.port!, key }, { networks, key: wanted.key }, call)
  if (port.fixed_ips.length > 0) return port
  throw new CniError(codes.invalidConfig, `Cannot use port "${choice.port}" of "${key}": it has no address`)
}

function poolOf(
  { neutronConf }: Config,
  world: World,
  { access }: OpenedCloud,
  host: Pick<Place, 'portId'> | undefined,
): ObjectPool {
  const { cluster, node = hostname(), max, dataDir, maxAddressPairs: pairsMax, verifyAfterMs } = neutronConf
  const passing: Passing | undefined = host === undefined ? undefined : { portId: host.portId, pairsMax, verifyAfterMs }
  const usableAfterMs = passing === undefined ? 0 : neutronConf.usableAfterMs
  const settings = { name: 'ports that pods choose', reserve: 0, max, usableAfterMs, coolDownMs: 0, idleMs: 0 }
  return objectPoolFor(world, {
    pool: JSON.stringify([KIND, access, cluster, node, ...(passing === undefined ? [] : [passing.portId])]),
    kind: KIND,
    access,
    detail: passing === undefined ? '' : JSON.stringify(passing),
    settings: { ...settings, lockDirectory: dataDir ?? world.dataDir },
  })
}

function heldBy(owner: ReturnType<typeof ownerOf>, { journal }: World): CloudObject[] {
  const ours = new Set(listObjectPools(journal).flatMap(({ kind, pool }) => (kind === KIND ? [pool] : [])))
  return listOwnedObjects(journal, owner).filter(({ pool }) => ours.has(pool))
}

async function findFaults(config: Config, call: Call, world: World): Promise<string[]> {
  const cloud = await world.clouds.open(config.cloud, { dataDir: config.neutronConf.dataDir })
  const faults: string[] = []
  for (const { id, mark, addresses, pool } of heldBy(ownerOf(call), world)) {
    const port = await cloud.session.neutron.ports.get(id, call)
    const lost = addresses.filter(({ address }) => !port?.fixed_ips.some(each => each.ip_address === address))
    if (port === undefined) faults.push(`its port ${id} does not exist`)
    else if (port.device_id !== nameOfMark(mark))
      faults.push(
        `its port ${id} was taken from it (device_owner "${port.device_owner}", device_id "${port.device_id}")`,
      )
    else if (lost.length > 0)
      faults.push(`its port ${id} does not have ${lost.map(each => each.address).join(', ')} any more`)
    const { detail } = findObjectPool(world.journal, pool)!
    const passing = detail === '' ? undefined : (JSON.parse(detail) as Passing)
    const own = addresses.map(each => each.address)
    faults.push(...(await findNotPassing(cloud.session.neutron, passing, own, call)))
  }
  return faults
}
