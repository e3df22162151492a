// SPDX-License-Identifier: Apache-2.0

/**
 * Everything the simulated cloud knows: plain data, in the shape in which the services show it to an administrator.
 *
 * Rows are replaced, never changed in place, so that the past stays readable: a stale read is a read of the past.
 */

export type FixedIp = { readonly subnet_id: string; readonly ip_address: string }
export type AddressPair = { readonly mac_address: string; readonly ip_address: string }
export type Route = { readonly destination: string; readonly nexthop: string }
export type SubPort = {
  readonly port_id: string
  readonly segmentation_type: string
  readonly segmentation_id: number
}

/** What every Neutron resource carries. */
export type Standard = {
  readonly id: string
  readonly project_id: string
  readonly name: string
  readonly description: string
  readonly tags: readonly string[]
  readonly created_at: string
  readonly updated_at: string
  readonly revision_number: number
}

export type Network = Standard & {
  readonly admin_state_up: boolean
  readonly mtu: number
  readonly shared: boolean
  readonly 'router:external': boolean
  readonly is_default: boolean
  readonly port_security_enabled: boolean
  readonly 'provider:network_type': string
  readonly 'provider:physical_network': string | null
}

export type Pool = { readonly start: string; readonly end: string }

export type Subnet = Standard & {
  readonly network_id: string
  readonly ip_version: 4 | 6
  readonly cidr: string
  readonly gateway_ip: string | null
  readonly enable_dhcp: boolean
  readonly ipv6_ra_mode: string | null
  readonly ipv6_address_mode: string | null
  readonly allocation_pools: readonly Pool[]
  readonly host_routes: readonly Route[]
  readonly dns_nameservers: readonly string[]
  /** Addresses that a failed bulk creation left reserved, without a port. */
  readonly leaked: readonly string[]
}

export type Port = Standard & {
  readonly network_id: string
  readonly mac_address: string
  readonly admin_state_up: boolean
  readonly status: 'ACTIVE' | 'DOWN'
  readonly device_id: string
  readonly device_owner: string
  readonly fixed_ips: readonly FixedIp[]
  readonly allowed_address_pairs: readonly AddressPair[]
  readonly security_groups: readonly string[]
  readonly port_security_enabled: boolean
  readonly 'binding:vnic_type': string
  readonly 'binding:host_id': string
  readonly 'binding:profile': Readonly<Record<string, unknown>>
}

export type Router = Standard & {
  readonly admin_state_up: boolean
  readonly external_gateway_info: {
    readonly network_id: string
    readonly external_fixed_ips: readonly FixedIp[]
    readonly enable_snat: boolean
  } | null
  readonly gw_port_id: string | null
  readonly routes: readonly Route[]
}

export type FloatingIp = Omit<Standard, 'name'> & {
  readonly floating_ip_address: string
  readonly floating_network_id: string
  readonly router_id: string | null
  readonly port_id: string | null
  readonly fixed_ip_address: string | null
  readonly status: 'ACTIVE' | 'DOWN'
}

export type SecurityGroup = Standard & { readonly rules: readonly SecurityGroupRule[] }
export type SecurityGroupRule = {
  readonly id: string
  readonly security_group_id: string
  readonly project_id: string
  readonly direction: 'ingress' | 'egress'
  readonly ethertype: 'IPv4' | 'IPv6'
  readonly protocol: string | null
  readonly port_range_min: number | null
  readonly port_range_max: number | null
  readonly remote_ip_prefix: string | null
  readonly remote_group_id: string | null
  readonly description: string
}

export type Trunk = Standard & {
  readonly admin_state_up: boolean
  readonly port_id: string
  readonly status: 'ACTIVE' | 'DOWN'
  readonly sub_ports: readonly SubPort[]
}

export type Server = {
  readonly id: string
  readonly project_id: string
  readonly user_id: string
  readonly name: string
  readonly flavor_id: string
  readonly status: 'BUILD' | 'ACTIVE'
  readonly metadata: Readonly<Record<string, string>>
  readonly created: string
  readonly updated: string
  /** In the order of attachment, which is the order of the NICs. */
  readonly ports: readonly { readonly id: string; readonly made: boolean; readonly tag: string | null }[]
}

export type Flavor = {
  readonly id: string
  readonly name: string
  readonly extra_specs?: Readonly<Record<string, string>>
}

export type Project = { readonly id: string; readonly name: string; readonly description: string }
export type User = {
  readonly id: string
  readonly name: string
  readonly password: string
  readonly default_project_id: string | null
  /** Role names per project id. */
  readonly roles: Readonly<Record<string, readonly string[]>>
  /** Role names on the system as a whole. */
  readonly systemRoles: readonly string[]
}
export type ApplicationCredential = {
  readonly id: string
  readonly name: string
  readonly description: string | null
  readonly secret: string
  readonly user_id: string
  readonly project_id: string
  readonly roles: readonly string[]
  readonly unrestricted: boolean
}

/** The collections of rows, by name. */
export type Rows = {
  networks: Network
  subnets: Subnet
  ports: Port
  routers: Router
  floatingips: FloatingIp
  securityGroups: SecurityGroup
  trunks: Trunk
  servers: Server
  flavors: Flavor
  projects: Project
  users: User
  applicationCredentials: ApplicationCredential
}
export type CollectionName = keyof Rows

type Past<T> = { readonly atMs: number; readonly id: string; readonly before: T | undefined }
export type Collection<T> = { readonly live: Map<string, T>; readonly past: Past<T>[] }

/** A token; `validatedAtMs` is what Neutron and Nova cache of it. */
export type Token = {
  readonly value: string
  readonly userId: string
  readonly projectId: string | null
  readonly system: boolean
  readonly roles: readonly string[]
  readonly methods: readonly string[]
  readonly auditIds: readonly string[]
  readonly issuedAtMs: number
  readonly applicationCredentialId: string | null
  expiresAtMs: number
  revoked: boolean
  readonly validatedAtMs: Map<string, number>
}

/** How long the services take, in milliseconds. */
export type Latency = {
  /** A read. */
  readonly readMs: number
  /** From reading to committing within one write: the window in which two writes overlap. */
  readonly commitMs: number
  /** From the commit of a write to its answer. */
  readonly writeMs: number
  /** Added to `writeMs` for every address that a written port has. */
  readonly addressMs: number
  /** A token. */
  readonly tokenMs: number
  /** Attaching an interface, until the answer. */
  readonly attachMs: number
  /** Detaching an interface, from the 202 until it is gone. */
  readonly detachMs: number
  /** From attaching until the port is ACTIVE. */
  readonly portUpMs: number
  /** Building a server. */
  readonly buildMs: number
}

/** Fast enough for tests, slow enough that writes sent at once overlap. */
export const quickLatency: Latency = {
  readMs: 0,
  commitMs: 25,
  writeMs: 0,
  addressMs: 0,
  tokenMs: 2,
  attachMs: 20,
  detachMs: 60,
  portUpMs: 60,
  buildMs: 50,
}

/** The medians recorded with a real Keystone, Neutron and Nova (see docs/reference/simulator.md). */
export const recordedLatency: Latency = {
  readMs: 10,
  commitMs: 30,
  writeMs: 150,
  addressMs: 6.5,
  tokenMs: 263,
  attachMs: 1140,
  detachMs: 385,
  portUpMs: 700,
  buildMs: 3000,
}

export type Quota = Readonly<Record<string, number>>

/** Neutron's defaults. */
export const defaultQuota: Quota = {
  network: 100,
  subnet: 100,
  subnetpool: -1,
  port: 500,
  router: 10,
  floatingip: 50,
  rbac_policy: 10,
  security_group: 10,
  security_group_rule: 100,
  trunk: -1,
}

/** What a test may change while the simulator runs. */
export type Settings = {
  latency: Latency
  /** From a service's answer until it is true on the wire, milliseconds. */
  wireDelayMs: number
  tokenTtlMs: number
  /** How long Neutron and Nova trust a token that they validated once. */
  tokenCacheMs: number
  maxRoutes: number
  maxAddressPairs: number
  /** NICs that a server has slots for. */
  maxNics: number
  /** Requests a second, of all services together, before 429; 0 means any. */
  requestsPerSecond: number
  /**
   * Of a port's writes that overlap with another, the share (0 to 1) that the database breaks off and Neutron makes again: on
   * what the port has by then, and without a look at `If-Match`.
   */
  repeatedShare: number
}

export type State = {
  readonly rows: { readonly [Name in CollectionName]: Collection<Rows[Name]> }
  readonly tokens: Map<string, Token>
  /** Differences from the default, by project id. */
  readonly quotas: Map<string, Quota>
  readonly settings: Settings
  /** Called after every change. */
  readonly listeners: Set<() => void>
  /** Work that happens later (a port that becomes ACTIVE); cleared when the simulator closes. */
  readonly timers: Set<NodeJS.Timeout>
}

/** Rows of the past that are kept, per collection. */
const PAST_MAX = 2000

/** A cloud with nothing in it. */
export function newState(settings: Settings): State {
  const collection = <T>(): Collection<T> => ({ live: new Map(), past: [] })
  return {
    rows: {
      networks: collection(),
      subnets: collection(),
      ports: collection(),
      routers: collection(),
      floatingips: collection(),
      securityGroups: collection(),
      trunks: collection(),
      servers: collection(),
      flavors: collection(),
      projects: collection(),
      users: collection(),
      applicationCredentials: collection(),
    },
    tokens: new Map(),
    quotas: new Map(),
    settings,
    listeners: new Set(),
    timers: new Set(),
  }
}

/** The row as it is now. */
export function find<Name extends CollectionName>(state: State, name: Name, id: string): Rows[Name] | undefined {
  return (state.rows[name] as Collection<Rows[Name]>).live.get(id)
}

/** All rows, as they are now or as they were at a moment (`performance.now()`). */
export function list<Name extends CollectionName>(state: State, name: Name, asOfMs?: number): Rows[Name][] {
  const { live, past } = state.rows[name] as Collection<Rows[Name]>
  if (asOfMs === undefined) return [...live.values()]
  const then = new Map(live)
  for (let index = past.length - 1; index >= 0 && past[index]!.atMs > asOfMs; index--) {
    const { id, before } = past[index]!
    if (before === undefined) then.delete(id)
    else then.set(id, before)
  }
  return [...then.values()]
}

/** Stores a row, new or in place of the one with its id. */
export function put<Name extends CollectionName>(state: State, name: Name, row: Rows[Name]): Rows[Name] {
  replace(state, name, row.id, row)
  return row
}

/** Forgets a row; a missing one is no error. */
export function remove(state: State, name: CollectionName, id: string): void {
  replace(state, name, id, undefined)
}

function replace<Name extends CollectionName>(state: State, name: Name, id: string, row: Rows[Name] | undefined): void {
  const { live, past } = state.rows[name] as Collection<Rows[Name]>
  past.push({ atMs: performance.now(), id, before: live.get(id) })
  if (past.length > PAST_MAX) past.splice(0, PAST_MAX / 2)
  if (row === undefined) live.delete(id)
  else live.set(id, row)
  for (const listener of state.listeners) listener()
}

/** Runs `action` after `ms`, unless the simulator is closed or reset before. */
export function later(state: State, ms: number, action: () => void): void {
  const timer = setTimeout(() => {
    state.timers.delete(timer)
    action()
  }, ms)
  state.timers.add(timer)
}

/** Forgets everything, and what was still to happen. Listeners stay. */
export function clear(state: State): void {
  for (const timer of state.timers) clearTimeout(timer)
  state.timers.clear()
  for (const { live, past } of Object.values(state.rows) as Collection<unknown>[]) {
    live.clear()
    past.length = 0
  }
  state.tokens.clear()
  state.quotas.clear()
}

/** The time as Neutron, Nova and Keystone write it: whole seconds. */
export const timestamp = (atMs: number = Date.now()): string => `${new Date(atMs).toISOString().slice(0, 19)}Z`
