// SPDX-License-Identifier: Apache-2.0

/**
 * Ports. A PUT is handled in two phases as in Neutron: it reads, takes its time, and applies the *difference* between the
 * request and what it read. Two that overlap therefore both succeed and leave the union, and `If-Match` stops neither. Where
 * the database breaks one off (a deadlock), Neutron makes it again on what the first has left: then it undoes that one.
 */
import { randomBytes } from 'node:crypto'
import { type Answer, type Call, isAdmin, pause, type RouteTable } from '../call.ts'
import { badRequest, Fault } from '../fault.ts'
import {
  type AddressPair,
  type FixedIp,
  find,
  list,
  type Network,
  type Port,
  put,
  remove,
  type State,
} from '../state.ts'
import {
  allocate,
  allocateAny,
  automaticIps,
  difference,
  fixedIps,
  isAutomatic,
  resolveIps,
  sortIps,
  subnetsOf,
  type WantedIp,
} from './address.ts'
import { addressPairs, checkAddedMeanwhile, completePairs } from './addresspair.ts'
import {
  type Attributes,
  boolean,
  decodeBulk,
  decodeMember,
  mac,
  standardAttributes,
  string,
  uuid,
  uuids,
} from './attribute.ts'
import { networkKind } from './network.ts'
import { demandQuota } from './quota.ts'
import { bump, checkIfMatch, get, index, isOwn, type Kind, newRow, show, standardView } from './resource.ts'
import { defaultGroup } from './securitygroup.ts'
import { checkSharedNetwork } from './sharednetwork.ts'

const attributes: Attributes = {
  ...standardAttributes,
  network_id: { post: true, required: true, convert: uuid },
  mac_address: { post: true, put: true, adminPut: true, convert: mac },
  admin_state_up: { post: true, put: true, convert: boolean },
  device_id: { post: true, put: true, convert: string },
  device_owner: { post: true, put: true, convert: string },
  fixed_ips: { post: true, put: true, convert: fixedIps },
  allowed_address_pairs: { post: true, put: true, convert: addressPairs },
  security_groups: { post: true, put: true, convert: (value, name) => (value === null ? [] : uuids(value, name)) },
  port_security_enabled: { post: true, put: true, convert: boolean },
  'binding:vnic_type': { post: true, put: true, convert: string },
  'binding:host_id': { post: true, put: true, adminPost: true, adminPut: true },
  'binding:profile': { post: true, put: true, adminPost: true, adminPut: true },
  'binding:vif_type': {},
  'binding:vif_details': {},
  extra_dhcp_opts: { post: true, put: true },
  qos_policy_id: { post: true, put: true },
}

export const portKind: Kind<'ports'> = {
  rows: 'ports',
  collection: 'ports',
  member: 'port',
  notFound: id => new Fault(404, 'PortNotFound', `Port ${id} could not be found.`),
  view: portView,
  visible: (call, row) => {
    const network = find(call.state, 'networks', row.network_id)
    return isOwn(call, row) || (network !== undefined && isOwn(call, network))
  },
  filters: {
    fixed_ips: (view, values) => matchFixedIps(view['fixed_ips'] as FixedIp[], values),
    'binding:host_id': (view, values) => values.includes(String(view['binding:host_id'] ?? '')),
  },
  unfilterable: ['allowed_address_pairs', 'extra_dhcp_opts'],
}

function portView(call: Call, row: Port): Readonly<Record<string, unknown>> {
  const trunk = list(call.state, 'trunks', call.asOfMs).find(candidate => candidate.port_id === row.id)
  const isBound = row['binding:host_id'] !== ''
  return {
    ...standardView(row),
    name: row.name,
    network_id: row.network_id,
    mac_address: row.mac_address,
    admin_state_up: row.admin_state_up,
    status: row.status,
    device_id: row.device_id,
    device_owner: row.device_owner,
    fixed_ips: sortIps(row.fixed_ips),
    allowed_address_pairs: row.allowed_address_pairs,
    extra_dhcp_opts: [],
    security_groups: row.security_groups,
    'binding:vnic_type': row['binding:vnic_type'],
    ...(isAdmin(call) && {
      'binding:profile': row['binding:profile'],
      'binding:host_id': row['binding:host_id'],
      'binding:vif_type': isBound ? 'bridge' : 'unbound',
      'binding:vif_details': isBound ? { connectivity: 'l2', port_filter: true } : {},
      resource_request: null,
    }),
    port_security_enabled: row.port_security_enabled,
    qos_policy_id: null,
    qos_network_policy_id: null,
    ...(trunk && {
      trunk_details: {
        trunk_id: trunk.id,
        sub_ports: trunk.sub_ports.map(sub => ({
          ...sub,
          mac_address: find(call.state, 'ports', sub.port_id)?.mac_address ?? null,
        })),
      },
    }),
  }
}

/** `fixed_ips=ip_address=A`: values of one key are alternatives, keys add up; unknown keys say nothing. */
function matchFixedIps(held: readonly FixedIp[], values: readonly string[]): boolean {
  const wanted = new Map<string, string[]>()
  for (const value of values) {
    const at = value.indexOf('=')
    if (at < 0) {
      throw new Fault(400, 'InvalidInput', `Invalid input for operation: '${value}' is not of the form <key>=[value].`)
    }
    const key = value.slice(0, at)
    wanted.set(key, [...(wanted.get(key) ?? []), value.slice(at + 1)])
  }
  const ips = wanted.get('ip_address')
  const parts = wanted.get('ip_address_substr')
  const subnets = wanted.get('subnet_id')
  if (ips === undefined && parts === undefined && subnets === undefined) return true
  return held.some(
    fixed =>
      (ips === undefined || ips.includes(fixed.ip_address)) &&
      (parts === undefined || parts.some(part => fixed.ip_address.includes(part))) &&
      (subnets === undefined || subnets.includes(fixed.subnet_id)),
  )
}

type Values = Readonly<Record<string, unknown>>

async function create(call: Call): Promise<Answer> {
  const bulk = decodeBulk(call, 'port', 'ports', attributes)
  if (bulk === undefined) {
    const values = decodeMember(call, 'port', attributes)
    await pause(call.state.settings.latency.commitMs)
    const port = put(call.state, 'ports', newPort(call, values, []))
    return { status: 201, body: { port: portView(call, port) } }
  }
  await pause(call.state.settings.latency.commitMs)
  const projectId = newRow(call, {}, 1).project_id
  demandQuota(call.state, projectId, 'port', bulk.length)
  const ports: Port[] = []
  try {
    for (const values of bulk) demandMacs(call, values)
    // Extension tag-ports-during-bulk-creation: here, and not in the creation of one, the tags stay.
    for (const values of bulk) ports.push({ ...newPort(call, values, ports), tags: tagsOf(values) })
  } catch (error) {
    leak(
      call.state,
      ports.flatMap(port => port.fixed_ips),
    )
    throw error
  }
  for (const port of ports) put(call.state, 'ports', port)
  return { status: 201, body: { ports: ports.map(port => portView(call, port)) } }
}

/** Recorded with Neutron 21: of several ports at once it makes the addresses before the MACs that it gives itself, and SLAAC needs them. */
function demandMacs(call: Call, values: Values): void {
  const network = get(call, networkKind, String(values['network_id']))
  if (values['mac_address'] !== undefined || !subnetsOf(call.state, network).some(isAutomatic)) return
  throw new Fault(
    500,
    'HTTPInternalServerError',
    'Request Failed: internal server error while processing your request.',
  )
}

const tagsOf = ({ tags }: Values): string[] => (Array.isArray(tags) ? [...new Set(tags.map(String))] : [])

/** Recorded: a bulk creation that fails leaves no port, but the addresses that it took stay reserved for nobody. */
function leak(state: State, ips: readonly FixedIp[]): void {
  for (const { subnet_id: id, ip_address: ip } of ips) {
    const subnet = find(state, 'subnets', id)
    if (subnet !== undefined) put(state, 'subnets', { ...subnet, leaked: [...subnet.leaked, ip] })
  }
}

/** A port that is not stored yet; `siblings` are those of the same bulk. */
function newPort(call: Call, values: Values, siblings: readonly Port[]): Port {
  const { state } = call
  const network = get(call, networkKind, String(values['network_id']))
  if (!isAdmin(call) && !isOwn(call, network) && !network.shared) {
    throw new Fault(403, 'HTTPForbidden', `Tenant ${call.token?.projectId} not allowed to create port on this network`)
  }
  checkSharedNetwork(call, network, values)
  const row = newRow(call, values, 1)
  if (siblings.length === 0) demandQuota(state, row.project_id, 'port', 1)
  const address = (values['mac_address'] as string | undefined) ?? randomMac(state)
  demandFreeMac(state, network, address)
  const isSecure = (values['port_security_enabled'] as boolean | undefined) ?? network.port_security_enabled
  const pairs = (values['allowed_address_pairs'] as AddressPair[] | undefined) ?? []
  const groups = values['security_groups'] as string[] | undefined
  checkSecurity(call, isSecure, pairs, groups ?? [], false)
  const taken = siblings.flatMap(port => port.fixed_ips)
  const wanted = values['fixed_ips'] as WantedIp[] | undefined
  return {
    ...row,
    network_id: network.id,
    mac_address: address,
    admin_state_up: (values['admin_state_up'] as boolean | undefined) ?? true,
    status: 'DOWN',
    device_id: String(values['device_id'] ?? ''),
    device_owner: String(values['device_owner'] ?? ''),
    fixed_ips: sortIps([
      ...(wanted === undefined
        ? allocateAny(state, network, taken)
        : allocate(state, network, resolveIps(state, network, wanted), taken)),
      ...automaticIps(state, network, address),
    ]),
    allowed_address_pairs: completePairs(call, pairs, address),
    security_groups: groups ?? (isSecure ? [defaultGroup(state, row.project_id).id] : []),
    port_security_enabled: isSecure,
    'binding:vnic_type': String(values['binding:vnic_type'] ?? 'normal'),
    'binding:host_id': String(values['binding:host_id'] ?? ''),
    'binding:profile': (values['binding:profile'] as Port['binding:profile'] | undefined) ?? {},
  }
}

function demandFreeMac(state: State, network: Network, address: string): void {
  const twin = list(state, 'ports').find(
    port => port.network_id === network.id && port.mac_address.toLowerCase() === address.toLowerCase(),
  )
  if (twin === undefined) return
  throw new Fault(
    409,
    'MacAddressInUse',
    `Unable to complete operation for network ${network.id}. The mac address ${address} is in use.`,
  )
}

/** A MAC with OpenStack's prefix that no port has. */
export function randomMac(state: State): string {
  for (;;) {
    const address = `fa:16:3e:${randomBytes(3)
      .toString('hex')
      .replace(/..(?=.)/g, '$&:')}`
    if (!list(state, 'ports').some(port => port.mac_address === address)) return address
  }
}

/** The rules between port security, security groups and address pairs. */
function checkSecurity(
  call: Call,
  isSecure: boolean,
  pairs: readonly AddressPair[],
  groups: readonly string[],
  isPast: boolean,
): void {
  for (const id of groups) {
    if (find(call.state, 'securityGroups', id) === undefined) {
      throw new Fault(404, 'SecurityGroupNotFound', `Security group ${id} does not exist`)
    }
  }
  if (isSecure) return
  if (groups.length > 0) {
    throw isPast
      ? new Fault(
          409,
          'PortSecurityPortHasSecurityGroup',
          'Port has security group associated. Cannot disable port security or IP address until security group is removed.',
        )
      : new Fault(
          400,
          'PortSecurityAndIPRequiredForSecurityGroups',
          'Port security must be enabled and port must have an IP address in order to use security groups.',
        )
  }
  if (pairs.length > 0) {
    throw new Fault(
      409,
      'AddressPairAndPortSecurityRequired',
      'Port Security must be enabled in order to have allowed address pairs on a port.',
    )
  }
}

async function update(call: Call): Promise<Answer> {
  const { state } = call
  const id = call.parameters['id'] ?? ''
  const values = decodeMember(call, 'port', attributes)
  const read = get(call, portKind, id)
  checkIfMatch(call, read)
  const network = find(state, 'networks', read.network_id)!
  checkSharedNetwork(call, network, values)
  const wanted = values['fixed_ips'] as WantedIp[] | undefined
  const resolved = wanted && resolveIps(state, network, wanted)
  const groups = values['security_groups'] as string[] | undefined
  const isSecure = (values['port_security_enabled'] as boolean | undefined) ?? read.port_security_enabled
  const pairs = (values['allowed_address_pairs'] as AddressPair[] | undefined) ?? read.allowed_address_pairs
  checkSecurity(call, isSecure, pairs, groups ?? read.security_groups, groups === undefined)
  const completed = completePairs(call, pairs, read.mac_address)

  await pause(state.settings.latency.commitMs)

  const now = find(state, 'ports', id)
  if (now === undefined) throw portKind.notFound(id)
  const isRepeated = now.revision_number !== read.revision_number && Math.random() < state.settings.repeatedShare
  if (!isRepeated && values['allowed_address_pairs'] !== undefined) checkAddedMeanwhile(completed, read, now)
  const change = resolved && difference((isRepeated ? now : read).fixed_ips, resolved)
  const applied = change && applyDifference(state, network, now, change)
  const isMoved = change !== undefined && change.add.length + change.drop.length > 0
  const { fixed_ips: _, tags: __, ...plain } = values
  const isDirect = isMoved || Object.keys(plain).length > 0
  const isLate = !isDirect || (values['description'] !== undefined && values['description'] !== now.description)
  const written = bump(
    { ...now, ...plain, allowed_address_pairs: completed, ...(applied && { fixed_ips: applied.stored }) } as Port,
    isDirect ? 1 : 0,
  )
  // Recorded: some writes bump the revision once more after the answer was made.
  put(state, 'ports', isLate ? bump(written) : written)
  call.extraMs += state.settings.latency.addressMs * written.fixed_ips.length
  return { status: 200, body: { port: portView(call, applied ? { ...written, fixed_ips: applied.shown } : written) } }
}

/** Applies the difference to what the port holds by now. `shown` is what this request alone knows of. */
function applyDifference(
  state: State,
  network: Network,
  now: Port,
  change: ReturnType<typeof difference>,
): { stored: FixedIp[]; shown: FixedIp[] } {
  const has = (ips: readonly FixedIp[], ip: string | undefined): boolean => ips.some(fixed => fixed.ip_address === ip)
  const missing = change.add.filter(entry => !has(now.fixed_ips, entry.ip_address))
  const got = allocate(state, network, missing)
  const present = now.fixed_ips.filter(fixed => change.add.some(entry => entry.ip_address === fixed.ip_address))
  const kept = now.fixed_ips.filter(fixed => !has(change.drop, fixed.ip_address))
  return { stored: sortIps([...kept, ...got]), shown: sortIps([...change.keep, ...present, ...got]) }
}

function destroy(call: Call): Answer {
  const port = get(call, portKind, call.parameters['id'] ?? '')
  checkIfMatch(call, port)
  if (/^network:router_(interface|gateway)$/.test(port.device_owner)) {
    throw new Fault(
      409,
      'ServicePortInUse',
      `Port ${port.id} cannot be deleted directly via the port API: has device owner ${port.device_owner}.`,
    )
  }
  for (const trunk of list(call.state, 'trunks')) {
    if (trunk.port_id === port.id) {
      throw new Fault(
        409,
        'PortInUseAsTrunkParent',
        `Port ${port.id} is currently a parent port for trunk ${trunk.id}.`,
      )
    }
    if (trunk.sub_ports.some(sub => sub.port_id === port.id)) {
      throw new Fault(409, 'PortInUseAsSubPort', `Port ${port.id} is currently a subport for trunk ${trunk.id}.`)
    }
  }
  deletePort(call.state, port.id)
  return { status: 204 }
}

/** Deletes without asking: floating IPs lose it, and a server that has it loses the NIC. */
export function deletePort(state: State, id: string): void {
  remove(state, 'ports', id)
  for (const floating of list(state, 'floatingips')) {
    if (floating.port_id !== id) continue
    put(state, 'floatingips', bump({ ...floating, port_id: null, fixed_ip_address: null, router_id: null }))
  }
  for (const server of list(state, 'servers')) {
    if (!server.ports.some(port => port.id === id)) continue
    put(state, 'servers', { ...server, ports: server.ports.filter(port => port.id !== id) })
  }
}

export const portRoutes: RouteTable = [
  ['GET', '/v2.0/ports', index(portKind)],
  ['POST', '/v2.0/ports', create],
  [
    'PUT',
    '/v2.0/ports',
    () => {
      throw badRequest('Bulk operation not supported')
    },
  ],
  ['GET', '/v2.0/ports/:id', show(portKind)],
  ['PUT', '/v2.0/ports/:id', update],
  ['DELETE', '/v2.0/ports/:id', destroy],
]
