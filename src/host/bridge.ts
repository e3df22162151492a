// SPDX-License-Identifier: Apache-2.0

import { randomBytes } from 'node:crypto'
import { ipEquals, isV4, localMac, type Prefix, prefixContains, sha256Hex } from '#base'
import { EEXIST, ENODEV, EOPNOTSUPP } from '#libc'
import { NetlinkError, type Request, type Transport } from '#netlink'
import {
  addAddress,
  addLink,
  addPortVlans,
  BR_STATE_FORWARDING,
  deleteAddress,
  deleteLink,
  deletePortVlans,
  IF_OPER_UP,
  IFA_F_NODAD,
  IFF_PROMISC,
  IFF_UP,
  type Link,
  type PortVlans,
  setLink,
} from '#rtnetlink'
import { addBridged, type BridgedFirewall, findBridged, knowsMacCheck, removeBridged } from './bridge-firewall.ts'
import type { HostContext } from './context.ts'
import { tryFindLink } from './links.ts'
import { createPair, type Pair } from './pair.ts'
import { configurePodLink, type PodLink, withBroadcast } from './pod-link.ts'
import { ensureSysctl, setSysctl } from './sysctl.ts'
import { listAddresses } from './uplink.ts'

/** The bridge that somebody wants. */
export type BridgeWanted = {
  readonly name: string
  /** Where it has to be made; 0: the kernel's default. */
  readonly mtuBytes: number
  readonly vlanFiltering: boolean
  readonly promiscuous: boolean
}

/** What there is of that name. */
export type FoundBridge = {
  readonly index: number
  /** Its true name, where it was asked for by an alternative one: rules and settings know no other. */
  readonly name: string
  /** IFLA_INFO_KIND; anything but `bridge` was left as it is. */
  readonly kind: string
  readonly mac: Uint8Array
  readonly mtuBytes: number
  /** False where it was not made by us and filters nothing: then it was left as it is, too. */
  readonly vlanFiltering: boolean
  /** The VLAN in which new ports are, 0: none. */
  readonly defaultVlan: number
}

/** A bridge, or what else has the name. Undefined: nothing has. */
export function findBridge({ route }: HostContext, { name }: { name: string }): FoundBridge | undefined {
  const link = tryFindLink(route, { ifname: name })
  return link === undefined ? undefined : describeBridge(link)
}

export function describeBridge(link: Link): FoundBridge {
  const { linkinfo } = link
  const settings = linkinfo?.kind === 'bridge' && 'data' in linkinfo ? linkinfo.data : undefined
  return {
    index: link.index,
    name: link.ifname ?? '',
    kind: linkinfo?.kind ?? '',
    mac: link.address ?? new Uint8Array(6),
    mtuBytes: link.mtu ?? 0,
    vlanFiltering: settings?.vlanFiltering === 1,
    defaultVlan: settings?.vlanDefaultPvid ?? 0,
  }
}

/**
 * Makes the bridge where it is missing, and sees that it is up. Several may do so at once. It stays for good: who comes
 * next needs it, and nobody knows who that is.
 */
export function ensureBridge({ route }: HostContext, wanted: BridgeWanted): FoundBridge {
  const { name: ifname, promiscuous, vlanFiltering } = wanted
  const link = tryFindLink(route, { ifname }) ?? createBridge(route, wanted)
  const found = describeBridge(link)
  if (found.kind !== 'bridge' || (vlanFiltering && !found.vlanFiltering)) return found
  const down = (link.flags & IFF_UP) === 0
  const blinkered = promiscuous && (link.flags & IFF_PROMISC) === 0
  if (down || blinkered)
    route.execute([setLink({ index: link.index }, { up: true, ...(promiscuous ? { promiscuous } : {}) })])
  return found
}

function createBridge(route: Transport, { name: ifname, mtuBytes, vlanFiltering }: BridgeWanted): Link {
  executeUnlessThere(
    route,
    addLink(
      {
        ifname,
        // Given, so that it stays: else it would be the lowest of the ports' and change as they come and go.
        address: localMac(randomBytes(6)),
        ...(mtuBytes === 0 ? {} : { mtu: mtuBytes }),
        linkinfo: { kind: 'bridge', ...(vlanFiltering ? { data: { vlanFiltering: 1 } } : {}) },
      },
      { up: true },
    ),
  )
  // No pod may tell the node where its default route leads.
  ensureSysctl('0', 'ipv6', 'conf', ifname, 'accept_ra')
  const link = tryFindLink(route, { ifname })
  if (link === undefined) throw new NetlinkError(`find bridge ${ifname} just made`, EEXIST)
  return link
}

/** @returns false where somebody else has made it meanwhile */
function executeUnlessThere(route: Transport, request: Request): boolean {
  return route.execute([{ ...request, tolerate: [EEXIST] }])[0]!.tolerated === undefined
}

/** The node's address in the network of the pods. */
export type GatewayWanted = {
  readonly bridge: {
    readonly index: number
    readonly name: string
    readonly mtuBytes: number
    readonly mac: Uint8Array
  }
  /** Given: not the bridge has the addresses, but a pair's end whose other end is a port in this VLAN. */
  readonly vlan?: { readonly id: number; readonly leave: number }
  readonly addresses: readonly Prefix[]
  /** Addresses that are in the way are removed. */
  readonly force: boolean
}

export type FoundGateway =
  | { readonly name: string; readonly mac: Uint8Array }
  /** The address of the bridge that is in the way of another, where force was not asked for. */
  | { readonly name: string; readonly conflict: { readonly present: Prefix; readonly wanted: Prefix } }

/** Name of the link that has the node's addresses. */
const gatewayName = (bridge: string, vlan: number): string => (vlan === 0 ? bridge : `${bridge}.${vlan}`)

/** Gives the node its addresses in the network of the pods. Several may do so at once. They stay, as the bridge does. */
export function ensureGateway({ route }: HostContext, wanted: GatewayWanted): FoundGateway {
  const { bridge, vlan, addresses, force } = wanted
  const name = gatewayName(bridge.name, vlan?.id ?? 0)
  const link = vlan === undefined ? bridge : ensureVlanLink(route, wanted, vlan)
  if (link === undefined) throw new NetlinkError(`give the node an address on ${name}`, ENODEV, 'it is gone')
  const { index, mac } = link
  const present = listAddresses(route, index)
  const has = (list: readonly Prefix[], prefix: Prefix) =>
    list.some(each => each.length === prefix.length && ipEquals(each.ip, prefix.ip))
  const missing = addresses.filter(prefix => !has(present, prefix))
  // The others that this network has are no hindrance to each other.
  const others = present.filter(prefix => !has(addresses, prefix))
  const obstacles = missing.flatMap(prefix => others.filter(other => isInTheWay(other, prefix)))
  if (obstacles.length > 0 && !force)
    return {
      name,
      conflict: { present: obstacles[0]!, wanted: missing.find(each => isInTheWay(obstacles[0]!, each))! },
    }
  if (missing.length === 0) return { name, mac }
  ensureSysctl('0', 'ipv6', 'conf', name, 'accept_ra')
  if (missing.some(({ ip }) => !isV4(ip)) && !ensureSysctl('0', 'ipv6', 'conf', name, 'disable_ipv6'))
    throw new Error(`Cannot give ${name} an IPv6 address: this kernel has IPv6 switched off`)
  route.execute([
    ...obstacles.map(prefix => deleteAddress({ index, prefix })),
    // Detection would only begin with the first port, and the first pod would have no gateway for a second or two.
    ...missing.map(prefix => ({
      ...addAddress({ index, prefix, ...withBroadcast(prefix), ...(isV4(prefix.ip) ? {} : { flags: IFA_F_NODAD }) }),
      tolerate: [EEXIST],
    })),
    // Set by hand, so that it stays when ports come and go.
    setLink({ index }, { address: mac }, `keep the MAC of ${name}`),
  ])
  return { name, mac }
}

/** A link has one IPv4 address of a network's, and IPv6 addresses of networks that do not overlap. */
const isInTheWay = (present: Prefix, wanted: Prefix): boolean =>
  isV4(present.ip) === isV4(wanted.ip) &&
  (isV4(wanted.ip) || prefixContains(present, wanted.ip) || prefixContains(wanted, present.ip))

/** The port of the bridge that leads to the gateway of a VLAN. */
export const gatewayPort = (gateway: string): string => `veth${sha256Hex(`gateway\0${gateway}`).slice(0, 8)}`
export const gatewayOwner = (bridge: string, vlan: number): string => `mooring gateway of ${bridge}, VLAN ${vlan}`
export const untaggedIn = (vlan: number): PortVlans => ({ from: vlan, to: vlan, pvid: true, untagged: true })

/** A link of the name that is not ours is taken as it is: an operator may have made a VLAN link on the bridge. */
function ensureVlanLink(
  route: Transport,
  { bridge }: GatewayWanted,
  vlan: { id: number; leave: number },
): { index: number; mac: Uint8Array } | undefined {
  const name = gatewayName(bridge.name, vlan.id)
  const port = gatewayPort(name)
  if (tryFindLink(route, { ifname: name }) === undefined)
    executeUnlessThere(
      route,
      addLink({
        ifname: port,
        mtu: bridge.mtuBytes,
        master: bridge.index,
        address: localMac(randomBytes(6)),
        linkinfo: {
          kind: 'veth',
          data: { peer: { ifname: name, mtu: bridge.mtuBytes, address: localMac(randomBytes(6)) } },
        },
      }),
    )
  const link = tryFindLink(route, { ifname: name })
  if (link === undefined) return undefined
  const peer =
    link.linkinfo?.kind === 'veth' && link.link !== undefined ? tryFindLink(route, { index: link.link }) : undefined
  const isOurs = peer !== undefined && peer.ifname === port
  // Whoever made it may not have come so far yet.
  if (isOurs)
    route.execute([
      // The bridge may be another one than when the pair was made.
      setLink({ index: peer.index }, { master: bridge.index }),
      ...vlanRequests(peer.index, {
        join: [untaggedIn(vlan.id)],
        leave: vlan.leave,
      }),
      setLink({ index: peer.index }, { up: true, ifalias: gatewayOwner(bridge.name, vlan.id) }),
    ])
  if (isOurs || (link.flags & IFF_UP) === 0) route.execute([setLink({ index: link.index }, { up: true })])
  return { index: link.index, mac: link.address ?? new Uint8Array(6) }
}

/** The VLANs of a port. `leave`: the one that it is in from the beginning, 0: none. */
export type PortMembership = { readonly join: readonly PortVlans[]; readonly leave: number }

const vlanRequests = (index: number, { join, leave }: PortMembership): Request[] => [
  ...(leave === 0 ? [] : [deletePortVlans(index, { from: leave, to: leave })]),
  ...join.map(vlans => addPortVlans(index, vlans)),
]

/** A pod that is to become a neighbour of the others on a bridge. */
export type BridgedPod = {
  readonly pair: Pair & { readonly masterIndex: number }
  readonly owner: string
  readonly port: { readonly hairpin: boolean; readonly isolated: boolean; readonly vlans: PortMembership | undefined }
  /** What is to be on the pod's end; undefined: nothing, and it stays down. */
  readonly podLink: PodLink | undefined
  readonly firewall: BridgedFirewall
}

/**
 * Makes the pair with the node's end as a port of the bridge. Leaves nothing when it fails.
 * @returns `rebuilt` where a table had to be made again, so that other pods' elements are missing; `isUp` false where the
 *   port does not forward yet: see `announceFromPort`
 * @throws {NetlinkError} EEXIST where one of the names is taken
 */
function attachBridged(context: HostContext, pod: BridgedPod): { rebuilt: boolean; isUp: boolean } {
  const { pair, owner, port, podLink, firewall } = pod
  using undo = new DisposableStack()
  const made = createPair(context, pair)
  undo.defer(() => context.route.execute([deleteLink({ index: made.index })]))
  undo.defer(() => removeBridged(context.netfilter, firewall))
  // What a port receives is the bridge's. Its link-local address would be of no use, and the kernel walks through the
  // routes of all ports whenever one comes, goes or gets carrier.
  setSysctl('1', 'ipv6', 'conf', pair.hostLink, 'disable_ipv6')
  // Before the pod can send anything.
  const rebuilt = addBridged(context.netfilter, firewall)
  const settings = { ...(port.hairpin ? { hairpin: 1 } : {}), ...(port.isolated ? { isolated: 1 } : {}) }
  const change = {
    ...(Object.keys(settings).length === 0 ? {} : { linkinfo: { kind: 'bridge_slave', port: settings } }),
    ifalias: owner,
    up: true,
  }
  context.route.execute([
    setLink({ index: made.index }, change, `set bridge port ${pair.hostLink} up`),
    ...(port.vlans === undefined ? [] : vlanRequests(made.index, port.vlans)),
  ])
  const isUp = podLink === undefined || bringUp(context, made, pair, podLink)
  undo.move()
  return { rebuilt, isUp }
}

/** Brings the pod's end up. Nearly always the port forwards by then, and one visit is enough. @returns whether it does */
function bringUp(
  context: HostContext,
  { index, peer }: { index: number; peer: number },
  pair: BridgedPod['pair'],
  podLink: PodLink,
): boolean {
  return context.inNetns(pair.netnsFd, route => {
    configurePodLink(route, { ...podLink, index: peer })
    // The node's socket is the node's from here, too.
    const isUp = isForwarding(tryFindLink(context.route, { index }), context.route, pair)
    if (isUp) announce(route, peer, pair, podLink)
    return isUp
  })
}

/**
 * Tells the neighbours of the pod's addresses, if its port forwards by now.
 * @returns whether it does. @throws {NetlinkError} where the port is gone
 */
export function announceFromPort(
  context: HostContext,
  { pair, podLink }: Pick<BridgedPod, 'pair' | 'podLink'>,
): boolean {
  const link = tryFindLink(context.route, { ifname: pair.hostLink })
  if (!isForwarding(link, context.route, pair)) return false
  const peer = link?.link
  if (podLink !== undefined && peer !== undefined)
    context.inNetns(pair.netnsFd, route => announce(route, peer, pair, podLink))
  return true
}

/**
 * What the kernel told the neighbours when the link went up (arp_notify) the port did not forward yet. It tells them again
 * when the MAC is set.
 */
function announce(route: Transport, peer: number, { podMac }: Pair, { ifName, addresses }: PodLink): void {
  if (addresses.length > 0) route.execute([setLink({ index: peer }, { address: podMac }, `announce ${ifName}`)])
}

const usesPort = (hostLink: string): string => `use bridge port ${hostLink}`

/** With spanning tree a port listens and learns first, for half a minute: that is not waited for. */
function isForwarding(link: Link | undefined, route: Transport, pair: BridgedPod['pair']): boolean {
  if (link === undefined) throw new NetlinkError(usesPort(pair.hostLink), ENODEV, 'it is gone')
  if (link.operstate !== IF_OPER_UP) return false
  return link.linkinfo?.port?.state === BR_STATE_FORWARDING || hasSpanningTree(route, pair.masterIndex)
}

export function hasSpanningTree(route: Transport, index: number): boolean {
  const linkinfo = tryFindLink(route, { index })?.linkinfo
  return linkinfo?.kind === 'bridge' && 'data' in linkinfo && (linkinfo.data?.stpState ?? 0) !== 0
}

/** Asks the kernel what it cannot do, changing nothing: what is asked for is refused in any case, the question is with what. */
export function lacksForBridge(
  { route, netfilter }: HostContext,
  needs: { vlanFiltering: boolean; macCheck: boolean },
): string[] {
  const refusal = (request: Request): number => {
    try {
      route.execute([request])
      return 0
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error
      return error.errno
    }
  }
  // A group address is no link's own.
  const impossible = Uint8Array.of(1, 0, 0, 0, 0, 0)
  const unknown = (['bridge', 'veth'] as const).filter(
    kind => refusal(addLink({ ifname: 'mooring-probe', address: impossible, linkinfo: { kind } })) === EOPNOTSUPP,
  )
  if (unknown.length > 0) return unknown.map(kind => `links of kind ${kind}`)
  // Only a kernel that knows VLANs looks at the protocol; `lo` is there already.
  const wrong = addLink({ ifname: 'lo', linkinfo: { kind: 'bridge', data: { vlanProtocol: 0 } } })
  return [
    ...(needs.vlanFiltering && refusal(wrong) !== EPROTONOSUPPORT ? ['VLAN filtering of bridges'] : []),
    ...(needs.macCheck && !knowsMacCheck(netfilter) ? ['nf_tables for bridges'] : []),
  ]
}

const EPROTONOSUPPORT = 93

/** What can be done to bridges and the pods on them, for verbs.ts. */
export const bridgeVerbs = {
  findBridge,
  ensureBridge,
  lacksForBridge,
  attachBridgedPod: (context: HostContext, { pod }: { pod: BridgedPod }) => attachBridged(context, pod),
  announceFromPort,
  removeBridgedFirewall: (context: HostContext, { firewall }: { firewall: BridgedFirewall }): void =>
    removeBridged(context.netfilter, firewall),
  findBridgedFirewall: (context: HostContext, { owner }: { owner: string }): BridgedFirewall =>
    findBridged(context.netfilter, owner),
  addBridgedFirewall(context: HostContext, { all }: { all: readonly BridgedFirewall[] }): void {
    for (const firewall of all) addBridged(context.netfilter, firewall)
  },
}
