// SPDX-License-Identifier: Apache-2.0

/** `os-interface`: the NICs of a server. Attaching takes long; detaching is only queued, whatever is named. */
import { type Answer, asObject, type Call, type RouteTable } from '../call.ts'
import { Fault } from '../fault.ts'
import { isUuid, python } from '../neutron/attribute.ts'
import { find, later, list, type Port, type Server } from '../state.ts'
import { attachPort, choosePort, freePort } from './nic.ts'
import { getServer } from './server.ts'
import { minorVersion } from './version.ts'

/** From this microversion on, attachments show and take a tag. */
const TAG_SINCE = 70

function view(call: Call, server: Server, port: Port) {
  const tag = server.ports.find(nic => nic.id === port.id)?.tag ?? null
  return {
    net_id: port.network_id,
    port_id: port.id,
    mac_addr: port.mac_address,
    port_state: port.status,
    fixed_ips: port.fixed_ips,
    ...(minorVersion(call) >= TAG_SINCE && { tag }),
  }
}

/** Asks Neutron, not Nova's own notes. */
function index(call: Call): Answer {
  const server = getServer(call)
  const ports = list(call.state, 'ports', call.asOfMs)
    .filter(port => port.device_id === server.id)
    .sort((a, b) => (a.id < b.id ? -1 : 1))
  return { status: 200, body: { interfaceAttachments: ports.map(port => view(call, server, port)) } }
}

function show(call: Call): Answer {
  const server = getServer(call)
  const id = call.parameters['port'] ?? ''
  const port = list(call.state, 'ports', call.asOfMs).find(row => row.id === id)
  if (port === undefined) throw new Fault(404, 'itemNotFound', `Port id ${id} could not be found.`)
  if (port.device_id !== server.id) {
    throw new Fault(404, 'itemNotFound', `Instance ${server.id} does not have a port with id ${id}`)
  }
  return { status: 200, body: { interfaceAttachment: view(call, server, port) } }
}

const bad = (message: string): Fault => new Fault(400, 'badRequest', message)

function attach(call: Call): Answer {
  const wanted = asObject(asObject(call.body)?.['interfaceAttachment']) ?? {}
  const known = ['port_id', 'net_id', 'fixed_ips', ...(minorVersion(call) >= TAG_SINCE ? ['tag'] : [])]
  const unknown = Object.keys(wanted).find(key => !known.includes(key))
  if (unknown !== undefined) {
    throw bad(
      `Invalid input for field/attribute interfaceAttachment. Value: ${python(wanted)}. Additional properties are not allowed ('${unknown}' was unexpected)`,
    )
  }
  for (const key of ['port_id', 'net_id'] as const) {
    const value = wanted[key]
    if (value === undefined || isUuid(value)) continue
    throw bad(`Invalid input for field/attribute ${key}. Value: ${String(value)}. ${python(value)} is not a 'uuid'`)
  }
  const { port_id: port, net_id: net, tag } = wanted
  const fixed = Array.isArray(wanted['fixed_ips']) ? asObject(wanted['fixed_ips'][0])?.['ip_address'] : undefined
  if (port !== undefined && net !== undefined) throw bad('Must not input both network_id and port_id')
  if (fixed !== undefined && net === undefined) throw bad('Must input network_id when request IP address')
  const server = getServer(call)
  const choice = choosePort(call, server, {
    ...(port !== undefined && { port }),
    ...(net !== undefined && { net }),
    fixed,
  })
  requireSlot(call, server, choice)
  attachPort(call.state, server.id, choice.port, choice.made, typeof tag === 'string' ? tag : null)
  call.extraMs += call.state.settings.latency.attachMs
  const attached = find(call.state, 'ports', choice.port.id)!
  return { status: 200, body: { interfaceAttachment: view(call, find(call.state, 'servers', server.id)!, attached) } }
}

/** The hypervisor's refusal, after Nova has given the port to the server and taken it back. Read in the source of Nova. */
function requireSlot({ state }: Call, server: Server, { port, made }: { port: Port; made: boolean }): void {
  if (server.ports.length < state.settings.maxNics) return
  if (made) freePort(state, port.id, made)
  throw new Fault(500, 'computeFault', `Failed to attach network adapter device to ${server.id}`)
}

/** 202 for anything: a port that is gone, one that was never attached, a name that is no id. */
function detach(call: Call): Answer {
  const { state } = call
  const server = getServer(call)
  const id = call.parameters['port'] ?? ''
  later(state, state.settings.latency.detachMs, () => {
    const nic = find(state, 'servers', server.id)?.ports.find(candidate => candidate.id === id)
    if (nic !== undefined) freePort(state, nic.id, nic.made)
  })
  return { status: 202 }
}

export const interfaceRoutes: RouteTable = [
  ['GET', '/v2.1/servers/:server/os-interface', index],
  ['POST', '/v2.1/servers/:server/os-interface', attach],
  ['GET', '/v2.1/servers/:server/os-interface/:port', show],
  ['DELETE', '/v2.1/servers/:server/os-interface/:port', detach],
]
