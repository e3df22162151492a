// SPDX-License-Identifier: Apache-2.0

import {
  addToIp,
  bigIntToIp,
  compareIp,
  formatIp,
  formatPrefix,
  type Ip,
  ipEquals,
  ipToBigInt,
  isV4,
  networkOf,
  type Prefix,
  parseIp,
  prefixContains,
} from '#base'

/** Addresses of one subnet that may be given away, both ends included. */
export type Range = { readonly subnet: Prefix; readonly start: Ip; readonly end: Ip; readonly gateway: Ip }
/** Ranges of one family that stand in for one another, in this order: an attachment gets one address of each set. */
export type RangeSet = readonly Range[]
/** A range as an administrator writes it. */
export type RangeSpec = {
  readonly subnet?: Prefix | undefined
  readonly rangeStart?: Ip | undefined
  readonly rangeEnd?: Ip | undefined
  readonly gateway?: Ip | undefined
}
/** An address and the range it is of. */
export type Candidate = { readonly ip: Ip; readonly range: Range }

/** A range that no address can be taken from. The messages are those of the reference `host-local`. */
export class InvalidRange extends Error {
  override readonly name = 'InvalidRange'
}

/**
 * Completes and checks range sets, as the reference `host-local` does: a start and an end that are named may be the
 * network's and the broadcast address, and a gateway may lie anywhere.
 *
 * @throws {InvalidRange} naming the set.
 */
export function completeRangeSets(specs: readonly (readonly RangeSpec[])[]): RangeSet[] {
  const sets = specs.map((spec, index) => {
    try {
      return completeRangeSet(spec)
    } catch (error) {
      if (!(error instanceof InvalidRange)) throw error
      throw new InvalidRange(`invalid range set ${index}: ${error.message}`)
    }
  })
  for (const [first, second] of pairs(sets.length))
    if (sets[first]!.some(a => sets[second]!.some(b => overlap(a, b))))
      throw new InvalidRange(`range set ${first} overlaps with ${second}`)
  return sets
}

function completeRangeSet(specs: readonly RangeSpec[]): RangeSet {
  if (specs.length === 0) throw new InvalidRange('empty range set')
  const set = specs.map(completeRange)
  if (set.some(range => isV4(range.start) !== isV4(set[0]!.start))) throw new InvalidRange('mixed address families')
  for (const [first, second] of pairs(set.length))
    if (overlap(set[first]!, set[second]!))
      throw new InvalidRange(`subnets ${formatRange(set[first]!)} and ${formatRange(set[second]!)} overlap`)
  return set
}

function completeRange(spec: RangeSpec): Range {
  const { subnet } = spec
  if (subnet === undefined) throw new InvalidRange('a range has no subnet')
  if (!ipEquals(subnet.ip, canonicalIp(subnet.ip))) throw new InvalidRange('IPNet IP and Mask version mismatch')
  if (subnet.length > subnet.ip.length * 8 - 2)
    throw new InvalidRange(`Network ${formatPrefix(subnet)} too small to allocate from`)
  const network = networkOf(subnet)
  if (!ipEquals(network.ip, subnet.ip))
    throw new InvalidRange(
      `Network has host bits set. For a subnet mask of length ${subnet.length} the network address is ${formatIp(network.ip)}`,
    )
  const first = addToIp(network.ip, 1n)!
  const start = spec.rangeStart === undefined ? first : canonicalIp(spec.rangeStart)
  const end = spec.rangeEnd === undefined ? lastOf(network) : canonicalIp(spec.rangeEnd)
  const outside = (ip: Ip) => !prefixContains(subnet, ip)
  // An end before the start is told as a start behind the end.
  if (outside(start) || (ipFamilyEquals(start, end) && compareIp(start, end) > 0))
    throw new InvalidRange(`RangeStart ${formatIp(start)} not in network ${formatPrefix(subnet)}`)
  if (outside(end)) throw new InvalidRange(`RangeEnd ${formatIp(end)} not in network ${formatPrefix(subnet)}`)
  return { subnet: network, start, end, gateway: spec.gateway === undefined ? first : canonicalIp(spec.gateway) }
}

/** The last address that is given by default: IPv4 keeps the broadcast address out. */
function lastOf(network: Prefix): Ip {
  const bits = BigInt(network.ip.length * 8 - network.length)
  const last = ipToBigInt(network.ip) + (1n << bits) - (isV4(network.ip) ? 2n : 1n)
  return bigIntToIp(last, network.ip.length)
}

/** The range of a set that an address lies in. */
export function rangeOf(set: RangeSet, ip: Ip): Range | undefined {
  return set.find(range => inRange(range, ip))
}

/** True for the gateway of any range of the set. */
export function isGateway(set: RangeSet, ip: Ip): boolean {
  return set.some(range => ipEquals(range.gateway, ip))
}

/** `10.0.0.1-10.0.0.254,10.0.1.1-10.0.1.254` */
export const formatRangeSet = (set: RangeSet): string => set.map(formatRange).join(',')

const formatRange = (range: Range) => `${formatIp(range.start)}-${formatIp(range.end)}`

/** An IPv4 address in IPv6 form as the IPv4 address it is. */
const canonicalIp = (ip: Ip): Ip => parseIp(formatIp(ip))

/**
 * Every address of a set but the gateways, once, in the order in which they are tried: from the one behind `last` round
 * to `last` itself, so that a released address rests as long as possible. From the start where `last` is of no range.
 *
 * Lazy: a set may have 2^64 addresses.
 */
export function* candidates(set: RangeSet, last: Ip | undefined): Generator<Candidate, void, void> {
  for (const { range, from, to } of lapFrom(set, last))
    for (const ip of walk(from, to)) if (!isGateway(set, ip)) yield { ip: ip.slice(), range }
}

type Stretch = { readonly range: Range; readonly from: Ip; readonly to: Ip }

function lapFrom(set: RangeSet, last: Ip | undefined): Stretch[] {
  const whole = (range: Range): Stretch => ({ range, from: range.start, to: range.end })
  const current = last === undefined ? undefined : rangeOf(set, last)
  if (last === undefined || current === undefined) return set.map(whole)
  const index = set.indexOf(current)
  const rest: Stretch[] = ipEquals(last, current.end)
    ? []
    : [{ range: current, from: addToIp(last, 1n)!, to: current.end }]
  return [
    ...rest,
    ...set.slice(index + 1).map(whole),
    ...set.slice(0, index).map(whole),
    { range: current, from: current.start, to: last },
  ]
}

/** Yields the same bytes each time, counted up: whoever keeps them copies them. */
function* walk(from: Ip, to: Ip): Generator<Ip, void, void> {
  const ip = from.slice()
  for (;;) {
    yield ip
    if (ipEquals(ip, to)) return
    let index = ip.length - 1
    while (ip[index] === 0xff) ip[index--] = 0
    ip[index]! += 1
  }
}

const inRange = (range: Range, ip: Ip): boolean =>
  ipFamilyEquals(range.start, ip) && compareIp(range.start, ip) <= 0 && compareIp(ip, range.end) <= 0

const overlap = (a: Range, b: Range): boolean =>
  ipFamilyEquals(a.start, b.start) && compareIp(a.start, b.end) <= 0 && compareIp(b.start, a.end) <= 0

const ipFamilyEquals = (a: Ip, b: Ip): boolean => a.length === b.length

const pairs = (length: number): [number, number][] =>
  Array.from({ length }, (_, first) =>
    Array.from({ length: length - first - 1 }, (_, rest): [number, number] => [first, first + 1 + rest]),
  ).flat()
