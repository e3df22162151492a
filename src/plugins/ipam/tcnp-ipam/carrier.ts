// SPDX-License-Identifier: Apache-2.0

import { hostname } from 'node:os'
import type { HolderSettings, Limits } from '#allocator'
import { formatIp, formatPrefix, networkOf, parseIp, parsePrefix, prefixContains, tryParsePrefix } from '#base'
import { CniError, codes } from '#cni'
import { isUuid, type Neutron, type Port, type Router, type Subnet } from '#openstack'
import type { World } from '../../world.ts'
import type { Config } from './config.ts'
import { ensureHolder } from './holder.ts'
import type { HostInterface, Place } from './host-port.ts'
import { type Look, lookAgain, lookUp } from './lookup.ts'
import type { Located } from './place.ts'
import type { OpenedCloud } from './sessions.ts'
import { describeSubnet, type PlaceSubnet, toPlaceSubnet } from './subnets.ts'

/** Counts the changes of `Carrier`: what an earlier release kept is not read. */
const CARRIER_FORM = 1
/** Of plain, highly available and distributed routers. */
const ROUTER_INTERFACES = [
  'network:router_interface',
  'network:ha_router_replicated_interface',
  'network:router_interface_distributed',
]

const invalid = (message: string, details?: string) => new CniError(codes.invalidConfig, message, { details })

/** The port that has the pods' addresses, the subnets they are of, and what else lets them pass. JSON: the journal keeps it. */
export type Carrier = {
  readonly portId: string
  readonly networkId: string
  readonly subnets: readonly PlaceSubnet[]
  /** Undefined where it is the node's own port. */
  readonly holder: HolderSettings | undefined
}

export type Carried = { readonly carrier: Carrier; readonly lookup: string | undefined }

/** The port that has the addresses of this node's pods, made if it is not there. @throws {CniError} @throws {OpenStackError} */
export async function findCarrier(
  config: Config,
  world: World,
  cloud: OpenedCloud,
  located: Located,
  limits: Limits,
  again = false,
): Promise<Carried> {
  const { place } = located
  const isRouted = config.neutronConf.mode === 'mix_route' && config.neutronConf.podSubnets.length > 0
  if (!isRouted && config.neutronConf.binding === 'fixed_ips')
    return { carrier: carrierOf(place.portId, place), lookup: undefined }
  const look = lookFor(config, cloud, located, isRouted)
  return { carrier: await (again ? lookAgain : lookUp)(world, look, limits), lookup: look.lookup }
}

const carrierOf = (portId: string, { networkId, networkSubnets }: Place, holder?: HolderSettings): Carrier => ({
  portId,
  networkId,
  subnets: networkSubnets,
  holder,
})

function lookFor(config: Config, cloud: OpenedCloud, located: Located, isRouted: boolean): Look<Carrier> {
  const { place, lookup } = located
  const { cluster, blockSize, maxAddressPairs, maxRoutes, podSubnets, router } = config.neutronConf
  const node = config.neutronConf.node ?? hostname()
  const { neutron } = cloud.session
  const common = { hostPortId: place.portId, blockSize, maxAddressPairs }
  const routed = isRouted ? [podSubnets, router ?? '', maxRoutes] : []
  return {
    lookup: JSON.stringify([CARRIER_FORM, lookup, place.portId, cluster, node, blockSize, maxAddressPairs, ...routed]),
    action: 'find the Neutron port that has the pods’ addresses',
    async look(limits) {
      if (!isRouted) {
        const { networkId } = place
        const { id } = await ensureHolder(cloud.session, { cluster, node, networkId }, limits)
        return carrierOf(id, place, { ...common, networkId })
      }
      const subnets = await findPodSubnets(neutron, podSubnets, place, limits)
      const networkId = subnets[0]!.network_id
      const route = await findRoute(neutron, config, located, subnets, limits)
      const { id } = await ensureHolder(cloud.session, { cluster, node, networkId }, limits)
      return {
        portId: id,
        networkId,
        subnets: subnets.map(subnet => toPlaceSubnet(subnet, 'host')),
        holder: { ...common, networkId, route },
      }
    },
  }
}

/** The subnets that `podSubnets` names, in its order. */
async function findPodSubnets(
  neutron: Neutron,
  wanted: readonly string[],
  place: Place,
  limits: Limits,
): Promise<readonly Subnet[]> {
  const subnets: Subnet[] = []
  for (const each of wanted) {
    const cidr = tryParsePrefix(each)
    const found = isUuid(each)
      ? await neutron.subnets.list({ id: each.toLowerCase() }, limits)
      : await neutron.subnets.list(
          cidr === undefined ? { name: each } : { cidr: formatPrefix(networkOf(cidr)) },
          limits,
        )
    const [first, second] = found
    const what = `subnet "${each}" of "neutronConf.podSubnets"`
    if (first === undefined)
      throw invalid(`Cannot find ${what}: Neutron does not know it, or does not show it to this user`)
    if (second !== undefined)
      throw invalid(`Cannot choose ${what}: ${found.length} subnets match`, found.map(describe).join(', '))
    if (place.networkSubnets.some(own => own.id === first.id && own.standing !== 'network'))
      throw invalid(
        `Cannot route ${what}: the host’s port is in it, and its addresses need no route`,
        'mode "mix" gives them; or name another subnet',
      )
    subnets.push(first)
  }
  for (const version of [4, 6]) {
    const several = subnets.filter(each => each.ip_version === version)
    if (several.length > 1)
      throw invalid(
        `Cannot use "neutronConf.podSubnets": it names ${several.map(describe).join(' and ')}, want one per IP version`,
      )
  }
  if (new Set(subnets.map(each => each.network_id)).size > 1)
    throw invalid(
      `Cannot use "neutronConf.podSubnets": ${subnets.map(describe).join(' and ')} are of different networks`,
      'one port has the addresses of a node’s pods: name subnets of one network',
    )
  return subnets
}

const describe = (subnet: Subnet) => describeSubnet(toPlaceSubnet(subnet, 'network'))

/** The router that leads to the node, and the node's addresses by which it does. */
async function findRoute(
  neutron: Neutron,
  { neutronConf }: Config,
  { place, uplink }: Located,
  podSubnets: readonly Subnet[],
  limits: Limits,
): Promise<HolderSettings['route']> {
  const port = await neutron.ports.get(place.portId, limits)
  if (port === undefined) throw invalid(`Cannot find the host’s port ${place.portId}: it was deleted`)
  const hosts = podSubnets.map(({ ip_version }) => nexthopOf(port, place, uplink, ip_version))
  const routerId =
    neutronConf.router === undefined
      ? await findRouterOf(neutron, place, hosts[0]!.subnet, limits)
      : (await findNamedRouter(neutron, neutronConf.router, limits)).id
  return { routerId, nexthops: hosts.map(each => each.address), maxRoutes: neutronConf.maxRoutes }
}

/** The node's own address of one IP version: that of its NIC, or the only one of its port. */
function nexthopOf(
  port: Port,
  { networkSubnets }: Place,
  uplink: HostInterface | undefined,
  version: 4 | 6,
): { address: string; subnet: PlaceSubnet } {
  const nics = (uplink?.addresses ?? []).map(({ ip }) => formatIp(ip))
  const candidates = networkSubnets
    .filter(each => each.version === version)
    .flatMap(subnet =>
      port.fixed_ips
        .filter(each => each.subnet_id === subnet.id)
        .map(({ ip_address }) => ({
          address: ip_address,
          subnet,
          isHosts: nics.includes(formatIp(parseIp(ip_address))),
        })),
    )
  const own = candidates.filter(each => each.isHosts)
  const [first, second] = own.length > 0 ? own : candidates
  if (first !== undefined && (own.length > 0 || second === undefined)) return first
  throw invalid(
    `Cannot route addresses of pods to port ${port.id}: ` +
      (first === undefined
        ? `it has no IPv${version} address`
        : 'it has several addresses, and none of them is the host interface’s'),
    'name the NIC with the node’s address in "neutronConf.hostInterface"',
  )
}

async function findRouterOf(
  neutron: Neutron,
  { networkId }: Place,
  subnet: PlaceSubnet,
  limits: Limits,
): Promise<string> {
  const filter = { network_id: networkId, device_owner: ROUTER_INTERFACES }
  const found = (await neutron.ports.list(filter, limits)).filter(port =>
    port.fixed_ips.some(({ ip_address }) => prefixContains(parsePrefix(subnet.cidr), parseIp(ip_address))),
  )
  const gateways = found.filter(port => port.fixed_ips.some(each => each.ip_address === subnet.gateway))
  const ids = new Set((gateways.length > 0 ? gateways : found).map(port => port.device_id))
  const [first] = ids
  if (first !== undefined && ids.size === 1) return first
  throw invalid(
    first === undefined
      ? `Cannot find the router of subnet ${describeSubnet(subnet)}: no router has an interface in it, or Neutron does not show it to this user`
      : `Cannot choose the router of subnet ${describeSubnet(subnet)}: ${[...ids].join(', ')} have an interface in it`,
    'name the router in "neutronConf.router"',
  )
}

async function findNamedRouter(neutron: Neutron, wanted: string, limits: Limits): Promise<Router> {
  const byId = isUuid(wanted) ? await neutron.routers.get(wanted.toLowerCase(), limits) : undefined
  const found = byId === undefined ? await neutron.routers.list({ name: wanted }, limits) : [byId]
  if (found.length === 1) return found[0]!
  throw invalid(
    found.length === 0
      ? `Cannot find router "${wanted}" of "neutronConf.router": Neutron does not know it, or does not show it to this user`
      : `Cannot choose router "${wanted}" of "neutronConf.router": ${found.length} routers have this name`,
    found.length === 0 ? undefined : found.map(each => each.id).join(', '),
  )
}
