// SPDX-License-Identifier: Apache-2.0

import { setTimeout as sleep } from 'node:timers/promises'
import {
  broadcastOf,
  type Deadline,
  deadlineIn,
  formatIp,
  formatMac,
  formatPrefix,
  type Ip,
  ipEquals,
  isPast,
  isV4,
  networkOf,
  type Prefix,
} from '#base'
import { NETLINK_ROUTE, NetlinkSocket, type Transport } from '#netlink'
import {
  AF_INET,
  AF_INET6,
  addAddress,
  addRoute,
  decodeAddress,
  decodeLink,
  dumpAddresses,
  getLink,
  IFA_F_DADFAILED,
  IFA_F_NODAD,
  IFA_F_TENTATIVE,
  IFF_LOWER_UP,
  type Link,
  protocols,
  type Route,
  RT_TABLE_MAIN,
  RTM_GROUP_IPV6_ADDRESS,
  RTM_GROUP_LINK,
  setArpNotify,
  setLink,
} from '#rtnetlink'
import { addressFaults } from './address-faults.ts'
import type { HostContext } from './context.ts'
import { type LinkExpectation, linkFaults, settingFaults } from './link-faults.ts'
import { tryFindLink } from './links.ts'
import { podTables } from './pod-tables.ts'
import { type RouteContext, routeFault } from './route-faults.ts'
import { ensureSysctl, setSysctl, tryReadSysctl } from './sysctl.ts'

// What an interface plugin does to the link in the pod, whatever kind of link it is. Everything here runs with the thread
// in the pod's namespace (`context.inNetns`) and a socket of that namespace.

/** A route along the pod's link; without `gateway` its destinations are on the link. */
export type PodLinkRoute = {
  readonly destination: Prefix
  readonly gateway?: Ip
  readonly priority?: number
  readonly table?: number
  readonly scope?: number
  readonly mtu?: number
  readonly advmss?: number
}

/** What is to be on a pod's link. Plain data, so that it may cross threads. */
export type PodLink = {
  readonly ifName: string
  /** Its number, where that is known: else it is asked for. */
  readonly index?: number
  readonly addresses: readonly Prefix[]
  readonly routes: readonly PodLinkRoute[]
  /** IFLA_IFALIAS: whose the link is. */
  readonly owner?: string
  readonly mac?: Uint8Array
  readonly mtuBytes?: number
  /**
   * False where nobody else can have the addresses: IPv6 ones then work at once. Else `awaitPodAddresses` tells when they
   * do. @default true
   */
  readonly detectDuplicates?: boolean
}

/** A pod's link as the kernel has it; `flags` are IFF_*. */
export type PodLinkState = { index: number; mac: Uint8Array; mtuBytes: number; flags: number }

/** How long a neighbour may take to say that it has the address. The kernel asks once; its own second is meant for any network. */
const DUPLICATE_WAIT_MS = 250

/**
 * Gives the link its addresses, brings it up and adds its routes, in one batch; neighbours hear of the addresses.
 *
 * What was done before a refusal stays: whoever brought the link into the pod takes it away again.
 */
export function configurePodLink(
  route: Transport,
  pod: PodLink,
  deadline: Deadline = deadlineIn(10_000),
): PodLinkState {
  const { ifName, owner, mac, mtuBytes: mtu, detectDuplicates = true } = pod
  const index = pod.index ?? requireLink(route, ifName).index
  prepareSettings(pod)
  const change = {
    up: true,
    ...(owner === undefined ? {} : { ifalias: owner }),
    ...(mac === undefined ? {} : { address: mac }),
    ...(mtu === undefined ? {} : { mtu }),
  }
  // Setting and addresses come first: what the kernel tells the neighbours (arp_notify) it tells when the link goes up.
  const replies = route.execute(
    [
      ...(pod.addresses.length === 0 ? [] : [setArpNotify(index)]),
      ...pod.addresses.map(prefix =>
        addAddress({
          index,
          prefix,
          ...withBroadcast(prefix),
          ...(isV4(prefix.ip) || detectDuplicates ? {} : { flags: IFA_F_NODAD }),
        }),
      ),
      setLink({ index }, change, `set link ${ifName} up in the pod`),
      ...pod.routes.map(each => addRoute(routeOf(each, index), 'append')),
      getLink({ index }),
    ],
    deadline,
  )
  const message = replies.at(-1)!.messages[0]
  if (message === undefined) throw goneError(ifName)
  return stateOf(decodeLink(message))
}

/** For programs that ask for it (ifconfig shows it); the kernel routes it in any case. */
export function withBroadcast(prefix: Prefix): { broadcast?: Ip } {
  const broadcast = broadcastOf(prefix)
  return broadcast === undefined ? {} : { broadcast }
}

/** As `ip route` makes them: what is in the pod is the pod's, and goes with it. */
const routeOf = ({ destination, ...rest }: PodLinkRoute, outInterface: number): Route => ({
  family: isV4(destination.ip) ? AF_INET : AF_INET6,
  outInterface,
  protocol: protocols.boot,
  ...(destination.length === 0 ? {} : { destination: networkOf(destination) }),
  ...rest,
})

const stateOf = (link: Link): PodLinkState => ({
  index: link.index,
  mac: link.address ?? new Uint8Array(6),
  mtuBytes: link.mtu ?? 0,
  flags: link.flags,
})

const goneError = (ifName: string) => new Error(`Cannot configure link ${ifName} in the pod: it is gone`)

function requireLink(route: Transport, ifName: string): Link {
  const link = tryFindLink(route, { ifname: ifName })
  if (link === undefined) throw goneError(ifName)
  return link
}

function prepareSettings({ ifName, addresses, detectDuplicates = true }: PodLink): void {
  if (addresses.every(({ ip }) => isV4(ip))) return
  setSysctl('1', 'ipv6', 'conf', ifName, 'ndisc_notify')
  ensureSysctl('0', 'ipv6', 'conf', 'lo', 'disable_ipv6')
  if (!ensureSysctl('0', 'ipv6', 'conf', ifName, 'disable_ipv6'))
    throw new Error('Cannot give the pod an IPv6 address: this kernel has IPv6 switched off')
  ensureSysctl('1', 'ipv6', 'conf', ifName, 'keep_addr_on_down')
  if (!detectDuplicates) {
    // The link-local address is needed at once, too.
    ensureSysctl('0', 'ipv6', 'conf', ifName, 'accept_dad')
    return
  }
  // The kernel waits up to a second before it asks, and then a whole one for an answer.
  ensureSysctl('0', 'ipv6', 'conf', ifName, 'router_solicitation_delay')
  ensureSysctl(String(DUPLICATE_WAIT_MS), 'ipv6', 'neigh', ifName, 'retrans_time_ms')
}

/** What became of a link's IPv6 addresses: those that somebody else has, those of which the segment has not said so in time. */
export type SettledAddresses = { duplicate: Prefix[]; unsettled: Prefix[] }

/** How often is asked whether the kernel has told anything: a question about an address takes a quarter of a second at least. */
const NEWS_MS = 5

/**
 * Waits until the kernel knows of every IPv6 address of the link whether somebody else has it, while its thread does other
 * work. Without carrier there is nobody to ask: returns at once, and the kernel asks when the carrier comes.
 */
export async function awaitPodAddresses(
  context: HostContext,
  { netnsFd, ifName, timeoutMs }: { netnsFd: number; ifName: string; timeoutMs: number },
): Promise<SettledAddresses> {
  const deadline = deadlineIn(timeoutMs)
  const inPod = <T>(run: (route: Transport) => T) => context.onNode(() => context.inNetns(netnsFd, run))
  // Before the first look, so that nothing is missed between look and wait.
  using news = inPod(() => new NetlinkSocket(NETLINK_ROUTE, RTM_GROUP_IPV6_ADDRESS | RTM_GROUP_LINK))
  try {
    for (;;) {
      const { duplicate, unsettled, hasCarrier } = inPod(route => lookForSettled(route, ifName))
      if (!hasCarrier) return { duplicate, unsettled: [] }
      if (duplicate.length > 0 || unsettled.length === 0 || isPast(deadline)) return { duplicate, unsettled }
      while (!news.awaitNotification(deadlineIn(0)) && !isPast(deadline)) await sleep(NEWS_MS)
    }
  } finally {
    inPod(() => restoreSettings(ifName))
  }
}

function lookForSettled(route: Transport, ifName: string): SettledAddresses & { hasCarrier: boolean } {
  const { index, flags } = requireLink(route, ifName)
  const found = route
    .execute([dumpAddresses(index)])[0]!
    .messages.map(decodeAddress)
    .filter(address => address.index === index && !isV4(address.prefix.ip))
  const [duplicate, unsettled] = [IFA_F_DADFAILED, IFA_F_TENTATIVE].map(flag =>
    found.filter(address => (address.flags & flag) !== 0).map(({ prefix }) => prefix),
  )
  return { duplicate: duplicate!, unsettled: unsettled!, hasCarrier: (flags & IFF_LOWER_UP) !== 0 }
}

/** What `prepareSettings` hurried, as new links have it. A namespace of its own does not show the neighbours' default. */
function restoreSettings(ifName: string): void {
  const delay = tryReadSysctl('ipv6', 'conf', 'default', 'router_solicitation_delay') ?? '1'
  ensureSysctl(delay, 'ipv6', 'conf', ifName, 'router_solicitation_delay')
  const retransMs = tryReadSysctl('ipv6', 'neigh', 'default', 'retrans_time_ms') ?? '1000'
  ensureSysctl(retransMs, 'ipv6', 'neigh', ifName, 'retrans_time_ms')
}

/** True if the pod has a link of that name, with the MAC and with one of the addresses, where they are given. */
export function hasPodLink(
  route: Transport,
  { ifName, mac, addresses }: { ifName: string; mac?: Uint8Array | undefined; addresses: readonly Prefix[] },
): boolean {
  const link = tryFindLink(route, { ifname: ifName })
  if (link === undefined) return false
  if (mac !== undefined && formatMac(stateOf(link).mac) !== formatMac(mac)) return false
  if (addresses.length === 0) return true
  const present = route.execute([dumpAddresses(link.index)])[0]!.messages.map(decodeAddress)
  return present.some(
    ({ index, prefix }) => index === link.index && addresses.some(each => ipEquals(each.ip, prefix.ip)),
  )
}

/** What CHECK wants to see of a link in a pod; what is left out is not looked at. */
export type PodLinkExpectation = LinkExpectation & {
  readonly ifName: string
  readonly addresses: readonly Prefix[]
  readonly routes: readonly PodLinkRoute[]
  /** True where the routes may also be those of other links of the pod: a result does not say by which link one leads. */
  readonly byAnyLink?: boolean
  /** Left out: another's ADD may have made it, which leaves to the kernel what ours does not. */
  readonly made?: Pick<PodLink, 'detectDuplicates'>
}

/** Compares a pod's link with what its ADD made. What others added is no fault. @returns the differences in words, none: all is well. */
export function findPodLinkFaults(route: Transport, want: PodLinkExpectation): string[] {
  const { ifName, addresses, mac, made } = want
  const link = tryFindLink(route, { ifname: ifName })
  const faults = linkFaults(link, ifName, 'in the pod', want)
  if (link === undefined) return faults
  return [
    ...faults,
    ...addressFaults(route, link.index, { ifName, addresses, mac, ...(made === undefined ? {} : { broadcast: true }) }),
    ...routeFaults(route, link.index, want),
    ...(made === undefined ? [] : podSettingFaults({ ifName, addresses, ...made })),
  ]
}

function routeFaults(route: Transport, index: number, want: PodLinkExpectation): string[] {
  const { ifName, addresses, routes, byAnyLink = false, made } = want
  const present = podTables(route, index, addresses)
  const sources = addresses.map(({ ip }) => ip)
  const isOurs = made !== undefined && !byAnyLink
  const faultOf = (each: PodLinkRoute, context: RouteContext) => {
    const { outInterface: _, ...wanted } = routeOf(each, index)
    return routeFault(present(each), wanted, context, { named: describeRoute(each, ifName), where: 'in the pod' })
  }
  return [
    ...routes.map(each => faultOf(each, { index: byAnyLink ? undefined : index, sources, isOurs })),
    ...prefixRoutes(addresses).map(each => faultOf(each, { index, sources, isOurs: false })),
  ].filter(fault => fault !== undefined)
}

/** The routes to the addresses' own networks, which the kernel makes. */
const prefixRoutes = (addresses: readonly Prefix[]): PodLinkRoute[] =>
  addresses.filter(({ ip, length }) => length < ip.length * 8).map(address => ({ destination: networkOf(address) }))

/** What `prepareSettings` made for good, and is not so any more. */
function podSettingFaults({ ifName, addresses, detectDuplicates = true }: Omit<PodLink, 'routes'>): string[] {
  if (addresses.length === 0) return []
  const faults = settingFaults('in the pod', '1', 'ipv4', 'conf', ifName, 'arp_notify')
  if (addresses.every(({ ip }) => isV4(ip))) return faults
  return [
    ...faults,
    ...settingFaults('in the pod', '1', 'ipv6', 'conf', ifName, 'ndisc_notify'),
    ...settingFaults('in the pod', '0', 'ipv6', 'conf', 'lo', 'disable_ipv6'),
    ...settingFaults('in the pod', '1', 'ipv6', 'conf', ifName, 'keep_addr_on_down'),
    ...(detectDuplicates ? [] : settingFaults('in the pod', '0', 'ipv6', 'conf', ifName, 'accept_dad')),
  ]
}

/** `10.0.0.0/8 via 10.99.0.1 dev eth0 table 100`, for messages. */
function describeRoute({ destination, gateway, priority, table }: PodLinkRoute, ifName: string): string {
  const via = gateway === undefined ? '' : ` via ${formatIp(gateway)}`
  const metric = priority === undefined ? '' : ` metric ${priority}`
  const where = table === undefined || table === RT_TABLE_MAIN ? '' : ` table ${table}`
  return `${formatPrefix(networkOf(destination))}${via} dev ${ifName}${metric}${where}`
}
