// SPDX-License-Identifier: Apache-2.0

/** Servers, as far as networking goes: they have NICs, and a data plane gives them a network namespace. */
import { randomUUID } from 'node:crypto'
import { type Answer, asObject, type Call, caller, isAdmin, type RouteTable } from '../call.ts'
import { Fault } from '../fault.ts'
import { type Flavor, find, later, list, put, remove, type Server, timestamp } from '../state.ts'
import { attachPort, choosePort, freePort } from './nic.ts'

/** The server, or Nova's 404. */
export function getServer(call: Call): Server {
  const id = call.parameters['server'] ?? ''
  const server = list(call.state, 'servers', call.asOfMs).find(row => row.id === id)
  if (server === undefined || (!isAdmin(call) && server.project_id !== caller(call).projectId)) {
    throw new Fault(404, 'itemNotFound', `Instance ${id} could not be found.`)
  }
  return server
}

function linksOf(call: Call, kind: string, id: string) {
  const bookmark = { rel: 'bookmark', href: `${call.origin}/${kind}/${id}` }
  return [{ rel: 'self', href: `${call.origin}/v2.1/${kind}/${id}` }, bookmark]
}

const brief = (call: Call, server: Server) => ({
  id: server.id,
  name: server.name,
  links: linksOf(call, 'servers', server.id),
})

function view(call: Call, server: Server) {
  const isActive = server.status === 'ACTIVE'
  return {
    ...brief(call, server),
    status: server.status,
    tenant_id: server.project_id,
    user_id: server.user_id,
    metadata: server.metadata,
    hostId: '',
    image: '',
    flavor: { id: server.flavor_id, links: linksOf(call, 'flavors', server.flavor_id).slice(1) },
    created: server.created,
    updated: server.updated,
    addresses: addressesOf(call, server),
    accessIPv4: '',
    accessIPv6: '',
    progress: 0,
    config_drive: '',
    key_name: null,
    security_groups: [{ name: 'default' }],
    'OS-DCF:diskConfig': 'MANUAL',
    'OS-EXT-AZ:availability_zone': 'nova',
    'OS-EXT-STS:task_state': isActive ? null : 'spawning',
    'OS-EXT-STS:vm_state': isActive ? 'active' : 'building',
    'OS-EXT-STS:power_state': isActive ? 1 : 0,
    'os-extended-volumes:volumes_attached': [],
  }
}

function addressesOf(call: Call, server: Server) {
  const byNetwork: Record<string, unknown[]> = {}
  for (const nic of server.ports) {
    const port = find(call.state, 'ports', nic.id)
    const network = port && find(call.state, 'networks', port.network_id)
    if (port === undefined || network === undefined) continue
    byNetwork[network.name] ??= []
    for (const fixed of port.fixed_ips) {
      byNetwork[network.name]!.push({
        version: fixed.ip_address.includes(':') ? 6 : 4,
        addr: fixed.ip_address,
        'OS-EXT-IPS:type': 'fixed',
        'OS-EXT-IPS-MAC:mac_addr': port.mac_address,
      })
    }
  }
  return byNetwork
}

function listed(call: Call): Server[] {
  const name = call.query.get('name')
  const status = call.query.get('status')
  const everybody = isAdmin(call) && call.query.has('all_tenants')
  return list(call.state, 'servers', call.asOfMs)
    .filter(server => everybody || server.project_id === caller(call).projectId)
    .filter(server => status === null || server.status === status.toUpperCase())
    .filter(server => name === null || new RegExp(name).test(server.name))
    .toReversed()
}

function create(call: Call): Answer {
  const { state } = call
  const wanted = asObject(asObject(call.body)?.['server'])
  if (wanted === undefined || typeof wanted['name'] !== 'string') {
    throw new Fault(400, 'badRequest', "Invalid input for field/attribute server. 'name' is a required property")
  }
  const flavorId = String(wanted['flavorRef'])
  if (find(state, 'flavors', flavorId) === undefined) {
    throw new Fault(400, 'badRequest', `Flavor ${flavorId} could not be found.`)
  }
  const networks = Array.isArray(wanted['networks']) ? wanted['networks'] : []
  const now = timestamp()
  const id = randomUUID()
  const server = put(state, 'servers', {
    id,
    project_id: caller(call).projectId ?? '',
    user_id: caller(call).userId,
    name: wanted['name'],
    flavor_id: flavorId,
    status: 'BUILD',
    metadata: (asObject(wanted['metadata']) ?? {}) as Record<string, string>,
    created: now,
    updated: now,
    ports: [],
  })
  try {
    for (const entry of networks) {
      const { port, uuid: net, fixed_ip: fixed } = asObject(entry) ?? {}
      const wish = { ...(port !== undefined && { port }), ...(net !== undefined && { net }), fixed }
      const choice = choosePort(call, server, wish)
      attachPort(state, id, choice.port, choice.made, null)
    }
  } catch (error) {
    for (const nic of find(state, 'servers', id)?.ports ?? []) freePort(state, nic.id, nic.made)
    remove(state, 'servers', id)
    throw error
  }
  later(state, state.settings.latency.buildMs, () => {
    const built = find(state, 'servers', id)
    if (built !== undefined) put(state, 'servers', { ...built, status: 'ACTIVE', updated: timestamp() })
  })
  const { links } = brief(call, server)
  const extras = { 'OS-DCF:diskConfig': 'MANUAL', security_groups: [{ name: 'default' }] }
  return { status: 202, body: { server: { id, links, ...extras } } }
}

/** The server is gone a little later; ports that existed before it stay and are freed. */
function destroy(call: Call): Answer {
  const { state } = call
  const { id } = getServer(call)
  later(state, state.settings.latency.detachMs, () => {
    for (const nic of find(state, 'servers', id)?.ports ?? []) freePort(state, nic.id, nic.made)
    remove(state, 'servers', id)
  })
  return { status: 204 }
}

const flavorView = (call: Call, { id, name }: Flavor) => ({
  id,
  name,
  links: linksOf(call, 'flavors', id),
})

function getFlavor(call: Call): Flavor {
  const flavor = find(call.state, 'flavors', call.parameters['id'] ?? '')
  if (flavor !== undefined) return flavor
  throw new Fault(404, 'itemNotFound', `Flavor ${call.parameters['id']} could not be found.`)
}

export const serverRoutes: RouteTable = [
  ['GET', '/v2.1/servers', call => ({ status: 200, body: { servers: listed(call).map(row => brief(call, row)) } })],
  [
    'GET',
    '/v2.1/servers/detail',
    call => ({ status: 200, body: { servers: listed(call).map(row => view(call, row)) } }),
  ],
  ['GET', '/v2.1/servers/:server', call => ({ status: 200, body: { server: view(call, getServer(call)) } })],
  ['POST', '/v2.1/servers', create],
  ['DELETE', '/v2.1/servers/:server', destroy],
  [
    'GET',
    '/v2.1/flavors',
    call => ({ status: 200, body: { flavors: list(call.state, 'flavors').map(row => flavorView(call, row)) } }),
  ],
  ['GET', '/v2.1/flavors/:id', call => ({ status: 200, body: { flavor: flavorView(call, getFlavor(call)) } })],
  [
    'GET',
    '/v2.1/flavors/:id/os-extra_specs',
    call => ({ status: 200, body: { extra_specs: getFlavor(call).extra_specs ?? {} } }),
  ],
]
