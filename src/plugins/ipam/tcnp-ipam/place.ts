// SPDX-License-Identifier: Apache-2.0

import type { Limits } from '#allocator'
import { formatIp } from '#base'
import { CniError, codes } from '#cni'
import type { World } from '../../world.ts'
import type { Choice } from './choice.ts'
import type { Config } from './config.ts'
import { findPlace, type HostInterface, type Place, type WantedNetworks } from './host-port.ts'
import { type Look, lookAgain, lookUp } from './lookup.ts'
import type { OpenedCloud } from './sessions.ts'

/** Counts the changes of `Place`: what an earlier release kept is not read. */
const PLACE_FORM = 3

export type Located = {
  readonly place: Place
  readonly uplink: HostInterface | undefined
  /** What `forgetLookup` takes when the place is not true any more. */
  readonly lookup: string
}

/**
 * Where the addresses of this node's pods come from: as it was found before, or found now.
 * @param choice what an attachment chose; without it, the operator's networks.
 * @throws {CniError}
 * @throws {OpenStackError}
 */
export async function locate(
  config: Config,
  world: World,
  cloud: OpenedCloud,
  limits: Limits,
  choice?: Pick<Choice, 'networks' | 'chosen'>,
): Promise<Located> {
  const uplink = await findHostInterface(config, world)
  const look = lookFor(config, cloud, uplink, networksOf(config, choice))
  return { lookup: look.lookup, uplink, place: await lookUp(world, look, limits) }
}

/** The place as it is now, whatever was found before. */
export async function locateAgain(config: Config, world: World, cloud: OpenedCloud, limits: Limits): Promise<Located> {
  const uplink = await findHostInterface(config, world)
  const look = lookFor(config, cloud, uplink, networksOf(config))
  return { lookup: look.lookup, uplink, place: await lookAgain(world, look, limits) }
}

/** The networks that an attachment chose, or the operator's. */
export const networksOf = (
  { neutronConf }: Pick<Config, 'neutronConf'>,
  choice?: Pick<Choice, 'networks' | 'chosen'>,
): WantedNetworks => ({
  networks: choice?.networks ?? neutronConf.networks,
  key: choice?.chosen.networks ?? 'neutronConf.networks',
})

const lookFor = (
  config: Config,
  cloud: OpenedCloud,
  uplink: HostInterface | undefined,
  networks: WantedNetworks,
): Look<Place> => ({
  lookup: lookupOf(config, cloud, uplink, networks),
  action: 'find the Neutron port of the host interface',
  look: limits => findPlace(cloud.session.neutron, config.neutronConf.hostPort, networks, uplink, limits),
})

/** The node's NIC that the configuration names, or that of the default route; undefined where a port is named instead. @throws {CniError} 7 */
export async function findHostInterface(
  { neutronConf }: Pick<Config, 'neutronConf'>,
  world: World,
): Promise<HostInterface | undefined> {
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
function lookupOf(
  { neutronConf }: Config,
  { access }: OpenedCloud,
  uplink: HostInterface | undefined,
  { networks }: WantedNetworks,
): string {
  const { hostPort } = neutronConf
  const addresses = uplink?.addresses.map(({ ip }) => formatIp(ip)).sort()
  return JSON.stringify([PLACE_FORM, access, networks, hostPort, uplink?.name, uplink?.mac.join('.'), addresses])
}
