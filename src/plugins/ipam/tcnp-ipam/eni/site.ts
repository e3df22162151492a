// SPDX-License-Identifier: Apache-2.0

import type { Limits } from '#allocator'
import { CniError, codes } from '#cni'
import { type CloudSession, isUuid, type Network, type Port, type Server } from '#openstack'
import type { World } from '../../../world.ts'
import type { Choice } from '../choice.ts'
import type { Config } from '../config.ts'
import { findHostPort, findNetworks, type HostInterface, type WantedNetworks } from '../host-port.ts'
import type { Look } from '../lookup.ts'
import { findHostInterface, networksOf } from '../place.ts'
import { findGroups, inOrder, type SiteNetwork } from '../separate/site.ts'
import type { OpenedCloud } from '../sessions.ts'
import { toPlaceSubnet } from '../subnets.ts'

/** Where the NICs of this node's pods come from. Plain JSON, for the journal. */
export type Site = {
  /** The node itself, as Nova knows it. */
  readonly server: { readonly id: string; readonly name: string }
  /** In order of preference. */
  readonly networks: readonly SiteNetwork[]
  /** By id; undefined: what Neutron gives by itself. */
  readonly securityGroups: readonly string[] | undefined
  /** NICs that the server may have, its own and foreign ones among them. */
  readonly nicsMax: number
  /** Who says so, for messages. */
  readonly nicsMaxBy: string
}

/** As in the system that this one follows. */
const NICS_MAX_DEFAULT = 16
/** Extra specs of a flavour that say how many NICs a server may have: ours, and that of clouds that sell NICs by flavour. */
const NICS_MAX_SPECS = ['mooring:max_nics', 'quota:vif_max_num']

const invalid = (message: string, details?: string) => new CniError(codes.invalidConfig, message, { details })

/** How the site of this node is found, and what that depends on. @throws {CniError} 7 where the node has no such NIC */
export async function lookForSite(
  { neutronConf }: Config,
  world: World,
  cloud: OpenedCloud,
  choice: Pick<Choice, 'networks' | 'securityGroups' | 'chosen'>,
): Promise<Look<Site>> {
  const { server, hostPort, maxNics } = neutronConf
  const networks = networksOf({ neutronConf }, choice)
  const { securityGroups: names, chosen } = choice
  const groups = { names, key: chosen.securityGroups ?? 'neutronConf.securityGroups' }
  // Neither is needed where server and network are named.
  const isNamed = server !== undefined && networks.networks.length > 0
  const uplink = isNamed ? undefined : await findHostInterface({ neutronConf }, world)
  const nic = uplink === undefined ? undefined : [uplink.name, uplink.mac.join('.')]
  return {
    lookup: JSON.stringify(['eni', cloud.access, server, networks.networks, names, hostPort, maxNics, nic]),
    action: 'find the server of this node',
    look: limits => findSite(cloud.session, neutronConf, { networks, groups, uplink }, limits),
  }
}

type Wanted = {
  readonly networks: WantedNetworks
  readonly groups: { readonly names: readonly string[] | undefined; readonly key: string }
  readonly uplink: HostInterface | undefined
}

async function findSite(
  session: CloudSession,
  { server: named, hostPort, maxNics }: Config['neutronConf'],
  { networks, groups, uplink }: Wanted,
  limits: Limits,
): Promise<Site> {
  const { neutron, nova } = session
  const allowed = await findNetworks(neutron, networks, limits)
  const isNamed = named !== undefined && allowed !== undefined
  const port = isNamed ? undefined : await findHostPort(neutron, { hostPort, uplink, limits })
  const server = await findServer(nova, named, port, limits)
  const ordered = allowed === undefined ? [await networkOf(port!, neutron, limits)] : inOrder(allowed, networks)
  const subnets = await Promise.all(ordered.map(({ id }) => neutron.subnets.list({ network_id: id }, limits)))
  return {
    server: { id: server.id, name: server.name },
    networks: ordered.map(({ id, name }, index) => ({
      id,
      name,
      subnets: subnets[index]!.map(subnet => toPlaceSubnet(subnet, 'network')),
    })),
    securityGroups: await findGroups(session, groups, limits),
    ...(await findCapacity(nova, maxNics, server, limits)),
  }
}

async function findServer(
  nova: CloudSession['nova'],
  wanted: string | undefined,
  hostPort: Port | undefined,
  limits: Limits,
): Promise<Server> {
  if (wanted === undefined) return await serverOf(nova, hostPort!, limits)
  const byId = isUuid(wanted) ? await nova.servers.get(wanted.toLowerCase(), limits) : undefined
  const name = wanted.replaceAll(/[^\w-]/g, '\\$&')
  const found = byId === undefined ? await nova.servers.list({ name: `^${name}$` }, limits) : [byId]
  if (found.length === 1) return found[0]!
  const what = `server "${wanted}" of "neutronConf.server"`
  throw found.length === 0
    ? invalid(`Cannot find ${what}: Nova does not know it, or does not show it to this user`)
    : invalid(
        `Cannot choose ${what}: ${found.length} servers have this name`,
        `name one by its id: ${found.map(each => each.id).join(', ')}`,
      )
}

async function serverOf(nova: CloudSession['nova'], port: Port, limits: Limits): Promise<Server> {
  const remedy = 'name the server in "neutronConf.server", by id or name'
  if (port.device_id === '' || !port.device_owner.startsWith('compute:'))
    throw invalid(
      `Cannot attach NICs to this node: its port ${port.id} belongs to no server (device_owner "${port.device_owner}")`,
      remedy,
    )
  const server = await nova.servers.get(port.device_id, limits)
  if (server !== undefined) return server
  throw invalid(
    `Cannot attach NICs to this node: Nova does not show its server ${port.device_id} (of port ${port.id}) to this user`,
    `use the credentials of the server’s project, or ${remedy}`,
  )
}

async function networkOf(port: Port, neutron: CloudSession['neutron'], limits: Limits): Promise<Network> {
  const network = await neutron.networks.get(port.network_id, limits)
  if (network !== undefined) return network
  throw invalid(
    `Cannot find network ${port.network_id} of port ${port.id}: Neutron does not show it to this user`,
    'name a network in "neutronConf.networks"',
  )
}

async function findCapacity(
  nova: CloudSession['nova'],
  configured: number | undefined,
  { flavor }: Server,
  limits: Limits,
): Promise<Pick<Site, 'nicsMax' | 'nicsMaxBy'>> {
  if (configured !== undefined) return { nicsMax: configured, nicsMaxBy: '"neutronConf.maxNics"' }
  const specs = flavor?.id === undefined ? {} : await nova.servers.flavorSpecs(flavor.id, limits)
  for (const name of NICS_MAX_SPECS) {
    const value = Number(specs[name])
    if (Number.isSafeInteger(value) && value > 0) return { nicsMax: value, nicsMaxBy: `"${name}" of its flavour` }
  }
  return { nicsMax: NICS_MAX_DEFAULT, nicsMaxBy: 'the default of "neutronConf.maxNics"' }
}
