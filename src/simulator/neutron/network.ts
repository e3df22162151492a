// SPDX-License-Identifier: Apache-2.0
import { type Answer, type Call, isAdmin, type RouteTable } from '../call.ts'
import { Fault } from '../fault.ts'
import { list, type Network, put, remove } from '../state.ts'
import { type Attributes, boolean, decodeMember, standardAttributes, string } from './attribute.ts'
import { demandQuota } from './quota.ts'
import { bump, checkIfMatch, get, index, isOwn, type Kind, newRow, show, standardView } from './resource.ts'

const attributes: Attributes = {
  ...standardAttributes,
  subnets: {},
  admin_state_up: { post: true, put: true, convert: boolean },
  mtu: { post: true, put: true },
  shared: { post: true, put: true, adminPost: true, adminPut: true, convert: boolean },
  'router:external': { post: true, put: true, adminPost: true, adminPut: true, convert: boolean },
  is_default: { post: true, put: true, adminPost: true, adminPut: true, convert: boolean },
  port_security_enabled: { post: true, put: true, convert: boolean },
  'provider:network_type': { post: true, adminPost: true, convert: string },
  'provider:physical_network': { post: true, adminPost: true },
  'provider:segmentation_id': { post: true, adminPost: true },
  availability_zone_hints: { post: true },
}

export const networkKind: Kind<'networks'> = {
  rows: 'networks',
  collection: 'networks',
  member: 'network',
  notFound: id => new Fault(404, 'NetworkNotFound', `Network ${id} could not be found.`),
  view,
  visible: (call, row) => isOwn(call, row) || row.shared || row['router:external'],
}

function view(call: Call, row: Network) {
  return {
    ...standardView(row),
    name: row.name,
    admin_state_up: row.admin_state_up,
    mtu: row.mtu,
    status: 'ACTIVE',
    subnets: list(call.state, 'subnets', call.asOfMs)
      .filter(subnet => subnet.network_id === row.id)
      .map(subnet => subnet.id),
    shared: row.shared,
    availability_zone_hints: [],
    availability_zones: [],
    ipv4_address_scope: null,
    ipv6_address_scope: null,
    'router:external': row['router:external'],
    ...(row['router:external'] && { is_default: row.is_default }),
    port_security_enabled: row.port_security_enabled,
    qos_policy_id: null,
    ...(isAdmin(call) && {
      'provider:network_type': row['provider:network_type'],
      'provider:physical_network': row['provider:physical_network'],
      'provider:segmentation_id': null,
    }),
  }
}

function create(call: Call): Answer {
  const values = decodeMember(call, 'network', attributes)
  const row = newRow(call, values, 1)
  demandQuota(call.state, row.project_id, 'network', 1)
  const network = put(call.state, 'networks', {
    ...row,
    admin_state_up: (values['admin_state_up'] as boolean | undefined) ?? true,
    mtu: Number(values['mtu'] ?? 1500),
    shared: values['shared'] === true,
    'router:external': values['router:external'] === true,
    is_default: values['is_default'] === true,
    port_security_enabled: (values['port_security_enabled'] as boolean | undefined) ?? true,
    'provider:network_type': String(values['provider:network_type'] ?? 'local'),
    'provider:physical_network': (values['provider:physical_network'] as string | undefined) ?? null,
  })
  return { status: 201, body: { network: view(call, network) } }
}

function update(call: Call): Answer {
  const values = decodeMember(call, 'network', attributes)
  const row = get(call, networkKind, call.parameters['id'] ?? '')
  checkIfMatch(call, row)
  const network = put(call.state, 'networks', bump({ ...row, ...values } as Network))
  return { status: 200, body: { network: view(call, network) } }
}

function destroy(call: Call): Answer {
  const row = get(call, networkKind, call.parameters['id'] ?? '')
  checkIfMatch(call, row)
  const users = list(call.state, 'ports').filter(port => port.network_id === row.id)
  if (users.length > 0) {
    const ids = users.map(port => port.id).sort()
    throw new Fault(
      409,
      'NetworkInUse',
      `Unable to complete operation on network ${row.id}. There are one or more ports still in use on the network, id for these ports is: ${ids.join(',')}.`,
    )
  }
  for (const subnet of list(call.state, 'subnets')) {
    if (subnet.network_id === row.id) remove(call.state, 'subnets', subnet.id)
  }
  remove(call.state, 'networks', row.id)
  return { status: 204 }
}

export const networkRoutes: RouteTable = [
  ['GET', '/v2.0/networks', index(networkKind)],
  ['POST', '/v2.0/networks', create],
  ['GET', '/v2.0/networks/:id', show(networkKind)],
  ['PUT', '/v2.0/networks/:id', update],
  ['DELETE', '/v2.0/networks/:id', destroy],
]
