// SPDX-License-Identifier: Apache-2.0

import { bigIntToIp, formatIp, ipToBigInt, parseIp } from '#base'
import type { Port, Ports, Subnet, Subnets } from '#openstack'
import type { Limits } from './lock.ts'

/** What is asked of Neutron about free addresses. */
export type NamesNeutron = { readonly ports: Pick<Ports, 'list'>; readonly subnets: Pick<Subnets, 'get'> }

export type NamesWanted = {
  readonly subnetId: string
  readonly count: number
  /** Addresses that are not to be chosen although nobody has them. */
  readonly avoid: (address: string) => boolean
}

/**
 * Chooses new addresses by name. Where Neutron chooses, it may take one that somebody else puts on the port meanwhile: it
 * makes a write that the database breaks off again, on what the port has by then, whatever `If-Match` says.
 */
export type Names = {
  /**
   * Free addresses at random, from where Neutron would take them. What it does not show, a foreign project's ports, makes it
   * refuse the write. Undefined where Neutron has to choose: in a subnet that is nearly full, or where names are refused.
   * @throws {OpenStackError}
   */
  choose(neutron: NamesNeutron, port: Port, wanted: NamesWanted, limits: Limits): Promise<string[] | undefined>
  /** Neutron takes no names in a subnet: by its policy, or because it makes the addresses itself. */
  refuse(subnetId: string): void
}

/** Between questions where a subnet's addresses come from. */
const SUBNET_MS = 60_000
/** Addresses that one question names; with more, all ports of the subnet are listed: a URL of 4 kB is the end with some servers. */
const ASKED_MAX = 32
/** Candidates for each address that is needed. */
const SPARE = 2

export function createNames(): Names {
  const subnets = new Map<string, { readonly subnet: Subnet | undefined; readonly seenMs: number }>()
  const refused = new Set<string>()

  async function subnetOf(neutron: NamesNeutron, id: string, limits: Limits): Promise<Subnet | undefined> {
    const known = subnets.get(id)
    if (known !== undefined && performance.now() - known.seenMs < SUBNET_MS) return known.subnet
    const subnet = await neutron.subnets.get(id, limits)
    subnets.set(id, { subnet, seenMs: performance.now() })
    return subnet
  }

  return {
    async choose(neutron, port, { subnetId, count, avoid }, limits) {
      if (refused.has(subnetId)) return undefined
      const subnet = await subnetOf(neutron, subnetId, limits)
      if (subnet === undefined || isAutomatic(subnet)) return undefined
      const held = new Set(port.fixed_ips.map(each => each.ip_address))
      const isFit = (address: string) => !held.has(address) && address !== subnet.gateway_ip && !avoid(address)
      const candidates = pickAddresses(subnet.allocation_pools ?? [], SPARE * count + 8, isFit)
      const { network_id } = subnet
      const filter =
        candidates.length <= ASKED_MAX ? { network_id, ip_address: candidates } : { network_id, subnet_id: subnetId }
      const ports = candidates.length < count ? [] : await neutron.ports.list(filter, limits)
      const taken = new Set(ports.flatMap(each => each.fixed_ips.map(fixed => fixed.ip_address)))
      const free = candidates.filter(each => !taken.has(each))
      return free.length < count ? undefined : free.slice(0, count)
    },
    refuse: subnetId => refused.add(subnetId),
  }
}

const isAutomatic = ({ ipv6_address_mode: mode }: Subnet) => mode === 'slaac' || mode === 'dhcpv6-stateless'

/** From the first address to the last. */
export type AddressRange = { readonly start: string; readonly end: string }

/** Different addresses of some ranges of one family at random, at most so many; all that are fit where there are few. */
export function pickAddresses(
  ranges: readonly AddressRange[],
  most: number,
  isFit: (address: string) => boolean,
): string[] {
  const parts = ranges.map(({ start, end }) => {
    const first = ipToBigInt(parseIp(start))
    return { first, size: ipToBigInt(parseIp(end)) - first + 1n, bytes: parseIp(start).length }
  })
  const size = parts.reduce((sum, part) => sum + part.size, 0n)
  const addressAt = (index: bigint): string => {
    let left = index
    for (const part of parts) {
      if (left < part.size) return formatIp(bigIntToIp(part.first + left, part.bytes))
      left -= part.size
    }
    throw new RangeError(`Cannot find address ${index} in ranges of ${size}`)
  }
  const found = new Set<string>()
  if (size <= BigInt(4 * most)) {
    const all = Array.from({ length: Number(size) }, (_, index) => addressAt(BigInt(index))).filter(isFit)
    while (all.length > 0 && found.size < most) found.add(all.splice(Math.floor(Math.random() * all.length), 1)[0]!)
    return [...found]
  }
  for (let tries = 0; tries < 4 * most && found.size < most; tries++) {
    const address = addressAt(randomBelow(size))
    if (isFit(address)) found.add(address)
  }
  return [...found]
}

function randomBelow(size: bigint): bigint {
  const [high, low] = crypto.getRandomValues(new BigUint64Array(2))
  return ((high! << 64n) | low!) % size
}
