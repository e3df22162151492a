// SPDX-License-Identifier: Apache-2.0

/**
 * The demo objects: those that `lab/openstack demo` makes in a real cloud, under the same names and with the same
 * addresses, so that whatever runs against its `demo.json` runs against the simulator.
 */
import { randomUUID } from 'node:crypto'
import { parsePrefix } from '#base'
import { hexId, roleNames } from './keystone/project.ts'
import { allocateAny } from './neutron/address.ts'
import { randomMac } from './neutron/port.ts'
import { defaultPools } from './neutron/subnet.ts'
import {
  find,
  list,
  type Network,
  type Pool,
  type Port,
  put,
  type Server,
  type State,
  type Subnet,
  timestamp,
} from './state.ts'

/** The ids of the demo objects, as in `demo.json`. */
export type Demo = {
  readonly project_id: string
  readonly external_network_id: string
  readonly external_subnet_id: string
  readonly network_id: string
  readonly subnet_id: string
  readonly router_id: string
  readonly security_group_id: string
  readonly servers: Readonly<Record<string, { readonly id: string; readonly ports: readonly DemoPort[] }>>
  readonly flavor_id: string
}
export type DemoPort = {
  readonly id: string
  readonly mac: string
  readonly ips: readonly string[]
  readonly status: string
  readonly host: string
}

export type Account = { readonly username: string; readonly password: string; readonly project: string }
export type Accounts = { readonly demo: Account; readonly admin: Account }

const HOST = 'mooring-simulator'

const standard = (projectId: string, name: string) => {
  const now = timestamp()
  return {
    id: randomUUID() as string,
    project_id: projectId,
    name,
    description: '',
    tags: [],
    created_at: now,
    updated_at: now,
    revision_number: 1,
  }
}

/** Fills an empty state; `servers` is how many machines there are. */
export function seed(state: State, accounts: Accounts, servers: number): void {
  const { demo, admin } = seedAccounts(state, accounts)
  const outside = seedNetwork(state, admin, 'public', true)
  seedSubnet(state, outside, 'public-v4', '198.51.100.0/24', [{ start: '198.51.100.10', end: '198.51.100.250' }])
  const inside = seedNetwork(state, demo, 'workers', false)
  const subnet = seedSubnet(state, inside, 'workers-v4', '10.10.10.0/24')
  seedRouter(state, demo, outside, inside, subnet)
  const group = put(state, 'securityGroups', { ...standard(demo, 'workers'), rules: [] })
  put(state, 'securityGroups', {
    ...group,
    rules: (['ingress', 'egress'] as const).map(direction => ({
      id: randomUUID(),
      security_group_id: group.id,
      project_id: demo,
      direction,
      ethertype: 'IPv4',
      protocol: null,
      port_range_min: null,
      port_range_max: null,
      remote_ip_prefix: null,
      remote_group_id: null,
      description: '',
    })),
  })
  const flavor = put(state, 'flavors', { id: randomUUID(), name: 'worker' })
  const user = list(state, 'users').find(row => row.name === accounts.demo.username)!
  for (let number = 1; number <= servers; number++) {
    seedServer(state, { projectId: demo, userId: user.id, flavorId: flavor.id, groupId: group.id }, subnet, number)
  }
}

function seedAccounts(state: State, accounts: Accounts): { demo: string; admin: string } {
  const demo = put(state, 'projects', { id: hexId(), name: accounts.demo.project, description: '' })
  const admin = put(state, 'projects', { id: hexId(), name: accounts.admin.project, description: '' })
  put(state, 'users', {
    id: hexId(),
    name: accounts.demo.username,
    password: accounts.demo.password,
    default_project_id: demo.id,
    roles: { [demo.id]: ['reader', 'member'] },
    systemRoles: [],
  })
  put(state, 'users', {
    id: hexId(),
    name: accounts.admin.username,
    password: accounts.admin.password,
    default_project_id: null,
    roles: { [admin.id]: roleNames, [demo.id]: ['admin'] },
    systemRoles: roleNames,
  })
  return { demo: demo.id, admin: admin.id }
}

const seedNetwork = (state: State, projectId: string, name: string, isExternal: boolean): Network =>
  put(state, 'networks', {
    ...standard(projectId, name),
    admin_state_up: true,
    mtu: 1500,
    shared: false,
    'router:external': isExternal,
    is_default: isExternal,
    port_security_enabled: true,
    'provider:network_type': isExternal ? 'flat' : 'local',
    'provider:physical_network': isExternal ? 'physext' : null,
  })

function seedSubnet(state: State, network: Network, name: string, cidr: string, pools?: readonly Pool[]): Subnet {
  const gateway = cidr.replace(/\.0\/.*$/, '.1')
  return put(state, 'subnets', {
    ...standard(network.project_id, name),
    revision_number: 0,
    network_id: network.id,
    ip_version: 4,
    cidr,
    gateway_ip: gateway,
    enable_dhcp: false,
    ipv6_ra_mode: null,
    ipv6_address_mode: null,
    allocation_pools: pools ?? defaultPools(parsePrefix(cidr), gateway),
    host_routes: [],
    dns_nameservers: [],
    leaked: [],
  })
}

const port = (state: State, projectId: string, name: string, network: Network, fields: Partial<Port>): Port => ({
  ...standard(projectId, name),
  network_id: network.id,
  mac_address: randomMac(state),
  admin_state_up: true,
  status: 'ACTIVE',
  device_id: '',
  device_owner: '',
  fixed_ips: [],
  allowed_address_pairs: [],
  security_groups: [],
  port_security_enabled: false,
  'binding:vnic_type': 'normal',
  'binding:host_id': HOST,
  'binding:profile': {},
  ...fields,
})

function seedRouter(state: State, projectId: string, outside: Network, inside: Network, subnet: Subnet): void {
  const row = standard(projectId, 'edge')
  const fixed = allocateAny(state, outside)
  const device = (device_owner: string) => ({ device_id: row.id, device_owner })
  const gateway = put(
    state,
    'ports',
    port(state, '', '', outside, { ...device('network:router_gateway'), fixed_ips: fixed }),
  )
  const ips = [{ subnet_id: subnet.id, ip_address: subnet.gateway_ip! }]
  put(state, 'ports', port(state, projectId, '', inside, { ...device('network:router_interface'), fixed_ips: ips }))
  put(state, 'routers', {
    ...row,
    revision_number: 4,
    admin_state_up: true,
    external_gateway_info: { network_id: outside.id, external_fixed_ips: fixed, enable_snat: true },
    gw_port_id: gateway.id,
    routes: [],
  })
}

type ServerOwner = {
  readonly projectId: string
  readonly userId: string
  readonly flavorId: string
  readonly groupId: string
}

function seedServer(state: State, owner: ServerOwner, subnet: Subnet, number: number): Server {
  const name = `worker-${number}`
  const id = randomUUID()
  const network = find(state, 'networks', subnet.network_id)!
  const nic = put(
    state,
    'ports',
    port(state, owner.projectId, `${name}-eth0`, network, {
      device_id: id,
      device_owner: 'compute:nova',
      fixed_ips: [{ subnet_id: subnet.id, ip_address: `10.10.10.${10 + number}` }],
      security_groups: [owner.groupId],
      port_security_enabled: true,
    }),
  )
  const now = timestamp()
  return put(state, 'servers', {
    id,
    project_id: owner.projectId,
    user_id: owner.userId,
    name,
    flavor_id: owner.flavorId,
    status: 'ACTIVE',
    metadata: {},
    created: now,
    updated: now,
    ports: [{ id: nic.id, made: false, tag: null }],
  })
}

/** What `demo.json` says of the state as it is now. */
export function demoOf(state: State, accounts: Accounts): Demo {
  const project = list(state, 'projects').find(row => row.name === accounts.demo.project)
  const named = <Row extends { readonly name: string }>(rows: readonly Row[], name: string): Row | undefined =>
    rows.find(row => row.name === name)
  const servers = list(state, 'servers').filter(row => row.project_id === project?.id)
  return {
    project_id: project?.id ?? '',
    external_network_id: named(list(state, 'networks'), 'public')?.id ?? '',
    external_subnet_id: named(list(state, 'subnets'), 'public-v4')?.id ?? '',
    network_id: named(list(state, 'networks'), 'workers')?.id ?? '',
    subnet_id: named(list(state, 'subnets'), 'workers-v4')?.id ?? '',
    router_id: named(list(state, 'routers'), 'edge')?.id ?? '',
    security_group_id: named(list(state, 'securityGroups'), 'workers')?.id ?? '',
    servers: Object.fromEntries(
      servers.map(server => [server.name, { id: server.id, ports: demoPorts(state, server) }]),
    ),
    flavor_id: list(state, 'flavors')[0]?.id ?? '',
  }
}

const demoPorts = (state: State, server: Server): DemoPort[] =>
  server.ports
    .map(nic => find(state, 'ports', nic.id))
    .filter(row => row !== undefined)
    .map(row => ({
      id: row.id,
      mac: row.mac_address,
      ips: row.fixed_ips.map(fixed => fixed.ip_address),
      status: row.status,
      host: row['binding:host_id'],
    }))
