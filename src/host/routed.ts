// SPDX-License-Identifier: Apache-2.0

import {
  type Deadline,
  deadlineIn,
  formatIp,
  formatMac,
  formatPrefix,
  hostPrefix,
  type Ip,
  ipEquals,
  isV4,
  type Prefix,
  parseIp,
} from '#base'
import { EADDRINUSE, ENODEV } from '#libc'
import { mentions, NetlinkError, type NetlinkSocket, type Reply, type Request, type Transport } from '#netlink'
import {
  AF_INET,
  AF_INET6,
  addAddress,
  addNeighbour,
  addProxy,
  addRoute,
  decodeLink,
  decodeNeighbour,
  decodeRoute,
  deleteLink,
  deleteProxy,
  dumpProxies,
  dumpRoutes,
  getLink,
  getNeighbour,
  IF_OPER_UP,
  IFA_F_NODAD,
  IFA_F_NOPREFIXROUTE,
  type Link,
  lookupRoute,
  NUD_PERMANENT,
  protocols,
  RT_TABLE_MAIN,
  RTN_LOCAL,
  readLinkAttribute,
  readRouteType,
  scopes,
  setLink,
} from '#rtnetlink'
import { addressFaults, interfaceIdOf } from './address-faults.ts'
import type { HostContext } from './context.ts'
import { type LinkExpectation, linkFaults, pairFaults, settingFaults } from './link-faults.ts'
import { isOwned, type OwnedLink, tryFindLink } from './links.ts'
import { createPair, type Pair } from './pair.ts'
import { withBroadcast } from './pod-link.ts'
import { isInVrf, podTables } from './pod-tables.ts'
import { routeFault } from './route-faults.ts'
import { ensureSysctl } from './sysctl.ts'

/** A route in the pod. */
export type PodRoute = {
  destination: Prefix
  /** Left out: what it leads to is taken to be on the link. */
  gateway?: Ip
  preferredSource?: Ip
  priority?: number
  table?: number
  scope?: number
  mtu?: number
  advmss?: number
}

/**
 * An address by which the pod's routes lead to the node. A permanent neighbour entry in the pod tells where that is, so that
 * it works also where the node's arp_ignore keeps it silent.
 */
export type NextHop = {
  address: Ip
  /** The pod has a route to it, from this source where one is named; left out: none, as IPv6 needs none within a link. */
  route?: { source?: Ip }
  /** The node's end of the pair has the address; left out: another link of the node has it, or none at all. */
  onNode?: { length: number; scope?: number }
}

/** A pod that is joined to its node by a veth pair and host routes: everything that goes in and out is routed. */
export type RoutedPod = Omit<Pair, 'masterIndex'> & {
  /** IFLA_IFALIAS of the node's end: whose it is. */
  owner: string
  addresses: Prefix[]
  /** IPv4 addresses have their broadcast address, for programs that ask for it; nobody hears what is sent there. */
  broadcast?: boolean
  nextHops: NextHop[]
  routes: PodRoute[]
  /**
   * Routes by a next hop say that it is on the link, and need no route to it: upstream's vrf moves a link with its routes of
   * global scope alone.
   */
  onlink?: boolean
  /** Link on which the node answers ARP and neighbour discovery for the pod's addresses; undefined: nowhere. */
  uplinkIndex: number | undefined
}

/** Pods' next hop where it is the same for all of every node; see nexthop.ts. It is never on the wire. */
export const nextHops = Object.freeze({ v4: parseIp('169.254.1.1'), v6: parseIp('fe80::1') })
export const nextHopFor = (address: Ip): Ip => (isV4(address) ? nextHops.v4 : nextHops.v6)

/** That next hop, for the families of these addresses. */
export const commonNextHops = (addresses: readonly Prefix[]): NextHop[] => [
  ...(addresses.some(({ ip }) => isV4(ip)) ? [{ address: nextHops.v4, route: {} }] : []),
  ...(addresses.some(({ ip }) => !isV4(ip))
    ? [{ address: nextHops.v6, onNode: { length: 64, scope: scopes.link } }]
    : []),
]

/**
 * Makes the pair, its addresses and routes on both sides. Packets pass both ways once `isOperational`.
 *
 * Leaves nothing when it fails. @throws {NetlinkError} EEXIST where one of the names is taken.
 */
export function attachRouted(context: HostContext, pod: RoutedPod, deadline: Deadline = deadlineIn(10_000)): void {
  using undo = new DisposableStack()
  const pair = createPair(context, pod)
  undo.defer(() => context.route.execute([deleteLink({ index: pair.index })]))
  undo.defer(() => detachRouted(context, pod))
  // Asked in the same breath as the rest is done: what is refused, which is rare, costs its pair, and nobody else an exchange.
  const answers = context.route.execute(
    [...pod.addresses.map(({ ip }) => lookupRoute(ip)), ...nodeSide(pod, pair.index)],
    deadline,
  )
  refuseOwnAddresses(pod, answers)
  context.inNetns(pod.netnsFd, route => {
    if (pod.addresses.some(address => !isV4(address.ip))) enableIpv6(pod.ifName)
    route.execute(podSide(pod, pair.peer), deadline)
  })
  undo.move()
}

/** A pod with an address of the node would never get a packet: the node keeps them. */
function refuseOwnAddresses({ addresses }: RoutedPod, found: readonly Reply[]): void {
  const own = addresses.find((_, position) => {
    const message = found[position]!.messages[0]
    return message !== undefined && readRouteType(message) === RTN_LOCAL
  })
  if (own !== undefined) throw new NetlinkError(`give the pod ${formatIp(own.ip)}, which the node has`, EADDRINUSE)
}

function nodeSide(pod: RoutedPod, index: number): Request[] {
  const requests = [setLink({ index }, { up: true, ifalias: pod.owner }, `set link ${pod.hostLink} up`)]
  for (const { ip, length, scope = scopes.universe } of nodeAddresses(pod, pod.hostMac))
    requests.push(addAddress({ index, prefix: { ip, length }, scope, ...(isV4(ip) ? {} : { flags: IFA_F_NODAD }) }))
  for (const { ip } of pod.addresses) {
    const family = isV4(ip) ? AF_INET : AF_INET6
    // Scope "universe": a packet that came in by another link may be forwarded along it.
    requests.push(addRoute({ family, destination: hostPrefix(ip), outInterface: index, scope: scopes.universe }))
    if (pod.uplinkIndex !== undefined) requests.push(addProxy({ index: pod.uplinkIndex, address: ip }))
  }
  return requests
}

/** Those of the node's end. */
function nodeAddresses(
  { addresses, nextHops }: Pick<RoutedPod, 'addresses' | 'nextHops'>,
  mac: Uint8Array | undefined,
): (Prefix & { scope?: number })[] {
  const own = nextHops.flatMap(({ address: ip, onNode }) => (onNode === undefined ? [] : [{ ip, ...onNode }]))
  // The node asks for the pod from a link-local address, and the kernel's own is not usable before a second or two.
  const asks = addresses.some(({ ip }) => !isV4(ip)) && !own.some(({ scope }) => scope === scopes.link)
  return asks && mac !== undefined ? [...own, { ip: linkLocalOf(mac), length: 64, scope: scopes.link }] : own
}

/** The address that the kernel gives a link of this MAC (RFC 4291, modified EUI-64). */
const linkLocalOf = (mac: Uint8Array): Ip => Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, ...interfaceIdOf(mac))

function podSide(pod: RoutedPod, index: number): Request[] {
  const requests = [setLink({ index }, { up: true }, `set link ${pod.ifName} up in the pod`)]
  // No route to the subnet: its other addresses are not on this link. No duplicate detection: the address is ours.
  for (const prefix of pod.addresses) {
    const flags = IFA_F_NOPREFIXROUTE | (isV4(prefix.ip) ? 0 : IFA_F_NODAD)
    requests.push(addAddress({ index, prefix, flags, ...(pod.broadcast === true ? withBroadcast(prefix) : {}) }))
  }
  for (const { address, route } of pod.nextHops) {
    requests.push(addNeighbour({ index, address, mac: pod.hostMac }))
    if (route === undefined) continue
    const preferredSource = route.source === undefined ? {} : { preferredSource: route.source }
    requests.push(addPodRoute(index, { destination: hostPrefix(address), ...preferredSource }))
  }
  const isNextHop = (gateway: Ip | undefined) =>
    gateway !== undefined && pod.nextHops.some(({ address }) => ipEquals(address, gateway))
  requests.push(...pod.routes.map(route => addPodRoute(index, route, pod.onlink === true && isNextHop(route.gateway))))
  return requests
}

/** As `ip route` makes them: what is in the pod is the pod's, and goes with it. Beside those of other interfaces. */
const addPodRoute = (outInterface: number, { destination, ...rest }: PodRoute, onlink = false): Request =>
  addRoute(
    {
      family: isV4(destination.ip) ? AF_INET : AF_INET6,
      outInterface,
      protocol: protocols.boot,
      ...(destination.length === 0 ? {} : { destination }),
      ...rest,
      // With a gateway the kernel knows no other.
      ...(rest.gateway === undefined ? {} : { scope: scopes.universe, onlink }),
    },
    'append',
  )

export function enableIpv6(ifName: string): void {
  ensureSysctl('0', 'ipv6', 'conf', 'lo', 'disable_ipv6')
  if (!ensureSysctl('0', 'ipv6', 'conf', ifName, 'disable_ipv6'))
    throw new Error('Cannot give the pod an IPv6 address: this kernel has IPv6 switched off')
  // The link-local address is needed at once, too.
  ensureSysctl('0', 'ipv6', 'conf', ifName, 'accept_dad')
  ensureSysctl('1', 'ipv6', 'conf', ifName, 'keep_addr_on_down')
}

/** What of `enableIpv6` is not so any more, in words. */
export const ipv6Faults = (ifName: string): string[] => [
  ...settingFaults('in the pod', '0', 'ipv6', 'conf', 'lo', 'disable_ipv6'),
  ...settingFaults('in the pod', '0', 'ipv6', 'conf', ifName, 'disable_ipv6'),
  ...settingFaults('in the pod', '0', 'ipv6', 'conf', ifName, 'accept_dad'),
  ...settingFaults('in the pod', '1', 'ipv6', 'conf', ifName, 'keep_addr_on_down'),
]

/**
 * Whether packets pass the node's end of a pair. Carrier reaches it by a kernel worker a moment after the pod's end went
 * up; until then its queue drops. @throws {NetlinkError} where the link is gone
 */
export function isOperational({ route }: HostContext, { link }: { link: string }): boolean {
  const message = route.execute([getLink({ ifname: link })])[0]!.messages[0]
  if (message === undefined) throw new NetlinkError(`use link ${link}`, ENODEV, 'it is gone')
  return readLinkAttribute(message, 'operstate') === IF_OPER_UP
}

/** What of a pod is on the node: host routes go with its link, proxy entries do not. */
export type RoutedTraces = { hostLink: string; addresses: Prefix[]; uplinkIndex: number | undefined }

/**
 * Ends the pod's reachability at once; its link may go later. Absence is success.
 *
 * An address whose host route leads to another link is another pod's by now: its proxy entry stays.
 */
export function detachRouted({ route }: HostContext, { hostLink, addresses, uplinkIndex }: RoutedTraces): void {
  if (uplinkIndex === undefined || addresses.length === 0) return
  const [link, ...routes] = route.execute([
    getLink({ ifname: hostLink }),
    ...addresses.map(({ ip }) => lookupRoute(ip)),
  ])
  const own = link!.messages[0] === undefined ? undefined : decodeLink(link!.messages[0]).index
  const isAnothers = (position: number) => {
    const message = routes[position]!.messages[0]
    const entry = message === undefined ? undefined : decodeRoute(message)
    const isHostRoute = entry?.destination?.length === addresses[position]!.ip.length * 8
    return isHostRoute && entry.protocol === protocols.mooring && entry.outInterface !== own
  }
  const left = addresses.filter((_, position) => !isAnothers(position))
  if (left.length > 0) route.execute(left.map(({ ip }) => deleteProxy({ index: uplinkIndex, address: ip })))
}

/**
 * What a pod left on the node, found without any record: by its link, if that is still the owner's.
 * Reads every proxy entry: for the rare DEL that nothing is known of.
 */
export function findRouted(context: HostContext, owned: OwnedLink): RoutedTraces | undefined {
  const { route } = context
  const message = route.execute([getLink({ ifname: owned.name })])[0]!.messages[0]
  const link = message === undefined ? undefined : decodeLink(message)
  if (link === undefined || !isOwned(link, owned)) return undefined
  const addresses = hostRoutesBy(route, link.index)
  return { hostLink: owned.name, addresses, uplinkIndex: findProxyIndex(context, addresses) }
}

/** The destinations of our routes by a link of the node. */
export const hostRoutesBy = (route: Transport, outInterface: number): Prefix[] =>
  [AF_INET, AF_INET6]
    .flatMap(family => {
      const ours = { table: RT_TABLE_MAIN, protocol: protocols.mooring, outInterface }
      return route.execute([dumpRoutes(family, ours)])[0]!.messages
    })
    .map(decodeRoute)
    // Kernels before 4.20 know no filter but the table.
    .filter(entry => entry.outInterface === outInterface && entry.protocol === protocols.mooring)
    .flatMap(({ destination }) => destination ?? [])

/** Index of the link on which the node answers for one of the addresses because of us; undefined: nowhere. Reads every entry. */
export const findProxyIndex = ({ route }: HostContext, addresses: readonly Prefix[]): number | undefined =>
  [AF_INET, AF_INET6]
    .flatMap(family => route.execute([dumpProxies(family)])[0]!.messages)
    .filter(({ body }) =>
      mentions(
        body,
        addresses.map(({ ip }) => ip),
      ),
    )
    .map(decodeNeighbour)
    .find(
      ({ address, protocol }) => protocol === protocols.mooring && addresses.some(({ ip }) => ipEquals(ip, address)),
    )?.index

/** What CHECK wants to see. `pod.routes` as they were made; MACs from the result. */
export type RoutedExpectation = Pick<
  RoutedPod,
  'hostLink' | 'ifName' | 'netnsFd' | 'addresses' | 'broadcast' | 'nextHops' | 'routes' | 'onlink' | 'uplinkIndex'
> & {
  host: LinkExpectation
  pod: LinkExpectation
  /** Another's ADD made it, without the neighbour entries that ours makes. */
  foreign?: boolean
}

/** Compares a pod with what its ADD made. @returns the differences in words, none: all is well. */
export function checkRouted(context: HostContext, want: RoutedExpectation): string[] {
  const host = tryFindLink(context.route, { ifname: want.hostLink })
  const faults = linkFaults(host, want.hostLink, 'on the node', { ...want.host, kind: 'veth' })
  if (host !== undefined) faults.push(...nodeFaults(context.route, host.index, want))
  faults.push(...context.inNetns(want.netnsFd, route => podFaults(route, want, host)))
  return faults
}

function nodeFaults(
  route: NetlinkSocket,
  index: number,
  { hostLink, addresses, nextHops, uplinkIndex, host, foreign = false }: RoutedExpectation,
): string[] {
  const own = nodeAddresses({ addresses, nextHops }, foreign ? undefined : host.mac)
  const faults = addressFaults(route, index, { ifName: hostLink, addresses: own })
  for (const { ip } of addresses) {
    const [found, proxy] = route.execute([
      lookupRoute(ip),
      ...(uplinkIndex === undefined ? [] : [getNeighbour({ index: uplinkIndex, address: ip }, { proxy: true })]),
    ])
    const entries = found?.messages.map(decodeRoute) ?? []
    const wanted = { family: isV4(ip) ? AF_INET : AF_INET6, destination: hostPrefix(ip) }
    const fault = routeFault(
      entries,
      foreign ? wanted : { ...wanted, scope: scopes.universe },
      { index, sources: [], isOurs: !foreign },
      { named: `${formatIp(ip)} dev ${hostLink}`, where: 'on the node' },
    )
    if (fault !== undefined) faults.push(fault)
    if (uplinkIndex !== undefined && proxy?.messages.length === 0)
      faults.push(`proxy entry ${formatIp(ip)} on link ${uplinkIndex} is missing on the node`)
  }
  return faults
}

function podFaults(route: NetlinkSocket, want: RoutedExpectation, host: Link | undefined): string[] {
  const { ifName, addresses, broadcast, foreign = false } = want
  const link = tryFindLink(route, { ifname: ifName })
  const faults = linkFaults(link, ifName, 'in the pod', { ...want.pod, kind: 'veth' })
  if (link === undefined) return faults
  const isV6 = addresses.some(({ ip }) => !isV4(ip))
  faults.push(
    ...pairFaults(host, link),
    ...addressFaults(route, link.index, {
      ...{ ifName, addresses },
      ...(foreign ? {} : { withoutPrefixRoutes: true, broadcast: broadcast === true }),
    }),
    ...nextHopFaults(route, link.index, want, host?.address),
    ...routeFaults(route, link.index, want),
    ...(isV6 && !foreign ? ipv6Faults(ifName) : []),
  )
  return faults
}

/** Whether the pod knows without asking where its next hops are. */
function nextHopFaults(
  route: NetlinkSocket,
  index: number,
  { nextHops, ifName, foreign = false }: RoutedExpectation,
  hostMac: Uint8Array | undefined,
): string[] {
  const faults: string[] = []
  for (const { address, onNode } of foreign ? [] : nextHops) {
    const message = route.execute([getNeighbour({ index, address })])[0]!.messages[0]
    const entry = message === undefined ? undefined : decodeNeighbour(message)
    const leadsElsewhere =
      hostMac !== undefined && entry?.mac !== undefined && formatMac(entry.mac) !== formatMac(hostMac)
    // The kernel drops all entries when the pod's MAC changes (upstream's tuning): the node's end of the pair answers then.
    const isMissing = onNode === undefined && (entry?.state !== NUD_PERMANENT || entry.mac === undefined)
    if (leadsElsewhere || isMissing)
      faults.push(`neighbour ${formatIp(address)} on ${ifName} does not lead to the node`)
  }
  return faults
}

/** Those to the next hops, and those beyond. */
function routeFaults(
  route: NetlinkSocket,
  index: number,
  { addresses, nextHops, routes, onlink = false, ifName, foreign = false }: RoutedExpectation,
): string[] {
  const present = podTables(route, index, addresses)
  const context = { index, sources: addresses.map(({ ip }) => ip), isOurs: !foreign }
  const isMoved = onlink && isInVrf(route, index)
  const hops = nextHops.flatMap(({ address, route: own }): { route: PodRoute; named: string }[] => {
    if (own === undefined || isMoved) return []
    const preferredSource = own.source === undefined ? {} : { preferredSource: own.source }
    return [{ route: { destination: hostPrefix(address), ...preferredSource }, named: formatIp(address) }]
  })
  const others = routes.map(({ scope, ...each }): { route: PodRoute; named: string } => {
    const via = each.gateway === undefined ? '' : ` via ${formatIp(each.gateway)}`
    // With a gateway the kernel knows no other.
    const scoped = each.gateway === undefined && scope !== undefined ? { ...each, scope } : each
    return { route: scoped, named: `${formatPrefix(each.destination)}${via}` }
  })
  return [...hops, ...others]
    .map(({ route: { destination, ...rest }, named }) => {
      const wanted = {
        ...{ family: isV4(destination.ip) ? AF_INET : AF_INET6 },
        ...(destination.length === 0 ? {} : { destination }),
        ...rest,
      }
      const names = { named: `${named} dev ${ifName}`, where: 'in the pod' } as const
      return routeFault(
        present({ destination, ...(rest.table === undefined ? {} : { table: rest.table }) }),
        wanted,
        context,
        names,
      )
    })
    .filter(fault => fault !== undefined)
}
