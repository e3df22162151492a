// SPDX-License-Identifier: Apache-2.0

/** Giving ports to servers and taking them back: what Nova does in Neutron. */
import { randomUUID } from 'node:crypto'
import { type Call, caller } from '../call.ts'
import { Fault } from '../fault.ts'
import { allocate, allocateAny, resolveIps, sortIps } from '../neutron/address.ts'
import { deletePort, randomMac } from '../neutron/port.ts'
import { hasQuota } from '../neutron/quota.ts'
import { bump } from '../neutron/resource.ts'
import { defaultGroup } from '../neutron/securitygroup.ts'
import { find, later, list, type Network, type Port, put, type Server, type State, timestamp } from '../state.ts'

/** What a request asks for: a port, or a network and perhaps an address in it, or neither. */
export type NicWish = { readonly port?: unknown; readonly net?: unknown; readonly fixed?: unknown }

/** The port to attach; `made` says that it was made for this and goes with the server. */
export function choosePort(call: Call, server: Server, wish: NicWish): { port: Port; made: boolean } {
  if (wish.port !== undefined) return { port: existingPort(call, String(wish.port)), made: false }
  return { port: makePort(call, server, chooseNetwork(call, wish.net), wish.fixed), made: true }
}

function existingPort(call: Call, id: string): Port {
  const port = find(call.state, 'ports', id)
  if (port === undefined) throw new Fault(404, 'itemNotFound', `Port id ${id} could not be found.`)
  if (port.device_id !== '') throw new Fault(409, 'conflictingRequest', `Port ${id} is still in use.`)
  return port
}

function chooseNetwork(call: Call, id: unknown): Network {
  const own = list(call.state, 'networks').filter(
    network => network.shared || network.project_id === caller(call).projectId,
  )
  if (id === undefined) {
    if (own.length === 1) return own[0]!
    throw new Fault(400, 'badRequest', 'Multiple possible networks found, use a Network ID to be more specific.')
  }
  const network = own.find(candidate => candidate.id === id)
  if (network !== undefined) return network
  // Recorded: Nova breaks on an unknown network.
  throw new Fault(
    500,
    'computeFault',
    "Unexpected API Error. Please report this at http://bugs.launchpad.net/nova/ and attach the Nova API log if possible.\n<class 'oslo_messaging.rpc.client.RemoteError'>",
  )
}

function makePort(call: Call, server: Server, network: Network, fixed: unknown): Port {
  const { state } = call
  if (!hasQuota(state, server.project_id, 'port', 1)) {
    throw new Fault(403, 'forbidden', 'Maximum number of ports exceeded')
  }
  const now = timestamp()
  return put(state, 'ports', {
    id: randomUUID(),
    project_id: server.project_id,
    name: '',
    description: '',
    tags: [],
    created_at: now,
    updated_at: now,
    revision_number: 1,
    network_id: network.id,
    mac_address: randomMac(state),
    admin_state_up: true,
    status: 'DOWN',
    device_id: '',
    device_owner: '',
    fixed_ips: sortIps(madeAddresses(state, network, fixed)),
    allowed_address_pairs: [],
    security_groups: [defaultGroup(state, server.project_id).id],
    port_security_enabled: network.port_security_enabled,
    'binding:vnic_type': 'normal',
    'binding:host_id': '',
    'binding:profile': {},
  })
}

/** Neutron's refusals in Nova's words. */
function madeAddresses(state: State, network: Network, fixed: unknown) {
  try {
    if (typeof fixed !== 'string') return allocateAny(state, network)
    return allocate(state, network, resolveIps(state, network, [{ ip_address: fixed }]))
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    if (error.type === 'IpAddressGenerationFailure') {
      throw new Fault(400, 'badRequest', `No fixed IP addresses available for network: ${network.id}`)
    }
    if (error.type === 'IpAddressAlreadyAllocated') {
      throw new Fault(409, 'conflictingRequest', `Fixed IP ${String(fixed)} is already in use.`)
    }
    throw new Fault(400, 'badRequest', error.message)
  }
}

/** Gives the port to the server; it becomes ACTIVE a little later. */
export function attachPort(state: State, serverId: string, port: Port, made: boolean, tag: string | null): void {
  const server = find(state, 'servers', serverId)!
  const bound = { device_id: serverId, device_owner: 'compute:nova', 'binding:host_id': 'mooring-simulator' }
  put(state, 'ports', bump({ ...port, ...bound }, 2))
  put(state, 'servers', { ...server, ports: [...server.ports, { id: port.id, made, tag }] })
  later(state, state.settings.latency.portUpMs, () => {
    const now = find(state, 'ports', port.id)
    if (now?.device_id === serverId) put(state, 'ports', bump({ ...now, status: 'ACTIVE' }))
  })
}

/** Takes the port from its server: a made one is deleted, another one is free again. */
export function freePort(state: State, id: string, made: boolean): void {
  if (made) {
    deletePort(state, id)
    return
  }
  const port = find(state, 'ports', id)
  if (port === undefined) return
  const server = find(state, 'servers', port.device_id)
  if (server !== undefined) {
    put(state, 'servers', { ...server, ports: server.ports.filter(nic => nic.id !== id) })
  }
  put(state, 'ports', bump({ ...port, device_id: '', device_owner: '', status: 'DOWN', 'binding:host_id': '' }, 2))
}
