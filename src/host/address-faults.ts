// SPDX-License-Identifier: Apache-2.0

import { broadcastOf, formatIp, formatMac, formatPrefix, type Ip, ipEquals, isV4, type Prefix } from '#base'
import type { Transport } from '#netlink'
import {
  type Address,
  decodeAddress,
  dumpAddresses,
  IFA_F_DADFAILED,
  IFA_F_DEPRECATED,
  IFA_F_NOPREFIXROUTE,
  scopes,
} from '#rtnetlink'

// What CHECK finds of a link's addresses, whatever kind of plugin gave them.

/** The addresses that a link has to have, and how. */
export type AddressExpectation = {
  readonly ifName: string
  /** `scope`: RT_SCOPE_*; universe where left out. */
  readonly addresses: readonly (Prefix & { readonly scope?: number })[]
  /** Of the link: what routers say of the address that follows from it (RFC 4862, 5.5.3) counts, too. */
  readonly mac?: Uint8Array | undefined
  /** Added without the route to their network; left out: not looked at. */
  readonly withoutPrefixRoutes?: boolean
  /** IPv4 addresses have their network's broadcast address; left out: not looked at. */
  readonly broadcast?: boolean
}

/** Compares a link's addresses with what its ADD made. @returns the differences in words, none: all is well */
export function addressFaults(route: Transport, index: number, want: AddressExpectation): string[] {
  if (want.addresses.length === 0) return []
  const present = route
    .execute([dumpAddresses(index)])[0]!
    .messages.map(decodeAddress)
    .filter(address => address.index === index)
  return want.addresses.flatMap(prefix => {
    const found = present.find(address => formatPrefix(address.prefix) === formatPrefix(prefix))
    const name = formatPrefix(prefix)
    if (found === undefined) return [`address ${name} is missing on ${want.ifName}`]
    return differencesOf(found, prefix, want).map(text => `address ${name} on ${want.ifName} ${text}`)
  })
}

function differencesOf(
  found: Address,
  { ip, length, scope = scopes.universe }: AddressExpectation['addresses'][number],
  { mac, withoutPrefixRoutes, broadcast }: AddressExpectation,
): string[] {
  const faults: string[] = []
  if ((found.flags & IFA_F_DADFAILED) !== 0) faults.push('is used by somebody else, too')
  // The kernel ends the lifetime of both at once where one is over.
  if (!isAdvertised(ip, mac)) faults.push(...lifetimeFaults(found))
  if (found.scope !== scope) faults.push(`has scope ${scopeName(found.scope)}, not ${scopeName(scope)}`)
  if (withoutPrefixRoutes === true && (found.flags & IFA_F_NOPREFIXROUTE) === 0)
    faults.push('brings a route to its network')
  const wanted = broadcast === true ? broadcastOf({ ip, length }) : undefined
  if (wanted !== undefined && (found.broadcast === undefined || !ipEquals(found.broadcast, wanted)))
    faults.push(`has ${found.broadcast ? formatIp(found.broadcast) : 'no'} broadcast address, not ${formatIp(wanted)}`)
  return faults
}

/** An address that expires, or from which no new connections begin. @returns the differences in words */
export function lifetimeFaults({ flags, validSeconds, preferredSeconds }: Address): string[] {
  if (validSeconds !== undefined) return [`expires in ${validSeconds} s`]
  if ((flags & IFA_F_DEPRECATED) !== 0 || preferredSeconds === 0) return ['is deprecated']
  return preferredSeconds === undefined ? [] : [`is deprecated in ${preferredSeconds} s`]
}

const isAdvertised = (ip: Ip, mac: Uint8Array | undefined): boolean =>
  !isV4(ip) && mac?.length === 6 && formatMac(interfaceIdOf(mac)) === formatMac(ip.subarray(8))

/** The last half of the address that a link of this MAC gives itself (RFC 4291, modified EUI-64). */
export const interfaceIdOf = ([a = 0, b = 0, c = 0, d = 0, e = 0, f = 0]: Uint8Array): Uint8Array =>
  Uint8Array.of(a ^ 2, b, c, 0xff, 0xfe, d, e, f)

/** As `ip` says it. */
export const scopeName = (scope: number): string =>
  scope === scopes.universe
    ? 'global'
    : (Object.entries(scopes).find(([, value]) => value === scope)?.[0] ?? String(scope))
