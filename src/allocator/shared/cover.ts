// SPDX-License-Identifier: Apache-2.0

// Addresses as the fewest prefixes that hold them and nothing else. Pure.

import {
  bigIntToIp,
  formatIp,
  formatPrefix,
  hostPrefix,
  type Ip,
  ipToBigInt,
  networkOf,
  type Prefix,
  parseIp,
  parsePrefix,
  tryParseIp,
} from '#base'

/** An address alone is its own prefix. */
export const prefixOf = (text: string): Prefix =>
  tryParseIp(text) === undefined ? networkOf(parsePrefix(text)) : hostPrefix(parseIp(text))

/** A prefix in the one spelling that is compared: an address alone has no length. */
export const nameOfPrefix = (prefix: Prefix): string =>
  prefix.length === prefix.ip.length * 8 ? formatIp(prefix.ip) : formatPrefix(networkOf(prefix))

type Range = { readonly first: bigint; readonly last: bigint }

/**
 * The fewest prefixes that hold all of these addresses and prefixes, and no other address. Both IP versions; sorted, those
 * of IPv4 first. An address alone stands for itself, without a length.
 */
export function coverOf(members: readonly string[]): string[] {
  const prefixes = members.map(prefixOf)
  return [4, 16].flatMap(bytes => {
    const ranges = joined(prefixes.filter(({ ip }) => ip.length === bytes).map(rangeOf))
    return ranges.flatMap(range => prefixesOf(range, bytes)).map(nameOfPrefix)
  })
}

function rangeOf({ ip, length }: Prefix): Range {
  const first = ipToBigInt(ip)
  return { first, last: first + (1n << BigInt(ip.length * 8 - length)) - 1n }
}

function joined(ranges: readonly Range[]): Range[] {
  const sorted = ranges.toSorted((a, b) => (a.first < b.first ? -1 : 1))
  const result: { first: bigint; last: bigint }[] = []
  for (const { first, last } of sorted) {
    const before = result.at(-1)
    if (before === undefined || first > before.last + 1n) result.push({ first, last })
    else if (last > before.last) before.last = last
  }
  return result
}

/** A range from its start: each time the largest prefix that begins there and ends within. */
function prefixesOf({ first, last }: Range, bytes: number): Prefix[] {
  const result: Prefix[] = []
  for (let at = first; at <= last; ) {
    let bits = 0n
    while (bits < bytes * 8 && (at & ((1n << (bits + 1n)) - 1n)) === 0n && at + (1n << (bits + 1n)) - 1n <= last) bits++
    result.push({ ip: bigIntToIp(at, bytes), length: bytes * 8 - Number(bits) })
    at += 1n << bits
  }
  return result
}

/** The block of `size` addresses (a power of two) to which an address belongs, by its first address. */
export const blockOf = (address: string, size: number): Ip => {
  const ip = parseIp(address)
  return networkOf({ ip, length: ip.length * 8 - Math.log2(size) }).ip
}

/** The addresses of a block, in order. */
export function addressesOfBlock(first: Ip, size: number): string[] {
  const start = ipToBigInt(first)
  return Array.from({ length: size }, (_, index) => formatIp(bigIntToIp(start + BigInt(index), first.length)))
}
