// SPDX-License-Identifier: Apache-2.0

import { type Ip, type Prefix, parsePrefix } from '#base'
import { compare, type Expression, families, loadField, loadMeta, mask } from '#nftables'

// Conditions of our rules. Registers 1 to 4 hold 16 bytes each and follow one another; a condition uses register 1 for
// what it compares, so a key is loaded after all conditions.

export type IpVersion = 'v4' | 'v6'
export const ipVersions = ['v4', 'v6'] as const
export const versionOf = (address: Ip): IpVersion => (address.length === 4 ? 'v4' : 'v6')
/** One of something for each version. */
export const perVersion = <T>(make: (version: IpVersion) => T) => ({ v4: make('v4'), v6: make('v6') })

/** The types of addresses in keys. */
export const addressTypes = { v4: 'ipv4_addr', v6: 'ipv6_addr' } as const
/** The header fields of addresses. */
export const addressFields = {
  v4: { source: 'ip saddr', destination: 'ip daddr' },
  v6: { source: 'ip6 saddr', destination: 'ip6 daddr' },
} as const

const REGISTER = 1
const protocols = { v4: families.ip, v6: families.ip6 } as const

/** The packet is of this version. */
export const isVersion = (version: IpVersion): Expression[] => [
  loadMeta('nfproto', REGISTER),
  compare(REGISTER, '==', Uint8Array.of(protocols[version])),
]

/** The packet comes from, or goes to, an address of the prefix. */
export const isWithin = (version: IpVersion, end: 'source' | 'destination', prefix: string | Prefix): Expression[] => {
  const { ip, length } = typeof prefix === 'string' ? parsePrefix(prefix) : prefix
  const field = addressFields[version][end]
  const condition =
    length > 0 && length % 8 === 0
      ? [loadField(field, REGISTER, length / 8), compare(REGISTER, '==', ip.subarray(0, length / 8))]
      : [loadField(field, REGISTER), mask(REGISTER, maskOf(length, ip.length)), compare(REGISTER, '==', ip)]
  return [...isVersion(version), ...condition]
}

/** 255.255.0.0 for 16 of 4 bytes. */
export const maskOf = (length: number, bytes: number): Uint8Array =>
  Uint8Array.from({ length: bytes }, (_, index) => (0xff00 >> Math.min(8, Math.max(0, length - index * 8))) & 0xff)
