// SPDX-License-Identifier: Apache-2.0

import { formatIp, hostPrefix, ipEquals } from '#base'
import { EEXIST, EOPNOTSUPP } from '#libc'
import { NetlinkError, type Transport } from '#netlink'
import {
  AF_INET,
  addAddress,
  addLink,
  decodeAddress,
  decodeRoute,
  dumpAddresses,
  IFF_UP,
  type Link,
  lookupRoute,
  RTN_LOCAL,
  scopes,
  setLink,
} from '#rtnetlink'
import { lifetimeFaults, scopeName } from './address-faults.ts'
import type { HostContext } from './context.ts'
import { type Place, settingFaults } from './link-faults.ts'
import { tryFindLink } from './links.ts'
import { nextHops } from './routed.ts'
import { ensureSysctl, tryReadSysctl } from './sysctl.ts'

const DUMMY = 'dummy0'

/**
 * Makes the node own 169.254.1.1: on dummy0, made where it is missing and kept for good, or on `lo` where the kernel has
 * no dummy. On `lo` the scope is "link", else the node would speak to pods from that address.
 */
export function ensureNextHop({ route }: HostContext): void {
  const link = tryFindLink(route, { ifname: DUMMY }) ?? createDummy(route) ?? tryFindLink(route, { ifname: 'lo' })!
  if ((link.flags & IFF_UP) === 0) route.execute([setLink({ index: link.index }, { up: true })])
  const present = route
    .execute([dumpAddresses(link.index)])[0]!
    .messages.map(decodeAddress)
    .some(address => address.index === link.index && ipEquals(address.prefix.ip, nextHops.v4))
  if (present) return
  const scope = link.ifname === 'lo' ? scopes.link : scopes.universe
  try {
    route.execute([addAddress({ index: link.index, prefix: hostPrefix(nextHops.v4), scope })])
  } catch (error) {
    if (!(error instanceof NetlinkError && error.errno === EEXIST)) throw error
  }
}

function createDummy(route: Transport): Link | undefined {
  try {
    route.execute([addLink({ ifname: DUMMY, linkinfo: { kind: 'dummy' } }, { up: true })])
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error
    if (error.errno === EOPNOTSUPP) return undefined
    if (error.errno !== EEXIST) throw error
  }
  return tryFindLink(route, { ifname: DUMMY })
}

/**
 * Makes the node forward, and answer for pods without the random delay of proxy ARP (up to 0.8 s).
 * @param links names of the NIC on which pods are answered for, and of that by which the node's own default route leads;
 * undefined: none
 */
export function ensureForwarding(
  families: { v4: boolean; v6: boolean },
  { answering, advertised }: { answering: string | undefined; advertised: string | undefined },
): void {
  if (families.v4) {
    ensureSysctl('1', 'ipv4', 'ip_forward')
    if (answering !== undefined) ensureSysctl('0', 'ipv4', 'neigh', answering, 'proxy_delay')
  }
  if (families.v6) {
    // A router ignores router advertisements, and with them the node's own default route, unless told otherwise.
    if (advertised !== undefined && tryReadSysctl('ipv6', 'conf', advertised, 'accept_ra') === '1')
      ensureSysctl('2', 'ipv6', 'conf', advertised, 'accept_ra')
    ensureSysctl('1', 'ipv6', 'conf', 'all', 'forwarding')
    if (answering === undefined) return
    ensureSysctl('1', 'ipv6', 'conf', answering, 'proxy_ndp')
    ensureSysctl('0', 'ipv6', 'neigh', answering, 'proxy_delay')
  }
}

/** What of `ensureForwarding` is not so any more, in words. Called in the node's namespace. */
export function forwardingFaults(
  families: { v4: boolean; v6: boolean },
  { answering, advertised }: Parameters<typeof ensureForwarding>[1],
): string[] {
  const faults: string[] = []
  const expect = (...setting: Parameters<typeof settingFaults>) => faults.push(...settingFaults(...setting))
  if (families.v4) {
    expect('on the node', '1', 'ipv4', 'ip_forward')
    if (answering !== undefined) expect('on the node', '0', 'ipv4', 'neigh', answering, 'proxy_delay')
  }
  if (families.v6) {
    expect('on the node', '1', 'ipv6', 'conf', 'all', 'forwarding')
    if (advertised !== undefined) faults.push(...advertisedFaults(advertised, 'on the node'))
    if (answering === undefined) return faults
    expect('on the node', '1', 'ipv6', 'conf', answering, 'proxy_ndp')
    expect('on the node', '0', 'ipv6', 'neigh', answering, 'proxy_delay')
  }
  return faults
}

/** A link that takes advertisements as a host does would take none any more: its machine is a router. */
export const advertisedFaults = (link: string, where: Place): string[] =>
  tryReadSysctl('ipv6', 'conf', link, 'accept_ra') === '1'
    ? [`net.ipv6.conf.${link}.accept_ra is 1, not 2, ${where}: a router ignores what gave it its default route`]
    : []

/** Whether the node owns the next hop of `ensureNextHop`, and keeps it. */
export function ownNextHopFaults({ route }: HostContext): string[] {
  const name = `the pods' next hop ${formatIp(nextHops.v4)}`
  const message = route.execute([lookupRoute(nextHops.v4)])[0]!.messages[0]
  if (message === undefined || decodeRoute(message).type !== RTN_LOCAL) return [`${name} is no address of the node`]
  const lo = tryFindLink(route, { ifname: 'lo' })?.index
  return route
    .execute([dumpAddresses(0, AF_INET)])[0]!
    .messages.map(decodeAddress)
    .filter(({ prefix }) => ipEquals(prefix.ip, nextHops.v4))
    .flatMap(address => [
      ...lifetimeFaults(address),
      ...(address.index === lo && address.scope < scopes.link
        ? [`has scope ${scopeName(address.scope)} on lo: the node speaks to pods from it`]
        : []),
    ])
    .map(fault => `${name} ${fault}`)
}
