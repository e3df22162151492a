// SPDX-License-Identifier: Apache-2.0

import type { Limits } from '#allocator'
import { formatIp, formatMac, type Prefix, prefixContains, tryParsePrefix } from '#base'
import { CniError, codes } from '#cni'
import type { Uplink } from '#host'
import { isUuid, type Network, type Neutron, type Port, type Subnet } from '#openstack'
import { type PlaceSubnet, toPlaceSubnet } from './subnets.ts'

/** The node's NIC, and the addresses that it has. */
export type HostInterface = Uplink & { readonly addresses: readonly Prefix[] }

/** Where a pod's addresses may come from: the port of the node's NIC, and the subnets of its network. */
export type Place = {
  readonly portId: string
  readonly networkId: string
  readonly networkSubnets: readonly PlaceSubnet[]
  /** The NIC, and what the kernel says it has of these subnets: a second witness beside Neutron. */
  readonly nic?: { readonly mac: string; readonly addresses: readonly string[] }
}

/** Networks of which the port has to be, none for any, and the key that names them. */
export type WantedNetworks = { readonly networks: readonly string[]; readonly key: string }

const CANDIDATES_MAX = 8

const invalid = (message: string, details?: string) => new CniError(codes.invalidConfig, message, { details })

/**
 * Finds the Neutron port of the node's NIC.
 *
 * @throws {CniError} 7 where the configuration fits nothing, or more than one thing, with the candidates.
 * @throws {OpenStackError}
 */
export async function findPlace(
  neutron: Neutron,
  hostPort: string | undefined,
  wanted: WantedNetworks,
  uplink: HostInterface | undefined,
  limits: Limits,
): Promise<Place> {
  const allowed = await findNetworks(neutron, wanted, limits)
  const port =
    hostPort === undefined
      ? await findPortOf(neutron, uplink!, allowed, limits)
      : await findNamedPort(neutron, hostPortNamed(hostPort), { networks: allowed, key: wanted.key }, limits)
  const subnets = await neutron.subnets.list({ network_id: port.network_id }, limits)
  if (subnets.length === 0) throw invalid(`Cannot give addresses of network ${port.network_id}: it has no subnet`)
  const nic = nicOf(subnets, uplink)
  return {
    portId: port.id,
    networkId: port.network_id,
    networkSubnets: subnets.map(subnet => toPlaceSubnet(subnet, standingOf(subnet, port, uplink))),
    ...(nic === undefined ? {} : { nic }),
  }
}

function nicOf(subnets: readonly Subnet[], uplink: HostInterface | undefined): Place['nic'] {
  if (uplink === undefined) return undefined
  const prefixes = subnets.map(({ cidr }) => tryParsePrefix(cidr)).filter(prefix => prefix !== undefined)
  const own = uplink.addresses.filter(({ ip }) => prefixes.some(prefix => prefixContains(prefix, ip)))
  return own.length === 0 ? undefined : { mac: formatMac(uplink.mac), addresses: own.map(({ ip }) => formatIp(ip)) }
}

/** What a subnet is to the node itself. */
function standingOf({ id, cidr }: Subnet, port: Port, uplink: HostInterface | undefined): PlaceSubnet['standing'] {
  if (!port.fixed_ips.some(each => each.subnet_id === id)) return 'network'
  const prefix = tryParsePrefix(cidr)
  const isHosts = prefix !== undefined && (uplink?.addresses ?? []).some(({ ip }) => prefixContains(prefix, ip))
  return isHosts ? 'host' : 'port'
}

/** The networks that a configuration names; undefined where it names none and any will do. */
export async function findNetworks(
  neutron: Neutron,
  { networks: wanted, key }: WantedNetworks,
  limits: Limits,
): Promise<readonly Network[] | undefined> {
  if (wanted.length === 0) return undefined
  const [ids, names] = [wanted.filter(isUuid).map(each => each.toLowerCase()), wanted.filter(each => !isUuid(each))]
  const found = [
    ...(ids.length === 0 ? [] : await neutron.networks.list({ id: ids }, limits)),
    ...(names.length === 0 ? [] : await neutron.networks.list({ name: names }, limits)),
  ]
  for (const each of wanted) {
    const fitting = found.filter(({ id, name }) => id === each.toLowerCase() || name === each)
    if (fitting.length === 0)
      throw invalid(
        `Cannot find network "${each}" of "${key}": Neutron does not know it, or does not show it to this user`,
      )
    if (fitting.every(({ subnets }) => subnets.length === 0))
      throw invalid(
        `Cannot give addresses of network "${fitting[0]!.name}" (${fitting[0]!.id}): it has no subnet`,
        `create a subnet, or name another network in "${key}"`,
      )
  }
  return found
}

/** The port of the node's NIC, or the one that "hostPort" names, on any network. @throws {CniError} 7 */
export async function findHostPort(
  neutron: Neutron,
  which: { hostPort: string | undefined; uplink: HostInterface | undefined; limits: Limits },
): Promise<Port> {
  const { hostPort, uplink, limits } = which
  if (hostPort === undefined) return await findPortOf(neutron, uplink!, undefined, limits)
  return await findNamedPort(neutron, hostPortNamed(hostPort), ANY_NETWORK, limits)
}

const isOn = (port: Port, networks: readonly Network[] | undefined) =>
  networks === undefined || networks.some(network => network.id === port.network_id)

const hostPortNamed = (name: string) => ({ name, key: 'neutronConf.hostPort' })
const ANY_NETWORK = { networks: undefined, key: 'neutronConf.networks' }

/**
 * The port with an id or name.
 * @param port with the key that names it
 * @param on where it has to be, undefined for anywhere, with the key that says so
 * @throws {CniError} 7
 */
export async function findNamedPort(
  neutron: Neutron,
  port: { readonly name: string; readonly key: string },
  on: { readonly networks: readonly Network[] | undefined; readonly key: string },
  limits: Limits,
): Promise<Port> {
  const { name: wanted } = port
  const byId = isUuid(wanted) ? await neutron.ports.get(wanted.toLowerCase(), limits) : undefined
  const found = byId === undefined ? await neutron.ports.list({ name: wanted }, limits) : [byId]
  const fitting = found.filter(each => isOn(each, on.networks))
  if (fitting.length === 1) return fitting[0]!
  const what = `port "${wanted}" of "${port.key}"`
  if (fitting.length > 1)
    throw invalid(`Cannot choose ${what}: ${fitting.length} ports have this name`, describeAll(fitting))
  throw invalid(
    found.length === 0
      ? `Cannot find ${what}: Neutron does not know it, or does not show it to this user`
      : `Cannot use ${what}: it is on none of the networks in "${on.key}"`,
    found.length === 0 ? undefined : describeAll(found),
  )
}

/** By address, MAC and network together: an admin sees every tenant's 10.0.0.0/24. */
async function findPortOf(
  neutron: Neutron,
  uplink: HostInterface,
  networks: readonly Network[] | undefined,
  limits: Limits,
): Promise<Port> {
  const addresses = uplink.addresses.map(({ ip }) => formatIp(ip)).filter(isReachable)
  const mac = formatMac(uplink.mac)
  const what = `the Neutron port of host interface ${uplink.name} (${mac}, ${addresses.join(', ') || 'no address'})`
  if (addresses.length === 0)
    throw invalid(
      `Cannot find ${what}: the interface has no address`,
      'name the port in "neutronConf.hostPort", or another interface in "neutronConf.hostInterface"',
    )
  const found = await neutron.ports.list({ ip_address: addresses }, limits)
  const fitting = found.filter(port => port.mac_address.toLowerCase() === mac && isOn(port, networks))
  if (fitting.length === 1) return fitting[0]!
  const remedy = 'name the port in "neutronConf.hostPort", or another interface in "neutronConf.hostInterface"'
  if (fitting.length > 1)
    throw invalid(
      `Cannot choose ${what}: ${fitting.length} ports match`,
      `${describeAll(fitting)}; ${remedy}, or its network in "neutronConf.networks"`,
    )
  const near = found.length > 0 ? found : await neutron.ports.list({ mac_address: mac }, limits)
  const among = networks === undefined ? '' : ` and network (${networks.map(each => each.name || each.id).join(', ')})`
  throw invalid(
    `Cannot find ${what}: no port has this address and MAC${among}`,
    `${near.length === 0 ? 'no port of this project has its address or its MAC' : `candidates: ${describeAll(near)}`}; ${remedy}`,
  )
}

const isReachable = (address: string) => !/^(127\.|169\.254\.|fe[89ab][0-9a-f]:|::1$)/i.test(address)

function describeAll(ports: readonly Port[]): string {
  const shown = ports.slice(0, CANDIDATES_MAX).map(port => {
    const addresses = port.fixed_ips.slice(0, CANDIDATES_MAX).map(each => each.ip_address)
    return `${port.id} ("${port.name}", ${port.mac_address}, network ${port.network_id}, ${addresses.join(' ')})`
  })
  const more = ports.length - shown.length
  return more > 0 ? `${shown.join(', ')} and ${more} more` : shown.join(', ')
}
