// SPDX-License-Identifier: Apache-2.0

import { type Ip, type Prefix, parseIp } from '#base'
import type { Transport } from '#netlink'
import {
  AF_INET,
  AF_INET6,
  decodeAddress,
  decodeLink,
  decodeRoute,
  dumpAddresses,
  dumpRoutes,
  getLink,
  type Link,
  lookupRoute,
  RT_TABLE_MAIN,
} from '#rtnetlink'

/** The node's NIC by which pods reach the world. */
export type Uplink = { index: number; name: string; mac: Uint8Array; mtuBytes: number }

/**
 * The NIC of that name, or, without one, that of the default route (IPv4's, else IPv6's).
 * @returns undefined where there is none.
 */
export function findUplink(route: Transport, name?: string): Uplink | undefined {
  const link = findUplinkLink(route, name)
  return link && describeUplink(link)
}

/** The same with all that the kernel says of it. */
export function findUplinkLink(route: Transport, name?: string): Link | undefined {
  const target = name === undefined ? defaultRouteLink(route) : { ifname: name }
  const message = target && route.execute([getLink(target)])[0]!.messages[0]
  return message && decodeLink(message)
}

/** What plugins want to know of it. */
export const describeUplink = (link: Link): Uplink => ({
  index: link.index,
  name: link.ifname ?? '',
  mac: link.address ?? new Uint8Array(6),
  mtuBytes: link.mtu ?? 1500,
})

/** The addresses of a link, global scope first as the kernel lists them. */
export function listAddresses(route: Transport, index: number): Prefix[] {
  return route
    .execute([dumpAddresses(index)])[0]!
    .messages.map(decodeAddress)
    .filter(address => address.index === index)
    .map(address => address.prefix)
}

// Addresses that no node has a route of its own for (RFC 5737, RFC 3849): what leads there is the default route.
const probes: readonly (readonly [number, Ip])[] = [
  [AF_INET, parseIp('192.0.2.1')],
  [AF_INET6, parseIp('2001:db8::1')],
]

/**
 * One lookup in the forwarding table, however many routes there are; only where something more specific matched the
 * probe is the whole table read.
 */
function defaultRouteLink(route: Transport): { index: number } | undefined {
  for (const [family, address] of probes) {
    const message = route.execute([lookupRoute(address)])[0]!.messages[0]
    const found = message === undefined ? undefined : decodeRoute(message)
    if (found?.destination === undefined && found?.outInterface !== undefined) return { index: found.outInterface }
    if (found === undefined) continue
    const fallback = route
      .execute([dumpRoutes(family, { table: RT_TABLE_MAIN })])[0]!
      .messages.map(decodeRoute)
      .filter(entry => entry.destination === undefined && entry.outInterface !== undefined)
      .sort((a, b) => (a.priority ?? 0) - (b.priority ?? 0))[0]
    if (fallback?.outInterface !== undefined) return { index: fallback.outInterface }
  }
  return undefined
}
