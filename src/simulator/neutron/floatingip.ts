// SPDX-License-Identifier: Apache-2.0

/** Floating IPs. What is true on the wire follows the answer, and so does `status`. */
import type { Answer, Call, RouteTable } from '../call.ts'
import { Fault } from '../fault.ts'
import { type FloatingIp, find, later, list, type Port, put, type Router, remove, type State } from '../state.ts'
import { allocateAny } from './address.ts'
import { type Attributes, decodeMember, ipOrNull, standardAttributes, uuid, uuidOrNull } from './attribute.ts'
import { networkKind } from './network.ts'
import { portKind } from './port.ts'
import { demandQuota } from './quota.ts'
import { bump, checkIfMatch, get, index, type Kind, newRow, show, standardView } from './resource.ts'

const { name: _, ...nameless } = standardAttributes
const attributes: Attributes = {
  ...nameless,
  floating_network_id: { post: true, required: true, convert: uuid },
  floating_ip_address: { post: true, adminPost: true, convert: ipOrNull },
  subnet_id: { post: true, convert: uuid },
  port_id: { post: true, put: true, convert: uuidOrNull },
  fixed_ip_address: { post: true, put: true, convert: ipOrNull },
  router_id: {},
  port_details: {},
  qos_policy_id: { post: true, put: true },
}

export const floatingIpKind: Kind<'floatingips'> = {
  rows: 'floatingips',
  collection: 'floatingips',
  member: 'floatingip',
  notFound: id => new Fault(404, 'FloatingIPNotFound', `Floating IP ${id} could not be found`),
  view,
}

function view(call: Call, row: FloatingIp) {
  const port = row.port_id === null ? undefined : find(call.state, 'ports', row.port_id)
  return {
    ...standardView(row),
    floating_ip_address: row.floating_ip_address,
    floating_network_id: row.floating_network_id,
    router_id: row.router_id,
    port_id: row.port_id,
    fixed_ip_address: row.fixed_ip_address,
    status: row.status,
    qos_policy_id: null,
    port_details:
      port === undefined
        ? null
        : {
            name: port.name,
            network_id: port.network_id,
            mac_address: port.mac_address,
            admin_state_up: port.admin_state_up,
            status: port.status,
            device_id: port.device_id,
            device_owner: port.device_owner,
          },
    port_forwardings: [],
  }
}

const bad = (reason: string): Fault => new Fault(400, 'BadRequest', `Bad floatingip request: ${reason}`)

type Association = Pick<FloatingIp, 'port_id' | 'fixed_ip_address' | 'router_id'>
const nowhere: Association = { port_id: null, fixed_ip_address: null, router_id: null }

/** Where a floating IP is to point, checked as Neutron does it. */
function associate(call: Call, floating: FloatingIp, portId: unknown, fixedIp: unknown): Association {
  if (typeof portId !== 'string') {
    if (typeof fixedIp === 'string') throw bad('fixed_ip_address cannot be specified without a port_id.')
    return nowhere
  }
  const port = get(call, portKind, portId)
  const v4 = port.fixed_ips.filter(fixed => !fixed.ip_address.includes(':'))
  if (typeof fixedIp === 'string' && !v4.some(fixed => fixed.ip_address === fixedIp)) {
    throw bad(`Port ${port.id} does not have fixed ip ${fixedIp}.`)
  }
  if (v4.length === 0) throw bad(`Cannot add floating IP to port ${port.id} that has no fixed IPv4 addresses.`)
  if (typeof fixedIp !== 'string' && v4.length > 1) {
    throw bad(
      `Port ${port.id} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a floating IP.`,
    )
  }
  const target = typeof fixedIp === 'string' ? fixedIp : v4[0]!.ip_address
  const rival = list(call.state, 'floatingips').find(
    other => other.id !== floating.id && other.port_id === port.id && other.fixed_ip_address === target,
  )
  if (rival !== undefined) {
    throw new Fault(
      409,
      'FloatingIPPortAlreadyAssociated',
      `Cannot associate floating IP ${floating.floating_ip_address} (${floating.id}) with port ${port.id} using fixed IP ${target}, as that fixed IP already has a floating IP on external network ${floating.floating_network_id}.`,
    )
  }
  const subnetId = v4.find(fixed => fixed.ip_address === target)!.subnet_id
  const router = routerBetween(call.state, subnetId, floating.floating_network_id)
  if (router === undefined) throw unreachable(floating, subnetId, port)
  return { port_id: port.id, fixed_ip_address: target, router_id: router.id }
}

const unreachable = (floating: FloatingIp, subnetId: string, port: Port): Fault =>
  new Fault(
    404,
    'ExternalGatewayForFloatingIPNotFound',
    `External network ${floating.floating_network_id} is not reachable from subnet ${subnetId}.  Therefore, cannot associate Port ${port.id} with a Floating IP.`,
  )

/** The router with an interface in the subnet and its gateway in the network. */
function routerBetween(state: State, subnetId: string, networkId: string): Router | undefined {
  const inside = list(state, 'ports').filter(
    port =>
      port.device_owner === 'network:router_interface' && port.fixed_ips.some(fixed => fixed.subnet_id === subnetId),
  )
  return list(state, 'routers').find(
    router =>
      router.external_gateway_info?.network_id === networkId && inside.some(port => port.device_id === router.id),
  )
}

/** Once it is true on the wire, `status` says so. */
function settle(state: State, id: string): void {
  later(state, state.settings.wireDelayMs, () => {
    const row = find(state, 'floatingips', id)
    const status = row?.port_id === null ? 'DOWN' : 'ACTIVE'
    if (row !== undefined && row.status !== status) put(state, 'floatingips', bump({ ...row, status }))
  })
}

function create(call: Call): Answer {
  const values = decodeMember(call, 'floatingip', attributes)
  const { state } = call
  const network = get(call, networkKind, String(values['floating_network_id']))
  if (!network['router:external']) throw bad(`Network ${network.id} is not a valid external network.`)
  const { name: __, ...row } = newRow(call, values, 0)
  demandQuota(state, row.project_id, 'floatingip', 1)
  const ip = values['floating_ip_address'] ?? allocateAny(state, network)[0]?.ip_address
  const bare: FloatingIp = {
    ...row,
    ...nowhere,
    floating_ip_address: String(ip),
    floating_network_id: network.id,
    status: 'DOWN',
  }
  const floating = put(state, 'floatingips', {
    ...bare,
    ...associate(call, bare, values['port_id'], values['fixed_ip_address']),
  })
  settle(state, floating.id)
  return { status: 201, body: { floatingip: view(call, floating) } }
}

function update(call: Call): Answer {
  const values = decodeMember(call, 'floatingip', attributes)
  const row = get(call, floatingIpKind, call.parameters['id'] ?? '')
  checkIfMatch(call, row)
  const { port_id: portId, fixed_ip_address: fixedIp } = values
  const target =
    portId === undefined && fixedIp === undefined
      ? {}
      : associate(call, row, portId === undefined ? row.port_id : portId, fixedIp)
  const description = values['description'] === undefined ? row.description : String(values['description'])
  const floating = put(call.state, 'floatingips', bump({ ...row, ...target, description }))
  settle(call.state, floating.id)
  return { status: 200, body: { floatingip: view(call, floating) } }
}

function destroy(call: Call): Answer {
  const row = get(call, floatingIpKind, call.parameters['id'] ?? '')
  checkIfMatch(call, row)
  remove(call.state, 'floatingips', row.id)
  return { status: 204 }
}

export const floatingIpRoutes: RouteTable = [
  ['GET', '/v2.0/floatingips', index(floatingIpKind)],
  ['POST', '/v2.0/floatingips', create],
  ['GET', '/v2.0/floatingips/:id', show(floatingIpKind)],
  ['PUT', '/v2.0/floatingips/:id', update],
  ['DELETE', '/v2.0/floatingips/:id', destroy],
]
