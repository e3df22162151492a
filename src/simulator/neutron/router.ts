// SPDX-License-Identifier: Apache-2.0

/** Routers, their interfaces and gateways. Like ports, a PUT of `routes` applies the difference to what it read. */
import { randomUUID } from 'node:crypto'
import { parseIp, parsePrefix, prefixContains } from '#base'
import { type Answer, asObject, type Call, isAdmin, pause, type RouteTable } from '../call.ts'
import { Fault } from '../fault.ts'
import {
  type FixedIp,
  find,
  list,
  type Network,
  type Port,
  put,
  type Route,
  type Router,
  remove,
  type State,
  type Subnet,
  timestamp,
} from '../state.ts'
import { allocate, allocateAny } from './address.ts'
import { type Attributes, boolean, decodeMember, standardAttributes } from './attribute.ts'
import { networkKind } from './network.ts'
import { portKind, randomMac } from './port.ts'
import { demandQuota } from './quota.ts'
import { bump, checkIfMatch, get, index, type Kind, newRow, show, standardView } from './resource.ts'
import { addRoutes, checkRoutes, extraRoutes, removeRoutes, replacedRoutes, sameRoutes } from './route.ts'
import { subnetKind } from './subnet.ts'

const attributes: Attributes = {
  ...standardAttributes,
  admin_state_up: { post: true, put: true, convert: boolean },
  external_gateway_info: { post: true, put: true },
  routes: { put: true, convert: replacedRoutes },
  distributed: { post: true, put: true, adminPost: true, adminPut: true },
  ha: { post: true, put: true, adminPost: true, adminPut: true },
  availability_zone_hints: { post: true },
  flavor_id: { post: true },
}

export const routerKind: Kind<'routers'> = {
  rows: 'routers',
  collection: 'routers',
  member: 'router',
  notFound: id => new Fault(404, 'RouterNotFound', `Router ${id} could not be found`),
  view: (call, row) => routerView(row, isAdmin(call)),
}

const routerView = (row: Router, isFull: boolean) => ({
  ...standardView(row),
  name: row.name,
  admin_state_up: row.admin_state_up,
  status: 'ACTIVE',
  external_gateway_info: row.external_gateway_info,
  availability_zones: ['nova'],
  availability_zone_hints: [],
  routes: row.routes,
  flavor_id: null,
  ...(isFull && { distributed: false, ha: false }),
})

type Values = Readonly<Record<string, unknown>>

function create(call: Call): Answer {
  const values = decodeMember(call, 'router', attributes)
  const row = newRow(call, values, 1)
  demandQuota(call.state, row.project_id, 'router', 1)
  const bare: Router = {
    ...row,
    admin_state_up: (values['admin_state_up'] as boolean | undefined) ?? true,
    external_gateway_info: null,
    gw_port_id: null,
    routes: [],
  }
  const router = put(call.state, 'routers', withGateway(call, bare, values))
  return { status: 201, body: { router: routerView(router, isAdmin(call)) } }
}

/** The router with the gateway that the values ask for, and the gateway's port made or removed. */
function withGateway(call: Call, router: Router, values: Values): Router {
  if (values['external_gateway_info'] === undefined) return router
  const { state } = call
  const wanted = asObject(values['external_gateway_info'])
  const networkId = wanted?.['network_id']
  if (typeof networkId === 'string' && networkId === router.external_gateway_info?.network_id) {
    const snat = (wanted?.['enable_snat'] as boolean | undefined) ?? router.external_gateway_info.enable_snat
    return bump({ ...router, external_gateway_info: { ...router.external_gateway_info, enable_snat: snat } })
  }
  if (router.gw_port_id !== null) {
    if (list(state, 'floatingips').some(floating => floating.router_id === router.id)) {
      throw new Fault(
        409,
        'RouterExternalGatewayInUseByFloatingIp',
        `Gateway cannot be updated for router ${router.id}, since a gateway to external network ${router.external_gateway_info?.network_id} is required by one or more floating IPs.`,
      )
    }
    remove(state, 'ports', router.gw_port_id)
  }
  if (typeof networkId !== 'string') return bump({ ...router, external_gateway_info: null, gw_port_id: null })
  const network = get(call, networkKind, networkId)
  if (!network['router:external']) {
    throw new Fault(400, 'BadRequest', `Bad router request: Network ${networkId} is not an external network.`)
  }
  const fixed = allocateAny(state, network)
  const port = putRouterPort(state, network, router.id, 'network:router_gateway', fixed, '')
  const snat = (wanted?.['enable_snat'] as boolean | undefined) ?? true
  return bump({
    ...router,
    gw_port_id: port.id,
    external_gateway_info: { network_id: network.id, external_fixed_ips: fixed, enable_snat: snat },
  })
}

function putRouterPort(
  state: State,
  network: Network,
  routerId: string,
  owner: string,
  fixed: readonly FixedIp[],
  projectId: string,
): Port {
  const now = timestamp()
  return put(state, 'ports', {
    id: randomUUID(),
    project_id: projectId,
    name: '',
    description: '',
    tags: [],
    created_at: now,
    updated_at: now,
    revision_number: 3,
    network_id: network.id,
    mac_address: randomMac(state),
    admin_state_up: true,
    status: 'ACTIVE',
    device_id: routerId,
    device_owner: owner,
    fixed_ips: fixed,
    allowed_address_pairs: [],
    security_groups: [],
    port_security_enabled: false,
    'binding:vnic_type': 'normal',
    'binding:host_id': 'mooring-simulator',
    'binding:profile': {},
  })
}

async function update(call: Call): Promise<Answer> {
  const { state } = call
  const id = call.parameters['id'] ?? ''
  const values = decodeMember(call, 'router', attributes)
  const read = get(call, routerKind, id)
  checkIfMatch(call, read)
  const routes = values['routes'] as readonly Route[] | undefined
  if (routes !== undefined) checkRoutes(state, read, routes)

  await pause(state.settings.latency.commitMs)

  const now = find(state, 'routers', id)
  if (now === undefined) throw routerKind.notFound(id)
  const { external_gateway_info: _, routes: __, tags: ___, ...plain } = values
  let written = { ...withGateway(call, now, values), ...plain } as Router
  if (routes !== undefined) {
    const added = removeRoutes(routes, read.routes)
    const removed = removeRoutes(read.routes, routes)
    written = { ...written, routes: addRoutes(removeRoutes(now.routes, removed), added) }
    // Recorded: a replacement by the same routes bumps nothing.
    if (!sameRoutes(written.routes, now.routes)) written = bump(written)
  }
  put(state, 'routers', Object.keys(plain).length > 0 ? bump(written) : written)
  // Two that overlap are answered with what the router has by then, unlike ports.
  await pause(state.settings.latency.commitMs)
  return { status: 200, body: { router: routerView(find(state, 'routers', id) ?? written, isAdmin(call)) } }
}

/** `add_extraroutes` and `remove_extraroutes`: applied to what is there, so they never lose anything. */
function changeRoutes(change: (held: readonly Route[], given: readonly Route[]) => Route[]) {
  return async (call: Call): Promise<Answer> => {
    const { state } = call
    const id = call.parameters['id'] ?? ''
    get(call, routerKind, id)
    const given = extraRoutes(call)
    await pause(state.settings.latency.commitMs)
    const now = get(call, routerKind, id)
    const routes = change(now.routes, given)
    checkRoutes(state, now, routes)
    let router = now
    if (!sameRoutes(routes, now.routes)) {
      checkIfMatch(call, now)
      router = put(state, 'routers', bump({ ...now, routes }))
    }
    const full = { ...routerView(router, true), gw_port_id: router.gw_port_id, ha_vr_id: 0 }
    return { status: 200, body: { router: full } }
  }
}

function interfaceAnswer(router: Router, port: Port): Answer {
  const subnets = port.fixed_ips.map(fixed => fixed.subnet_id)
  return {
    status: 200,
    body: {
      id: router.id,
      tenant_id: router.project_id,
      port_id: port.id,
      network_id: port.network_id,
      subnet_id: subnets[0],
      subnet_ids: subnets,
    },
  }
}

function addInterface(call: Call): Answer {
  const { state } = call
  const router = get(call, routerKind, call.parameters['id'] ?? '')
  const wanted = asObject(call.body) ?? {}
  if (typeof wanted['port_id'] === 'string') {
    const port = get(call, portKind, wanted['port_id'])
    if (port.device_id !== '') {
      throw new Fault(
        409,
        'PortInUse',
        `Unable to complete operation on port ${port.id} for network ${port.network_id}. Port already has an attached device ${port.device_id}.`,
      )
    }
    const owner = { device_id: router.id, device_owner: 'network:router_interface', status: 'ACTIVE' as const }
    const taken = put(state, 'ports', bump({ ...port, ...owner, port_security_enabled: false, security_groups: [] }))
    put(state, 'routers', bump(router))
    return interfaceAnswer(router, taken)
  }
  if (typeof wanted['subnet_id'] !== 'string') {
    throw new Fault(400, 'BadRequest', 'Bad router request: Either subnet_id or port_id must be specified.')
  }
  const subnet = get(call, subnetKind, wanted['subnet_id'])
  if (subnet.gateway_ip === null) {
    throw new Fault(400, 'BadRequest', `Bad router request: Subnet for router interface must have a gateway IP.`)
  }
  if (interfacesOf(state, router).some(port => port.fixed_ips.some(fixed => fixed.subnet_id === subnet.id))) {
    throw new Fault(400, 'BadRequest', `Bad router request: Router already has a port on subnet ${subnet.id}.`)
  }
  demandQuota(state, router.project_id, 'port', 1)
  const network = find(state, 'networks', subnet.network_id)!
  const fixed = allocate(state, network, [{ subnet_id: subnet.id, ip_address: subnet.gateway_ip }])
  const port = putRouterPort(state, network, router.id, 'network:router_interface', fixed, router.project_id)
  put(state, 'routers', bump(router))
  return interfaceAnswer(router, port)
}

const interfacesOf = (state: State, router: Router): Port[] =>
  list(state, 'ports').filter(port => port.device_id === router.id && port.device_owner === 'network:router_interface')

function removeInterface(call: Call): Answer {
  const { state } = call
  const router = get(call, routerKind, call.parameters['id'] ?? '')
  const { port_id: portId, subnet_id: subnetId } = asObject(call.body) ?? {}
  const port = interfacesOf(state, router).find(
    candidate =>
      (portId === undefined || candidate.id === portId) &&
      (subnetId === undefined || candidate.fixed_ips.some(fixed => fixed.subnet_id === subnetId)),
  )
  if (port === undefined || (portId === undefined && subnetId === undefined)) {
    throw new Fault(
      404,
      'RouterInterfaceNotFound',
      `Router ${router.id} does not have an interface with id ${String(portId ?? subnetId)}`,
    )
  }
  const subnet = find(state, 'subnets', port.fixed_ips[0]?.subnet_id ?? '')
  if (subnet !== undefined) demandUnused(state, router, subnet)
  remove(state, 'ports', port.id)
  put(state, 'routers', bump(router))
  return interfaceAnswer(router, port)
}

function demandUnused(state: State, router: Router, subnet: Subnet): void {
  const prefix = parsePrefix(subnet.cidr)
  const text = `Router interface for subnet ${subnet.id} on router ${router.id} cannot be deleted, as it is required by one or more`
  if (router.routes.some(route => prefixContains(prefix, parseIp(route.nexthop)))) {
    throw new Fault(409, 'RouterInterfaceInUseByRoute', `${text} routes.`)
  }
  const floats = list(state, 'floatingips').filter(floating => floating.router_id === router.id)
  if (floats.some(floating => prefixContains(prefix, parseIp(floating.fixed_ip_address ?? '::')))) {
    throw new Fault(409, 'RouterInterfaceInUseByFloatingIP', `${text} floating IPs.`)
  }
}

function destroy(call: Call): Answer {
  const { state } = call
  const router = get(call, routerKind, call.parameters['id'] ?? '')
  checkIfMatch(call, router)
  const attached = interfacesOf(state, router).map(port => port.id)
  if (attached.length > 0) {
    throw new Fault(409, 'RouterInUse', `Router ${router.id} has ports still attached: ${attached.join(', ')}`)
  }
  if (router.gw_port_id !== null) remove(state, 'ports', router.gw_port_id)
  remove(state, 'routers', router.id)
  return { status: 204 }
}

export const routerRoutes: RouteTable = [
  ['GET', '/v2.0/routers', index(routerKind)],
  ['POST', '/v2.0/routers', create],
  ['GET', '/v2.0/routers/:id', show(routerKind)],
  ['PUT', '/v2.0/routers/:id', update],
  ['DELETE', '/v2.0/routers/:id', destroy],
  ['PUT', '/v2.0/routers/:id/add_extraroutes', changeRoutes(addRoutes)],
  ['PUT', '/v2.0/routers/:id/remove_extraroutes', changeRoutes(removeRoutes)],
  ['PUT', '/v2.0/routers/:id/add_router_interface', addInterface],
  ['PUT', '/v2.0/routers/:id/remove_router_interface', removeInterface],
]
