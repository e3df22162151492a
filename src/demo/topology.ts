// SPDX-License-Identifier: Apache-2.0

import { existsSync } from 'node:fs'
import { deadlineIn, tryParseIp } from '#base'
import { netnsPath } from '#host'
import type { CloudSession, Port, Server } from '#openstack'
import { type Station, startStation } from './station.ts'

/** A server of the cloud, and the network namespace in which it runs. */
export type Machine = {
  readonly name: string
  readonly netns: string
  readonly station: Station
  /** The address, MAC and Neutron port of its NIC. */
  readonly address: string
  readonly portId: string
}

/** Where pods are attached, and who else is there to speak to them. */
export type Topology = {
  readonly machines: readonly [Machine, Machine]
  readonly network: { readonly id: string; readonly name: string; readonly cidr: string }
  readonly externalNetwork: { readonly id: string; readonly name: string }
  readonly router: { readonly name: string; readonly addresses: readonly string[] }
  /** As whom pods without a floating IP are seen outside. */
  readonly outsideFace: string | undefined
  readonly outside: { readonly netns: string; readonly station: Station; readonly address: string }
}

export type TopologyOptions = {
  /** The namespace of a server by its name. */
  readonly netnsOf: (server: string) => string
  /** The namespace of the host outside. */
  readonly outsideNetns: string
}

const CLOUD_MS = 30_000
const limits = () => ({ deadline: deadlineIn(CLOUD_MS) })

/**
 * Finds two servers that run as network namespaces of this machine, the router beside them and the host outside.
 *
 * @param owned what is started is ended with this
 * @throws {Error} saying what is missing
 */
export async function findTopology(
  cloud: CloudSession,
  options: TopologyOptions,
  owned: AsyncDisposableStack,
): Promise<Topology> {
  const machines = await findMachines(cloud, options, owned)
  const [first, second] = machines
  if (first === undefined || second === undefined) throw tooFew(cloud, options, machines.length)
  const port = await cloud.neutron.ports.get(first.portId, limits())
  const subnetId = port?.fixed_ips.find(({ ip_address }) => ip_address === first.address)?.subnet_id
  const [network, subnets, around] = await Promise.all([
    cloud.neutron.networks.get(port!.network_id, limits()),
    cloud.neutron.subnets.list({ network_id: port!.network_id }, limits()),
    cloud.neutron.ports.list({ network_id: port!.network_id }, limits()),
  ])
  const router = await findRouter(cloud, around, subnets.find(({ id }) => id === subnetId)?.gateway_ip ?? undefined)
  const external = await cloud.neutron.networks.get(router.externalId, limits())
  return {
    machines: [first, second],
    network: {
      id: port!.network_id,
      name: network?.name ?? port!.network_id,
      cidr: subnets.find(({ id }) => id === subnetId)?.cidr ?? '',
    },
    externalNetwork: { id: router.externalId, name: external?.name ?? router.externalId },
    router: { name: router.name, addresses: router.addresses },
    outsideFace: router.outsideFace,
    outside: await findOutside(options.outsideNetns, owned),
  }
}

async function findMachines(
  cloud: CloudSession,
  { netnsOf }: TopologyOptions,
  owned: AsyncDisposableStack,
): Promise<Machine[]> {
  const servers = await cloud.nova.servers.list({ status: 'ACTIVE' }, limits())
  const here = servers
    .map(server => ({
      server,
      netns: server.metadata?.['netns'] ? netnsPath(server.metadata['netns']) : netnsOf(server.name),
    }))
    .filter(({ server, netns }) => isFileName(server.name) && existsSync(netns))
    .sort((a, b) => a.server.name.localeCompare(b.server.name))
    .slice(0, 2)
  return Promise.all(here.map(({ server, netns }) => findMachine(cloud, server, netns, owned.use(startStation(netns)))))
}

/** Each machine has a directory of its name. */
const isFileName = (name: string) => !name.includes('/') && name !== '.' && name !== '..'

async function findMachine(cloud: CloudSession, server: Server, netns: string, station: Station): Promise<Machine> {
  const [uplink, ports] = await Promise.all([
    station.do('uplink', {}),
    cloud.neutron.ports.list({ device_id: server.id }, limits()),
  ])
  const port = ports.find(({ mac_address }) => mac_address === uplink?.mac)
  const address = uplink?.addresses.find(each => port?.fixed_ips.some(({ ip_address }) => ip_address === each))
  if (port === undefined || address === undefined)
    throw new Error(
      `Cannot use server ${server.name}: the NIC of the default route in ${netns} ` +
        `(${uplink === undefined ? 'there is none' : `${uplink.name}, ${uplink.mac}`}) is none of its ports`,
    )
  return { name: server.name, netns, station, address, portId: port.id }
}

const tooFew = ({ cloud }: CloudSession, { netnsOf }: TopologyOptions, found: number) =>
  new Error(
    `Cannot find two servers of cloud "${cloud.name}" that are network namespaces of this machine: ${found} found; ` +
      `a server NAME is looked for as ${netnsOf('NAME')}, or as its metadata key "netns" says. ` +
      'Remedy: lab/openstack up --dataplane && lab/openstack demo',
  )

type FoundRouter = {
  readonly name: string
  readonly addresses: readonly string[]
  readonly externalId: string
  readonly outsideFace: string | undefined
}

/** The router behind the subnet's gateway address. */
async function findRouter(
  cloud: CloudSession,
  around: readonly Port[],
  gateway: string | undefined,
): Promise<FoundRouter> {
  const door = around.find(({ fixed_ips }) => fixed_ips.some(({ ip_address }) => ip_address === gateway))
  const router = door === undefined ? undefined : await cloud.neutron.routers.get(door.device_id, limits())
  const outward = router?.external_gateway_info
  if (door === undefined || router === undefined || outward === undefined || outward === null)
    throw new Error(
      `Cannot find the way outside: gateway ${gateway ?? '(none)'} belongs to no router with an external gateway. ` +
        'Remedy: openstack router set --external-gateway NETWORK ROUTER',
    )
  const outer = outward.external_fixed_ips?.map(({ ip_address }) => ip_address) ?? []
  return {
    name: router.name || router.id,
    addresses: [...door.fixed_ips.map(({ ip_address }) => ip_address), ...outer],
    externalId: outward.network_id,
    outsideFace: outward.enable_snat === false ? undefined : outer.find(address => tryParseIp(address)?.length === 4),
  }
}

async function findOutside(netns: string, owned: AsyncDisposableStack): Promise<Topology['outside']> {
  const station = owned.use(startStation(netns))
  const [first] = await station.do('addresses', {})
  if (first === undefined) throw new Error(`Cannot use ${netns} as the host outside: it has no IPv4 address`)
  return { netns, station, address: first.address }
}
