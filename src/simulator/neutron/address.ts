// SPDX-License-Identifier: Apache-2.0

/** Which addresses a port gets: resolving `fixed_ips`, the difference to what it has, allocation. */
import { randomInt } from 'node:crypto'
import {
  addToIp,
  formatIp,
  ipEquals,
  ipToBigInt,
  isV4,
  networkOf,
  parseIp,
  parsePrefix,
  prefixContains,
  tryParseIp,
} from '#base'
import { asObject } from '../call.ts'
import { Fault, internalError, invalidInput } from '../fault.ts'
import { type FixedIp, find, list, type Network, type State, type Subnet } from '../state.ts'
import { type Convert, isUuid, python } from './attribute.ts'

/** One entry of `fixed_ips` as it was asked for; the subnet is known once it is resolved. */
export type WantedIp = { readonly subnet_id?: string; readonly ip_address?: string }
export type ResolvedIp = { readonly subnet_id: string; readonly ip_address?: string }

/** Free addresses are looked for among so many of a pool; a larger one is never full in a simulation. */
/** How far apart automatic addresses lie at most, while there is room. */
const SCATTER = 512
/** A scan costs a thousand times as much as a guess. */
const GUESSES = 8
const POOL_SCAN_MAX = 65_536

/** Checks the shape of `fixed_ips`. */
export const fixedIps: Convert = (value, name) => {
  if (!Array.isArray(value)) throw invalidInput(name, `Invalid data format for fixed IP: '${bare(value)}'`)
  const seen = new Set<string>()
  return value.map((entry): WantedIp => {
    const wanted = asObject(entry)
    if (wanted === undefined) throw invalidInput(name, `Invalid data format for fixed IP: '${bare(entry)}'`)
    const { subnet_id: subnet, ip_address: ip } = wanted
    if (ip !== undefined) {
      if (typeof ip !== 'string' || tryParseIp(ip) === undefined) {
        throw invalidInput(name, `'${bare(ip)}' is not a valid IP address`)
      }
      if (seen.has(ip)) throw invalidInput(name, `Duplicate IP address '${ip}'`)
      seen.add(ip)
    }
    if (subnet !== undefined && !isUuid(subnet)) throw invalidInput(name, `'${bare(subnet)}' is not a valid UUID`)
    return { ...(subnet !== undefined && { subnet_id: subnet }), ...(typeof ip === 'string' && { ip_address: ip }) }
  })
}
const bare = (value: unknown): string => (typeof value === 'string' ? value : python(value))

export const subnetsOf = (state: State, network: Network): Subnet[] =>
  list(state, 'subnets').filter(subnet => subnet.network_id === network.id)

/** Finds the subnet of every entry. */
export function resolveIps(state: State, network: Network, wanted: readonly WantedIp[]): ResolvedIp[] {
  return wanted.map(({ subnet_id: id, ip_address: ip }) => {
    if (id === undefined) {
      // Recorded: an entry with neither key breaks Neutron.
      if (ip === undefined) throw internalError()
      const subnet = subnetsOf(state, network).find(candidate => isHostOf(candidate, ip))
      if (subnet !== undefined) return { subnet_id: subnet.id, ip_address: ip }
      throw new Fault(
        400,
        'InvalidIpForNetwork',
        `IP address ${ip} is not a valid IP for any of the subnets on the specified network.`,
      )
    }
    const subnet = find(state, 'subnets', id)
    if (subnet === undefined) throw new Fault(404, 'SubnetNotFound', `Subnet ${id} could not be found.`)
    if (subnet.network_id !== network.id) {
      throw new Fault(
        400,
        'InvalidInput',
        `Invalid input for operation: Failed to create port on network ${network.id}, because fixed_ips included invalid subnet ${id}.`,
      )
    }
    if (ip !== undefined && !isHostOf(subnet, ip)) {
      throw new Fault(400, 'InvalidIpForSubnet', `IP address ${ip} is not a valid IP for the specified subnet.`)
    }
    return { subnet_id: id, ...(ip !== undefined && { ip_address: ip }) }
  })
}

/** True if a host of the subnet may have the address: neither the network's nor the broadcast address. */
function isHostOf(subnet: Subnet, text: string): boolean {
  const ip = parseIp(text)
  const prefix = networkOf(parsePrefix(subnet.cidr))
  if (!prefixContains(prefix, ip)) return false
  if (!isV4(ip) || prefix.length >= 31) return true
  const last = addToIp(prefix.ip, (1n << BigInt(32 - prefix.length)) - 1n)
  return !ipEquals(ip, prefix.ip) && (last === undefined || !ipEquals(ip, last))
}

export type Difference = {
  readonly keep: readonly FixedIp[]
  readonly drop: readonly FixedIp[]
  readonly add: readonly ResolvedIp[]
}

/**
 * What a full replacement means for a port that holds `held`: named addresses first, then every entry without an address
 * reuses the last of what is left in its subnet. Neutron does it the same way (`_get_changed_ips_for_port`).
 */
export function difference(held: readonly FixedIp[], wanted: readonly ResolvedIp[]): Difference {
  const left = [...held]
  const keep: FixedIp[] = []
  const add: ResolvedIp[] = []
  const take = (at: number, entry: ResolvedIp): void => {
    if (at < 0) add.push(entry)
    else keep.push(...left.splice(at, 1))
  }
  for (const entry of wanted) {
    if (entry.ip_address === undefined) continue
    take(
      left.findIndex(fixed => fixed.ip_address === entry.ip_address),
      entry,
    )
  }
  for (const entry of wanted) {
    if (entry.ip_address !== undefined) continue
    take(
      left.findLastIndex(fixed => fixed.subnet_id === entry.subnet_id),
      entry,
    )
  }
  return { keep, drop: left, add }
}

/** Everything that holds an address of the subnet. */
function heldOf(state: State, subnet: Subnet): Set<string> {
  const held = new Set(subnet.leaked)
  for (const port of list(state, 'ports')) {
    for (const fixed of port.fixed_ips) if (fixed.subnet_id === subnet.id) held.add(fixed.ip_address)
  }
  for (const floating of list(state, 'floatingips')) {
    if (floating.floating_network_id === subnet.network_id) held.add(floating.floating_ip_address)
  }
  return held
}

/**
 * Addresses for the entries, none of them held by anybody or in `taken` (what the same request took already).
 * @throws {Fault} `IpAddressAlreadyAllocated`, `IpAddressGenerationFailure`.
 */
export function allocate(
  state: State,
  network: Network,
  wanted: readonly ResolvedIp[],
  taken: readonly FixedIp[] = [],
): FixedIp[] {
  const got: FixedIp[] = []
  for (const entry of wanted) {
    const subnet = find(state, 'subnets', entry.subnet_id)!
    if (isAutomatic(subnet) && entry.ip_address !== undefined) {
      throw new Fault(
        400,
        'InvalidInput',
        `Invalid input for operation: IPv6 address ${entry.ip_address} can not be directly assigned to a port on subnet ${subnet.id} since the subnet is configured for automatic addresses.`,
      )
    }
    // A port has one anyway.
    if (isAutomatic(subnet)) continue
    const held = heldOf(state, subnet)
    for (const fixed of [...taken, ...got]) if (fixed.subnet_id === subnet.id) held.add(fixed.ip_address)
    if (entry.ip_address !== undefined && held.has(entry.ip_address)) {
      throw new Fault(
        409,
        'IpAddressAlreadyAllocated',
        `IP address ${entry.ip_address} already allocated in subnet ${subnet.id}`,
      )
    }
    const ip = entry.ip_address ?? freeAddress(subnet, held)
    if (ip === undefined) throw exhausted(network)
    got.push({ subnet_id: subnet.id, ip_address: ip })
  }
  return got
}

/** True for a subnet of which every port of the network has one address, made from its MAC, whether it asks or not. */
export const isAutomatic = ({ ipv6_address_mode: mode }: Subnet): boolean =>
  mode === 'slaac' || mode === 'dhcpv6-stateless'

/** The addresses that a port has without asking (`_get_auto_address_ips` of Neutron's ipam_pluggable_backend). */
export function automaticIps(state: State, network: Network, mac: string): FixedIp[] {
  return subnetsOf(state, network)
    .filter(isAutomatic)
    .map(({ id, cidr }) => ({ subnet_id: id, ip_address: eui64(cidr, mac) }))
}

/** RFC 4291, appendix A. */
function eui64(cidr: string, mac: string): string {
  const ip = Uint8Array.from(networkOf(parsePrefix(cidr)).ip)
  const [first, second, third, ...rest] = mac.split(':').map(each => Number.parseInt(each, 16))
  ip.set([first! ^ 2, second!, third!, 0xff, 0xfe, ...rest], 8)
  return formatIp(ip)
}

const exhausted = (network: Network): Fault =>
  new Fault(409, 'IpAddressGenerationFailure', `No more IP addresses available on network ${network.id}.`)

/** What a port gets that asks for nothing: one address of each family that the network has, of any subnet with room. */
export function allocateAny(state: State, network: Network, taken: readonly FixedIp[] = []): FixedIp[] {
  const got: FixedIp[] = []
  for (const version of [4, 6]) {
    const subnets = subnetsOf(state, network).filter(each => each.ip_version === version && !isAutomatic(each))
    if (subnets.length === 0) continue
    const found = subnets.map(subnet => {
      const held = heldOf(state, subnet)
      for (const fixed of taken) if (fixed.subnet_id === subnet.id) held.add(fixed.ip_address)
      return { subnet, ip: freeAddress(subnet, held) }
    })
    const first = found.find(({ ip }) => ip !== undefined)
    if (first?.ip === undefined) throw exhausted(network)
    got.push({ subnet_id: first.subnet.id, ip_address: first.ip })
  }
  return got
}

/** A free address of the pools, any of them: automatic addresses are scattered. */
function freeAddress(subnet: Subnet, held: ReadonlySet<string>): string | undefined {
  for (let tries = 0; tries < GUESSES && subnet.allocation_pools.length > 0; tries++) {
    const pool = subnet.allocation_pools[0]!
    const size = ipToBigInt(parseIp(pool.end)) - ipToBigInt(parseIp(pool.start)) + 1n
    const offset = BigInt(randomInt(Number(size < SCATTER ? size : SCATTER)))
    const ip = formatIp(addToIp(parseIp(pool.start), offset)!)
    if (!held.has(ip)) return ip
  }
  const free: string[] = []
  for (const pool of subnet.allocation_pools) {
    const start = parseIp(pool.start)
    const size = ipToBigInt(parseIp(pool.end)) - ipToBigInt(start) + 1n
    for (let offset = 0n; offset < size && offset < POOL_SCAN_MAX; offset++) {
      const ip = formatIp(addToIp(start, offset)!)
      if (!held.has(ip)) free.push(ip)
      if (free.length >= SCATTER) break
    }
  }
  return free.length === 0 ? undefined : free[randomInt(free.length)]
}

/** The order in which every answer shows them: as strings. */
export const sortIps = (ips: readonly FixedIp[]): FixedIp[] =>
  ips.toSorted((a, b) => (a.ip_address < b.ip_address ? -1 : a.ip_address > b.ip_address ? 1 : 0))
