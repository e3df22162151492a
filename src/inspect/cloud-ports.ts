// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatMac } from '#base'
import type { Uplink } from '#host'
import {
  type CloudSession,
  type FloatingIp,
  type Interface,
  isUuid,
  type Limits,
  type Network,
  type Port,
} from '#openstack'
import { type OwnerMark, readDescription } from '#plugins'

/** Which servers and ports of a cloud are looked at. */
export type PortsTarget = {
  /** Servers that have one of these addresses, fixed or floating; without any, the server that is this node. */
  readonly addresses: readonly string[]
  /** By what this node is found. */
  readonly nics: readonly NodeNic[]
  /** Ports that the journal of this node knows. */
  readonly knownPorts: readonly string[]
  /** Whose the ports are that were made for pods of this node. */
  readonly owners: readonly OwnerMark[]
}

export type NodeNic = {
  readonly uplink: (Uplink & { readonly addresses: readonly { readonly ip: Uint8Array }[] }) | undefined
  /** The node's own port by id or name, where the NIC does not lead to it. */
  readonly hostPort: string | undefined
}

/** A server as Nova shows it. */
export type CloudServer = {
  readonly id: string
  /** Undefined where Nova does not know it, or did not answer. */
  readonly name: string | undefined
  readonly status: string | undefined
  /** Undefined where Nova did not answer. */
  readonly interfaces: readonly Interface[] | undefined
  /** What Nova said instead. */
  readonly error: string | undefined
}

/** What a cloud holds of what was looked for. */
export type CloudPorts = {
  readonly cloud: string
  readonly servers: readonly CloudServer[]
  /** The ports of these servers, and of the node. */
  readonly ports: readonly Port[]
  readonly floatingIps: readonly FloatingIp[]
  readonly networks: readonly Network[]
  /** The addresses by which the servers were found, as they stand on their ports. */
  readonly primary: ReadonlySet<string>
  /** Whose ports are this node's. */
  readonly owners: readonly OwnerMark[]
  /** Of the addresses asked for, those that no port of a server has, with what has them instead. */
  readonly notFound: readonly { readonly address: string; readonly text: string }[]
}

/** True for a port that was made for pods of one of these, by what stands in it. */
function isOwn({ description = '', device_id, device_owner }: Port, owners: readonly OwnerMark[]): boolean {
  if (!device_owner.startsWith('mooring:')) return false
  const said = readDescription(description)?.cluster ?? /cluster (\S+), node/.exec(description)?.[1]
  return owners.some(({ cluster, node }) => said === cluster && device_id === node)
}

/** Nova's word for the owner of a server's port, before the zone's name. */
const isServers = ({ device_id, device_owner }: Port) => device_id !== '' && device_owner.startsWith('compute:')
const isLinkLocal = (address: string) => /^(127\.|169\.254\.|fe[89ab][0-9a-f]:|::1$)/i.test(address)

/**
 * Reads servers and ports: a request for each server of Nova's, and six of Neutron's in all.
 * @throws {OpenStackError} where Neutron does not answer; a server that Nova does not show has its error with it
 */
export async function readCloudPorts(
  { cloud, neutron, nova }: CloudSession,
  target: PortsTarget,
  limits: Limits,
): Promise<CloudPorts> {
  const { found, primary, notFound } =
    target.addresses.length > 0
      ? await findByAddress(neutron, target.addresses, limits)
      : { ...(await findNode(neutron, target.nics, limits)), notFound: [] }
  const serverIds = [...new Set(found.filter(isServers).map(port => port.device_id))]
  const devices =
    target.addresses.length > 0 ? serverIds : [...serverIds, ...new Set(target.owners.map(({ node }) => node))]
  const ofDevices = devices.length === 0 ? [] : await neutron.ports.list({ device_id: devices }, limits)
  const servers = await Promise.all(serverIds.map(id => readServer(nova, id, limits)))
  // Another's device may have the node's name.
  const fitting = ofDevices.filter(port => serverIds.includes(port.device_id) || isOwn(port, target.owners))
  const seen = new Map([...found, ...fitting].map(port => [port.id, port]))
  const shown = servers.flatMap(({ interfaces = [] }) => interfaces.map(each => each.port_id))
  const wanted = target.addresses.length > 0 ? shown : [...shown, ...target.knownPorts]
  const missing = [...new Set(wanted)].filter(id => !seen.has(id))
  for (const port of missing.length === 0 ? [] : await neutron.ports.list({ id: missing }, limits))
    seen.set(port.id, port)
  const ports = [...seen.values()]
  const networkIds = [...new Set(ports.map(port => port.network_id))]
  const [floatingIps, networks] =
    ports.length === 0
      ? [[], []]
      : await Promise.all([
          neutron.floatingIps.list({ port_id: ports.map(port => port.id) }, limits),
          neutron.networks.list({ id: networkIds }, limits),
        ])
  servers.sort((a, b) => (a.name ?? '').localeCompare(b.name ?? ''))
  return { cloud: cloud.name, servers, ports, floatingIps, networks, primary, owners: target.owners, notFound }
}

type Found = { readonly found: readonly Port[]; readonly primary: ReadonlySet<string> }

async function findByAddress(
  neutron: CloudSession['neutron'],
  addresses: readonly string[],
  limits: Limits,
): Promise<Found & Pick<CloudPorts, 'notFound'>> {
  const fixed = await neutron.ports.list({ ip_address: addresses }, limits)
  const has = (port: Port, address: string) => port.fixed_ips.some(each => each.ip_address === address)
  const rest = addresses.filter(address => !fixed.some(port => has(port, address)))
  const floating = (
    await Promise.all(rest.map(address => neutron.floatingIps.list({ floating_ip_address: address }, limits)))
  ).flat()
  const ends = floating.flatMap(({ port_id }) => port_id ?? [])
  const behind = ends.length === 0 ? [] : await neutron.ports.list({ id: ends }, limits)
  const found = [...fixed, ...behind]
  const notFound = addresses.flatMap(address => {
    const end = floating.find(each => each.floating_ip_address === address)
    const holders = found.filter(port => has(port, address) || port.id === end?.port_id)
    if (holders.some(isServers)) return []
    if (holders[0] !== undefined) return [{ address, text: `${describePort(holders[0])} has it, which is no server's` }]
    return [{ address, text: end === undefined ? 'no port has it' : 'it is a floating IP that leads nowhere' }]
  })
  const primary = [...addresses, ...floating.flatMap(({ fixed_ip_address }) => fixed_ip_address ?? [])]
  return { found: found.filter(isServers), primary: new Set(primary), notFound }
}

const describePort = ({ id, name, device_owner }: Port) =>
  `port ${id} (${[name === '' ? [] : `"${name}"`, device_owner || 'of nothing'].flat().join(', ')})`

async function findNode(neutron: CloudSession['neutron'], nics: readonly NodeNic[], limits: Limits): Promise<Found> {
  const all = await Promise.all(nics.map(nic => findNodePort(neutron, nic, limits)))
  return { found: all.flat(), primary: new Set(nics.flatMap(addressesOfNic)) }
}

const addressesOfNic = ({ uplink }: NodeNic): string[] =>
  (uplink?.addresses ?? []).map(({ ip }) => formatIp(ip)).filter(address => !isLinkLocal(address))

/** By address and MAC, as the IPAM finds it: an admin sees every tenant's 10.0.0.0/24. */
async function findNodePort(neutron: CloudSession['neutron'], nic: NodeNic, limits: Limits): Promise<readonly Port[]> {
  const { uplink, hostPort } = nic
  if (hostPort !== undefined) {
    const filter = isUuid(hostPort) ? { id: hostPort.toLowerCase() } : { name: hostPort }
    return await neutron.ports.list(filter, limits)
  }
  const own = addressesOfNic(nic)
  if (uplink === undefined || own.length === 0) return []
  const mac = formatMac(uplink.mac)
  const found = await neutron.ports.list({ ip_address: own }, limits)
  return found.filter(port => port.mac_address.toLowerCase() === mac)
}

async function readServer(nova: CloudSession['nova'], id: string, limits: Limits): Promise<CloudServer> {
  try {
    const server = await nova.servers.get(id, limits)
    if (server === undefined)
      return { ...nothing(id), error: 'Nova does not know this server, or does not show it to this user' }
    const interfaces = await nova.interfaces.list(id, limits)
    return { id, name: server.name, status: server.status, interfaces, error: undefined }
  } catch (error) {
    return { ...nothing(id), error: error instanceof Error ? error.message : String(error) }
  }
}

const nothing = (id: string) => ({ id, name: undefined, status: undefined, interfaces: undefined })
