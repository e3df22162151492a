// SPDX-License-Identifier: Apache-2.0

import { formatMac, type Prefix } from '#base'
import type { Transport } from '#netlink'
import {
  BR_STATE_FORWARDING,
  decodePortVlans,
  dumpPortVlans,
  IF_OPER_UP,
  IFF_PROMISC,
  IFF_UP,
  type Link,
  type PortVlans,
  readLinkIndex,
} from '#rtnetlink'
import { addressFaults } from './address-faults.ts'
import { describeBridge, gatewayOwner, gatewayPort, hasSpanningTree, untaggedIn } from './bridge.ts'
import { type BridgedFirewall, checkBridged } from './bridge-firewall.ts'
import type { HostContext } from './context.ts'
import { type LinkExpectation, linkFaults, pairFaults } from './link-faults.ts'
import { tryFindLink } from './links.ts'
import { findPodLinkFaults, type PodLinkExpectation } from './pod-link.ts'

/** What CHECK wants to see. */
export type BridgedExpectation = {
  readonly bridge: {
    readonly name: string
    /** Undefined: it may change as ports come and go. */
    readonly mac: Uint8Array | undefined
    readonly promiscuous: boolean
    readonly vlanFiltering: boolean
  }
  readonly hostLink: string
  readonly host: LinkExpectation
  readonly netnsFd: number
  readonly port: {
    readonly hairpin: boolean
    readonly isolated: boolean
    /** All in which it is; none: any. */
    readonly vlans: readonly PortVlans[]
    /** It may be in the bridge's default VLAN, too. */
    readonly preserveDefaultVlan: boolean
  }
  readonly gateway:
    | {
        readonly name: string
        /** The VLAN whose port leads to it, 0: it is the bridge itself. */
        readonly vlan: number
        readonly mac: Uint8Array | undefined
        readonly addresses: readonly Prefix[]
      }
    | undefined
  /** Undefined: the pod's end is nobody's business. */
  readonly podLink: PodLinkExpectation | undefined
  readonly firewall: BridgedFirewall
}

/** Compares a pod with what its ADD made. @returns the differences in words, none: all is well */
export function checkBridgedPod(context: HostContext, want: BridgedExpectation): string[] {
  const { route } = context
  const bridge = tryFindLink(route, { ifname: want.bridge.name })
  const host = tryFindLink(route, { ifname: want.hostLink })
  const faults = bridgeFaults(bridge, want.bridge)
  faults.push(...portFaults(route, host, bridge, want))
  if (want.gateway !== undefined) faults.push(...gatewayFaults(route, bridge, want))
  faults.push(...checkBridged(context.netfilter, want.firewall))
  const { podLink } = want
  if (podLink !== undefined)
    faults.push(
      ...context.inNetns(want.netnsFd, pod => {
        const found = findPodLinkFaults(pod, podLink)
        return [...found, ...pairFaults(host, tryFindLink(pod, { ifname: podLink.ifName }))]
      }),
    )
  return faults
}

function bridgeFaults(bridge: Link | undefined, want: BridgedExpectation['bridge']): string[] {
  if (bridge === undefined) return [`bridge ${want.name} is missing`]
  const found = describeBridge(bridge)
  if (found.kind !== 'bridge') return [`${want.name} is no bridge but ${found.kind || 'a device'}`]
  const faults: string[] = []
  if ((bridge.flags & IFF_UP) === 0) faults.push(`bridge ${want.name} is down`)
  if (want.mac !== undefined && formatMac(found.mac) !== formatMac(want.mac))
    faults.push(`bridge ${want.name} has MAC ${formatMac(found.mac)}, not ${formatMac(want.mac)}`)
  if (want.promiscuous && (bridge.flags & IFF_PROMISC) === 0) faults.push(`bridge ${want.name} is not promiscuous`)
  if (want.vlanFiltering && !found.vlanFiltering) faults.push(`bridge ${want.name} does not filter VLANs`)
  return faults
}

function portFaults(
  route: Transport,
  host: Link | undefined,
  bridge: Link | undefined,
  { hostLink, host: wanted, port: want, bridge: { name } }: BridgedExpectation,
): string[] {
  const faults = linkFaults(host, hostLink, 'on the node', { ...wanted, kind: 'veth' })
  if (host === undefined) return faults
  const { port } = host.linkinfo ?? {}
  if (port === undefined || bridge === undefined || host.master !== bridge.index)
    return [...faults, `link ${hostLink} is no port of ${name}`]
  if ((port.hairpin === 1) !== want.hairpin)
    faults.push(`bridge port ${hostLink} has hairpin mode ${want.hairpin ? 'off' : 'on'}`)
  if ((port.isolated === 1) !== want.isolated)
    faults.push(`bridge port ${hostLink} is ${want.isolated ? 'not ' : ''}isolated`)
  faults.push(...stateFaults(route, host, bridge.index))
  if (want.vlans.length === 0) return faults
  const leave = describeBridge(bridge).defaultVlan
  return [...faults, ...vlanFaults(route, host, want.vlans, want.preserveDefaultVlan ? leave : 0)]
}

/** Without carrier a port does not forward, and with spanning tree it need not. */
const stateFaults = (route: Transport, { operstate, linkinfo, ifname }: Link, bridgeIndex: number): string[] =>
  operstate === IF_OPER_UP && linkinfo?.port?.state !== BR_STATE_FORWARDING && !hasSpanningTree(route, bridgeIndex)
    ? [`bridge port ${ifname} does not forward`]
    : []

/** @param preserved a VLAN that the port may be in beside, 0: none */
function vlanFaults(
  route: Transport,
  { index, ifname: name }: Link,
  want: readonly PortVlans[],
  preserved: number,
): string[] {
  const own = route.execute([dumpPortVlans()])[0]!.messages.find(port => readLinkIndex(port) === index)
  const present = own === undefined ? [] : decodePortVlans(own).vlans
  const isWanted = (vid: number) => vid === preserved || want.some(({ from, to }) => from <= vid && vid <= to)
  const others = present
    .flatMap(({ from, to }) => Array.from({ length: to - from + 1 }, (_, step) => from + step))
    .filter(vid => !isWanted(vid))
  const missing = want
    .filter(({ from, to, pvid = false, untagged = false }) => {
      for (let vid = from; vid <= to; vid++) {
        const found = present.find(each => each.from <= vid && vid <= each.to)
        if (found === undefined || found.pvid !== pvid || found.untagged !== untagged) return true
      }
      return false
    })
    .map(({ from, to, pvid }) => {
      const vlans = from === to ? `VLAN ${from}` : `VLANs ${from} to ${to}`
      return `bridge port ${name} is not in ${vlans} ${pvid ? 'untagged' : 'tagged'}`
    })
  return others.length === 0 ? missing : [...missing, `bridge port ${name} is in VLAN ${others.join(', ')} as well`]
}

function gatewayFaults(route: Transport, bridge: Link | undefined, { gateway: want }: BridgedExpectation): string[] {
  const { name, vlan, mac, addresses } = want!
  const link = tryFindLink(route, { ifname: name })
  const faults = linkFaults(link, name, 'on the node', { mac })
  if (link === undefined) return faults
  faults.push(...addressFaults(route, link.index, { ifName: name, addresses }))
  return vlan === 0 ? faults : [...faults, ...gatewayPortFaults(route, bridge, { name, vlan }, link)]
}

/** The other end of a VLAN's gateway, where ours made it: a link that was there before may be of any kind. */
function gatewayPortFaults(
  route: Transport,
  bridge: Link | undefined,
  { name, vlan }: { name: string; vlan: number },
  link: Link,
): string[] {
  const port = gatewayPort(name)
  const peer = tryFindLink(route, { ifname: port })
  if (bridge?.ifname === undefined || peer === undefined) return []
  const faults = linkFaults(peer, port, 'on the node', { kind: 'veth', owner: gatewayOwner(bridge.ifname, vlan) })
  if (peer.link !== link.index || link.link !== peer.index)
    faults.push(`link ${port} on the node is not the other end of ${name}`)
  if (peer.master !== bridge.index) return [...faults, `link ${port} is no port of ${bridge.ifname}`]
  return [
    ...faults,
    ...stateFaults(route, peer, bridge.index),
    ...vlanFaults(route, peer, [untaggedIn(vlan)], describeBridge(bridge).defaultVlan),
  ]
}
