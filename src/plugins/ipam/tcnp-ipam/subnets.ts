// SPDX-License-Identifier: Apache-2.0

import {
  formatIp,
  formatPrefix,
  ipToBigInt,
  isV4,
  networkOf,
  parseIp,
  parsePrefix,
  prefixContains,
  tryParsePrefix,
} from '#base'
import { CniError, codes, type Dns } from '#cni'
import type { Subnet } from '#openstack'
import type { Choice } from './choice.ts'

/** A subnet of Neutron, as much of it as a pod's address needs. JSON: the journal keeps it. */
export type PlaceSubnet = {
  readonly id: string
  readonly name: string
  readonly cidr: string
  readonly version: 4 | 6
  readonly gateway: string | undefined
  readonly nameservers: readonly string[]
  /** True where a port has one address of it, made from its MAC: SLAAC and stateless DHCPv6. */
  readonly isAutomatic: boolean
  /** How many addresses its allocation pools have; undefined where Neutron does not say. */
  readonly size: number | undefined
  /** To the node: the subnet of its NIC, one in which the NIC's port has an address, or another of the network. */
  readonly standing: 'host' | 'port' | 'network'
}

/** The address of one IP version that an attachment gets: of one of these subnets, in order of preference. */
export type Family = {
  readonly version: 4 | 6
  readonly subnets: readonly PlaceSubnet[]
  /** The very address, which is in the only one of `subnets`. */
  readonly address: string | undefined
}

const invalid = (message: string, details?: string) => new CniError(codes.invalidConfig, message, { details })

/** As Neutron shows it. */
export function toPlaceSubnet(subnet: Subnet, standing: PlaceSubnet['standing']): PlaceSubnet {
  const { id, name, cidr, ip_version, gateway_ip, dns_nameservers, ipv6_address_mode, allocation_pools } = subnet
  return {
    id,
    name,
    cidr,
    version: ip_version,
    gateway: gateway_ip ?? undefined,
    nameservers: dns_nameservers ?? [],
    isAutomatic: /^(slaac|dhcpv6-stateless)$/.test(ipv6_address_mode ?? ''),
    size: allocation_pools === undefined ? undefined : sizeOf(allocation_pools),
    standing,
  }
}

const sizeOf = (pools: NonNullable<Subnet['allocation_pools']>): number =>
  pools.reduce((sum, { start, end }) => sum + Number(ipToBigInt(parseIp(end)) - ipToBigInt(parseIp(start))) + 1, 0)

/** For errors: `10.0.0.0/24 ("NAME", ID)`. */
export const describeSubnet = ({ id, name, cidr }: PlaceSubnet): string => `${cidr} ("${name}", ${id})`

const describeAll = (subnets: readonly PlaceSubnet[]) => subnets.map(describeSubnet).join(', ') || 'no subnet'

export type FamilyOptions = {
  /** All subnets of the network. */
  readonly all: readonly PlaceSubnet[]
  /** Those that are used where nobody names any, in order of preference. */
  readonly usual: readonly PlaceSubnet[]
  readonly choice: Pick<Choice, 'subnets' | 'addresses' | 'chosen'>
  /** IP versions that the operator wants, each; undefined: what there is. */
  readonly ipVersions: readonly number[] | undefined
  /** For errors: what has the addresses. */
  readonly what: string
  /** For errors, where it is not the same: what has the subnets. */
  readonly network?: string
  /** Subnets of the other networks that are used: a name of theirs is none that is missing here. */
  readonly elsewhere?: readonly PlaceSubnet[]
}

/**
 * Which subnets an attachment's addresses come from, per IP version.
 * @throws {CniError} 7 where a subnet that is named is not there, or an address is in none of them
 */
export function familiesOf(options: FamilyOptions): Family[] {
  const { all, usual, choice, ipVersions, what } = options
  const named = namedSubnets(options)
  const subnets = named.length > 0 ? named : usual
  const versions = ipVersions ?? [4, 6]
  const families = versions.flatMap((version): Family[] => {
    const several = subnets.filter(each => each.version === version)
    if (several.length > 0) return [{ version: several[0]!.version, subnets: several, address: undefined }]
    if (ipVersions === undefined) return []
    throw invalid(
      `Cannot give IPv${version} addresses of ${what}: ` +
        (named.length > 0 ? `no subnet of ${listKey(choice)} has them` : `it has none of IPv${version} itself`),
      `its network has the subnets ${describeAll(all)}; "neutronConf.ipVersions" says what is wanted`,
    )
  })
  if (families.length === 0)
    throw invalid(
      `Cannot give addresses of ${what}: it has none itself`,
      `its network has the subnets ${describeAll(all)}`,
    )
  return withAddresses(families, choice, what)
}

const listKey = ({ chosen }: Pick<Choice, 'chosen'>) => `"${chosen.subnets ?? 'neutronConf.subnets'}"`

/** The subnets that are named, in order. Where the pod chose another network, the operator's names may not be of it. */
function namedSubnets({ all, choice, what, network = what, elsewhere = [] }: FamilyOptions): PlaceSubnet[] {
  const isLoose = choice.chosen.networks !== undefined && choice.chosen.subnets === undefined
  const found = choice.subnets.flatMap(wanted => {
    const fitting = all.filter(each => isCalled(each, wanted))
    if (fitting.length === 0 && !isLoose && !elsewhere.some(each => isCalled(each, wanted)))
      throw invalid(
        `Cannot find subnet "${wanted}" of ${listKey(choice)}: ${network} does not have it`,
        `it has ${describeAll(all)}`,
      )
    return fitting
  })
  if (found.length === 0 && choice.subnets.length > 0 && !isLoose)
    throw invalid(
      `Cannot give addresses of ${what}: it has no subnet of ${listKey(choice)}`,
      `it has ${describeAll(all)}`,
    )
  return [...new Set(found)]
}

function isCalled({ id, name, cidr }: PlaceSubnet, wanted: string): boolean {
  const prefix = tryParsePrefix(wanted)
  return wanted.toLowerCase() === id || wanted === name || (prefix !== undefined && sameNetwork(prefix, cidr))
}

function sameNetwork(prefix: ReturnType<typeof parsePrefix>, cidr: string): boolean {
  const other = tryParsePrefix(cidr)
  return other !== undefined && formatPrefix(networkOf(prefix)) === formatPrefix(networkOf(other))
}

/** A chosen address leaves one subnet of its version. */
function withAddresses(
  families: readonly Family[],
  { addresses, chosen }: Pick<Choice, 'addresses' | 'chosen'>,
  what: string,
): Family[] {
  const rest = new Set(addresses)
  const found = families.map(family => {
    for (const address of rest) {
      const ip = parseIp(address)
      const subnet = family.subnets.find(({ cidr }) => prefixContains(parsePrefix(cidr), ip))
      if (isV4(ip) !== (family.version === 4) || subnet === undefined) continue
      if (subnet.isAutomatic)
        throw invalid(
          `Cannot give address ${address} of "${chosen.addresses}": in subnet ${describeSubnet(subnet)} a port's address is made from its MAC`,
          'choose the MAC instead',
        )
      rest.delete(address)
      return { ...family, subnets: [subnet], address }
    }
    return family
  })
  if (rest.size > 0)
    throw invalid(
      `Cannot give address ${[...rest].join(', ')} of "${chosen.addresses}": it is in none of the subnets of ${what}`,
      `they are ${describeAll(families.flatMap(each => each.subnets))}`,
    )
  return found
}

/** The subnets of a node's own port: pods are where the node is, unless a configuration says otherwise. */
export function subnetsOfPort(all: readonly PlaceSubnet[]): PlaceSubnet[] {
  return [4, 6].flatMap(version => {
    const own = all.filter(each => each.version === version && each.standing !== 'network')
    return own.find(each => each.standing === 'host') ?? own[0] ?? []
  })
}

/** An address as the pod gets it, with its subnet's length and gateway. */
export function resultIp(
  address: string,
  { cidr, gateway }: Pick<PlaceSubnet, 'cidr' | 'gateway'>,
): { address: string; gateway?: string } {
  const { length } = parsePrefix(cidr)
  return {
    address: `${formatIp(parseIp(address))}/${length}`,
    ...(gateway === undefined ? {} : { gateway: formatIp(parseIp(gateway)) }),
  }
}

/** The name servers of some subnets, for the result. */
export function dnsOf(subnets: readonly PlaceSubnet[]): Dns {
  const nameservers = [...new Set(subnets.flatMap(subnet => subnet.nameservers))]
  return nameservers.length === 0 ? {} : { nameservers }
}
