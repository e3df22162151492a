// SPDX-License-Identifier: Apache-2.0

import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { findLookup, type Journal, type Limits, putLookup, withFileLock, withinLimits } from '#allocator'
import { deadlineIn, formatIp } from '#base'
import { CniError, codes } from '#cni'
import type { World } from '../../world.ts'
import type { Config } from './config.ts'
import { findPlace, type HostInterface, type Place } from './host-port.ts'
import type { OpenedCloud } from './sessions.ts'

/** Port and subnets of a node hardly ever change; what has changed shows itself by an error, too. */
const PLACE_MS = 300_000
/** The longest that a look takes which several callers share. */
const LOOK_MS = 60_000

export type Located = {
  readonly place: Place
  readonly uplink: HostInterface | undefined
  /** What `forgetLookup` takes when the place is not true any more. */
  readonly lookup: string
}

/** Where the addresses of this node's pods come from: as it was found before, or found now. @throws {CniError} @throws {OpenStackError} */
export async function locate(config: Config, world: World, cloud: OpenedCloud, limits: Limits): Promise<Located> {
  const uplink = await findHostInterface(config, world)
  const lookup = lookupOf(config, cloud, uplink)
  const look = (within: Limits) => lookAndKeep(config, world, cloud, uplink, within)
  const kept = keptPlace(world, lookup)
  if (kept?.isFresh) return { lookup, uplink, place: kept.place }
  if (!world.longLived) return { lookup, uplink, place: await lookInTurn(world, lookup, look, limits) }
  if (kept === undefined) return { lookup, uplink, place: await lookTogether(world, lookup, look, limits) }
  // A pod does not wait for what is most likely still true.
  void lookTogether(world, lookup, look, { deadline: deadlineIn(LOOK_MS) }).catch(() => {})
  return { lookup, uplink, place: kept.place }
}

/** The place as it is now, whatever was found before. */
export async function lookAgain(config: Config, world: World, cloud: OpenedCloud, limits: Limits): Promise<Located> {
  const uplink = await findHostInterface(config, world)
  const place = await lookAndKeep(config, world, cloud, uplink, limits)
  return { lookup: lookupOf(config, cloud, uplink), uplink, place }
}

async function lookAndKeep(
  config: Config,
  world: World,
  cloud: OpenedCloud,
  uplink: HostInterface | undefined,
  limits: Limits,
): Promise<Place> {
  const place = await findPlace(cloud.session.neutron, config.neutronConf, uplink, limits)
  putLookup(world.journal, lookupOf(config, cloud, uplink), JSON.stringify(place))
  return place
}

function keptPlace(world: World, lookup: string): { place: Place; isFresh: boolean } | undefined {
  const kept = findLookup(world.journal, lookup)
  if (kept === undefined) return undefined
  return { place: JSON.parse(kept.place) as Place, isFresh: Date.now() - kept.lookedMs < PLACE_MS }
}

const flights = new WeakMap<Journal, Map<string, Promise<Place>>>()

/**
 * One looks, and all callers of this process take what it found, or its failure: a hundred pods that start at once would
 * otherwise ask Neutron three hundred questions before the first gets an address.
 */
function lookTogether(
  world: World,
  lookup: string,
  look: (limits: Limits) => Promise<Place>,
  limits: Limits,
): Promise<Place> {
  const all = flights.get(world.journal) ?? new Map<string, Promise<Place>>()
  flights.set(world.journal, all)
  const flight = all.get(lookup) ?? look({ deadline: deadlineIn(LOOK_MS) }).finally(() => all.delete(lookup))
  all.set(lookup, flight)
  return withinLimits(flight, limits, 'find the Neutron port of the host interface')
}

/** The same between processes that live for one call. */
async function lookInTurn(
  world: World,
  lookup: string,
  look: (limits: Limits) => Promise<Place>,
  limits: Limits,
): Promise<Place> {
  const name = createHash('sha256').update(lookup).digest('hex').slice(0, 16)
  const isKnown = () => keptPlace(world, lookup)?.isFresh === true
  const lookUnlessKnown = async () => (isKnown() ? undefined : await look(limits))
  const found = await withFileLock(join(world.dataDir, `lookup-${name}.lock`), lookUnlessKnown, limits, isKnown)
  return found ?? keptPlace(world, lookup)!.place
}

async function findHostInterface({ neutronConf }: Config, world: World): Promise<HostInterface | undefined> {
  const { hostInterface: name, hostPort } = neutronConf
  const uplink = await world.host.findUplink({ name })
  if (uplink !== undefined || hostPort !== undefined) return uplink
  throw name === undefined
    ? new CniError(codes.invalidConfig, 'Cannot find the host interface: the node has no default route', {
        details: 'name the NIC in "neutronConf.hostInterface", or its Neutron port in "neutronConf.hostPort"',
      })
    : new CniError(codes.invalidConfig, `Cannot find host interface "${name}"`, {
        details:
          '"neutronConf.hostInterface" names a NIC of the node (ip link); left out, it is that of the default route',
      })
}

/** Everything that the answer depends on. */
function lookupOf({ neutronConf }: Config, { access }: OpenedCloud, uplink: HostInterface | undefined): string {
  const { networks, hostPort, ipVersions } = neutronConf
  const addresses = uplink?.addresses.map(({ ip }) => formatIp(ip)).sort()
  return JSON.stringify([access, networks, hostPort, ipVersions, uplink?.name, uplink?.mac.join('.'), addresses])
}
