// SPDX-License-Identifier: Apache-2.0
import { addToIp, formatIp, formatPrefix, ipToBigInt, networkOf, type Prefix, parseIp, parsePrefix } from '#base'
import type { Answer, Call, RouteTable } from '../call.ts'
import { Fault, invalidInput } from '../fault.ts'
import { find, list, type Pool, put, remove, type Subnet } from '../state.ts'
import { type Attributes, boolean, cidr, decodeMember, ipOrNull, standardAttributes, uuid } from './attribute.ts'
import { networkKind } from './network.ts'
import { demandQuota } from './quota.ts'
import { bump, checkIfMatch, get, index, type Kind, newRow, show, standardView } from './resource.ts'

const attributes: Attributes = {
  ...standardAttributes,
  network_id: { post: true, required: true, convert: uuid },
  ip_version: { post: true, required: true },
  cidr: { post: true, convert: cidr },
  gateway_ip: { post: true, put: true, convert: ipOrNull },
  enable_dhcp: { post: true, put: true, convert: boolean },
  allocation_pools: { post: true, put: true },
  host_routes: { post: true, put: true },
  dns_nameservers: { post: true, put: true },
  subnetpool_id: { post: true },
  ipv6_ra_mode: { post: true },
  ipv6_address_mode: { post: true },
  service_types: { post: true, put: true },
}

export const subnetKind: Kind<'subnets'> = {
  rows: 'subnets',
  collection: 'subnets',
  member: 'subnet',
  notFound: id => new Fault(404, 'SubnetNotFound', `Subnet ${id} could not be found.`),
  view,
  visible: (call, row) => {
    const network = find(call.state, 'networks', row.network_id)
    return row.project_id === call.token?.projectId || network?.shared === true
  },
}

function view(_call: Call, row: Subnet) {
  return {
    ...standardView(row),
    name: row.name,
    network_id: row.network_id,
    ip_version: row.ip_version,
    subnetpool_id: null,
    enable_dhcp: row.enable_dhcp,
    ipv6_ra_mode: row.ipv6_ra_mode,
    ipv6_address_mode: row.ipv6_address_mode,
    gateway_ip: row.gateway_ip,
    cidr: row.cidr,
    allocation_pools: row.allocation_pools,
    host_routes: row.host_routes,
    dns_nameservers: row.dns_nameservers,
    service_types: [],
  }
}

function create(call: Call): Answer {
  const values = decodeMember(call, 'subnet', attributes)
  const version = Number(values['ip_version'])
  if (version !== 4 && version !== 6) throw invalidInput('ip_version', `'${values['ip_version']}' is not in [4, 6]`)
  if (typeof values['cidr'] !== 'string') {
    throw new Fault(400, 'BadRequest', 'Bad subnets request: a subnetpool must be specified in the absence of a cidr.')
  }
  const network = get(call, networkKind, String(values['network_id']))
  const prefix = networkOf(parsePrefix(values['cidr']))
  if (prefix.ip.length !== (version === 4 ? 4 : 16)) {
    throw new Fault(
      400,
      'InvalidInput',
      `Invalid input for operation: ${values['cidr']} is not an IPv${version} subnet.`,
    )
  }
  const row = newRow(call, values, 0)
  demandQuota(call.state, row.project_id, 'subnet', 1)
  const first = formatIp(addToIp(prefix.ip, 1n)!)
  const gateway = values['gateway_ip'] === undefined ? first : (values['gateway_ip'] as string | null)
  const subnet = put(call.state, 'subnets', {
    ...row,
    network_id: network.id,
    ip_version: version,
    cidr: formatPrefix(prefix),
    gateway_ip: gateway,
    enable_dhcp: (values['enable_dhcp'] as boolean | undefined) ?? true,
    ipv6_ra_mode: (values['ipv6_ra_mode'] as string | undefined) ?? null,
    ipv6_address_mode: (values['ipv6_address_mode'] as string | undefined) ?? null,
    allocation_pools: (values['allocation_pools'] as Pool[] | undefined) ?? defaultPools(prefix, gateway),
    host_routes: (values['host_routes'] as Subnet['host_routes'] | undefined) ?? [],
    dns_nameservers: (values['dns_nameservers'] as string[] | undefined) ?? [],
    leaked: [],
  })
  put(call.state, 'networks', bump(network))
  return { status: 201, body: { subnet: view(call, subnet) } }
}

/** Every host address but the gateway's. */
export function defaultPools(prefix: Prefix, gateway: string | null): Pool[] {
  const bits = BigInt(prefix.ip.length * 8 - prefix.length)
  const start = ipToBigInt(prefix.ip) + 1n
  const end = ipToBigInt(prefix.ip) + (1n << bits) - (prefix.ip.length === 4 ? 2n : 1n)
  const hole = gateway === null ? undefined : ipToBigInt(parseIp(gateway))
  const pool = (from: bigint, to: bigint): Pool[] => {
    const offset = ipToBigInt(prefix.ip)
    if (from > to) return []
    return [{ start: formatIp(addToIp(prefix.ip, from - offset)!), end: formatIp(addToIp(prefix.ip, to - offset)!) }]
  }
  if (hole === undefined || hole < start || hole > end) return pool(start, end)
  return [...pool(start, hole - 1n), ...pool(hole + 1n, end)]
}

function update(call: Call): Answer {
  const values = decodeMember(call, 'subnet', attributes)
  const row = get(call, subnetKind, call.parameters['id'] ?? '')
  checkIfMatch(call, row)
  const subnet = put(call.state, 'subnets', bump({ ...row, ...values } as Subnet))
  return { status: 200, body: { subnet: view(call, subnet) } }
}

function destroy(call: Call): Answer {
  const row = get(call, subnetKind, call.parameters['id'] ?? '')
  checkIfMatch(call, row)
  const isUsed = list(call.state, 'ports').some(port => port.fixed_ips.some(fixed => fixed.subnet_id === row.id))
  if (isUsed) {
    throw new Fault(
      409,
      'SubnetInUse',
      `Unable to complete operation on subnet ${row.id}: One or more ports have an IP allocation from this subnet.`,
    )
  }
  remove(call.state, 'subnets', row.id)
  const network = find(call.state, 'networks', row.network_id)
  if (network !== undefined) put(call.state, 'networks', bump(network))
  return { status: 204 }
}

export const subnetRoutes: RouteTable = [
  ['GET', '/v2.0/subnets', index(subnetKind)],
  ['POST', '/v2.0/subnets', create],
  ['GET', '/v2.0/subnets/:id', show(subnetKind)],
  ['PUT', '/v2.0/subnets/:id', update],
  ['DELETE', '/v2.0/subnets/:id', destroy],
]
