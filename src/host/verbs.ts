// SPDX-License-Identifier: Apache-2.0

import { type Ip, ipEquals, type Prefix } from '#base'
import type { Transport } from '#netlink'
import { announce } from './announce.ts'
import {
  type Answering,
  type Answers,
  answerFor,
  ensureAnswers,
  findAnswerFaults,
  findAnswers,
  stopAnswering,
} from './answers.ts'
import { bridgeVerbs, ensureGateway, type FoundGateway, type GatewayWanted } from './bridge.ts'
import { type BridgedExpectation, checkBridgedPod } from './bridge-check.ts'
import { ensureMacCheck } from './bridge-firewall.ts'
import {
  addChild,
  type Child,
  type ChildExpectation,
  type ChildInfo,
  describePodLink,
  findChildFaults,
  findMaster,
  isKindKnown,
  removePodLink,
} from './child.ts'
import type { HostContext } from './context.ts'
import {
  addPod,
  checkPod,
  ensure,
  ensureTable,
  type FirewallPod,
  findForeignForwardDrop,
  listPods,
  removePod,
} from './firewall.ts'
import { type ForeignAttachment, removeForeignMasquerade } from './foreign-masquerade.ts'
import { describeLink, listOwnedLinks, type OwnedLink, removeLinks, tryFindLink } from './links.ts'
import { bringLoopbackUp, checkLoopback, takeLoopbackDown } from './loopback.ts'
import { ensureForwarding, ensureNextHop, forwardingFaults, ownNextHopFaults } from './nexthop.ts'
import { nicVerbs } from './nic.ts'
import { takeOwing } from './part.ts'
import { awaitPodAddresses, hasPodLink } from './pod-link.ts'
import { ensurePortmap, portVerbs } from './portmap.ts'
import { type ArpProbe, probeArp } from './probe.ts'
import {
  attachRouted,
  checkRouted,
  detachRouted,
  findProxyIndex,
  findRouted,
  isOperational,
  nextHops,
  type RoutedExpectation,
  type RoutedPod,
  type RoutedTraces,
} from './routed.ts'
import { strayVerbs } from './strays.ts'
import { surveyVerbs } from './survey.ts'
import { findUplink, listAddresses } from './uplink.ts'
import { ensureVethHost } from './veth-host-firewall.ts'
import { vethHostVerbs } from './veth-host-verbs.ts'

/** How long the node's own settings are taken for granted after they were seen right. */
const ENSURED_MS = 5_000
const ensured = new WeakMap<HostContext, Map<string, number>>()

/** What the node has to do for a pod. */
type NodeNeeds = {
  v4: boolean
  v6: boolean
  /** It owns 169.254.1.1. */
  nextHop: boolean
  /** Name of the link on which it answers for the pod. */
  uplink: string | undefined
}

function ensureNode(context: HostContext, needs: NodeNeeds): void {
  const seen = ensured.get(context) ?? new Map<string, number>()
  ensured.set(context, seen)
  const key = JSON.stringify(needs)
  if (performance.now() < (seen.get(key) ?? 0)) return
  const { uplink, v6 } = needs
  if (needs.nextHop) ensureNextHop(context)
  // Its own default route may be one that a router advertises, also where it answers for nobody.
  ensureForwarding(needs, {
    answering: uplink,
    advertised: uplink ?? (v6 ? findUplink(context.route)?.name : undefined),
  })
  seen.set(key, performance.now() + ENSURED_MS)
}

/** What `ensureNode` did for a pod that is routed, and is not so any more. */
function checkNode(context: HostContext, { addresses, nextHops: hops, uplinkIndex }: RoutedExpectation): string[] {
  const uplink = uplinkIndex === undefined ? undefined : tryFindLink(context.route, { index: uplinkIndex })?.ifname
  const isCommon = hops.some(({ address }) => ipEquals(address, nextHops.v4))
  return [...routerFaults(context, addresses, uplink), ...(isCommon ? ownNextHopFaults(context) : [])]
}

const routerFaults = (context: HostContext, addresses: readonly Prefix[], uplink?: string): string[] =>
  forwardingFaults(familiesIn(addresses), {
    answering: uplink,
    advertised: uplink ?? findUplink(context.route)?.name,
  })

const familiesIn = (addresses: readonly Prefix[]) => ({
  v4: addresses.some(({ ip }) => ip.length === 4),
  v6: addresses.some(({ ip }) => ip.length === 16),
})

/** What kinds of plugins need of the table. */
const ensureFirewallPart = {
  pods: ensureTable,
  masquerade: (netfilter: Transport) => ensure(netfilter, { checked: false, masquerade: true, inside: [] }),
  macCheck: ensureMacCheck,
  portmap: (netfilter: Transport) => ensurePortmap(netfilter, []),
  vethHost: ensureVethHost,
  silentPods: ensureAnswers,
} as const
export type FirewallPart = keyof typeof ensureFirewallPart

/**
 * Everything that can be done to a node, as functions of a thread's context and plain data: synchronous but for one, which
 * may wait for seconds. Each is all or nothing; each treats absence as success where it removes.
 */
export const verbs = {
  /** The uplink and its addresses; undefined where there is none. */
  findUplink(context: HostContext, { name }: { name?: string | undefined }) {
    const uplink = findUplink(context.route, name)
    return uplink === undefined ? undefined : { ...uplink, addresses: listAddresses(context.route, uplink.index) }
  },

  /**
   * Joins a pod to the node: pair, addresses, routes, proxy entries, firewall elements, announcement.
   * @returns true where the firewall's table had to be made again, so that the other pods' elements are missing
   */
  attachRoutedPod(context: HostContext, { pod, uplink, firewall }: AttachRoutedPod): boolean {
    const nextHop = pod.nextHops.some(({ address }) => ipEquals(address, nextHops.v4))
    ensureNode(context, { ...familiesIn(pod.addresses), nextHop, uplink: uplink?.name })
    attachRouted(context, { ...pod, uplinkIndex: uplink?.index })
    using undo = new DisposableStack()
    undo.defer(() => removeLinks(context, [{ name: pod.hostLink, owner: pod.owner, mac: pod.hostMac }]))
    undo.defer(() => detachRouted(context, { ...pod, uplinkIndex: uplink?.index }))
    const rebuilt = addPod(context.netfilter, firewall)
    undo.move()
    if (uplink !== undefined)
      announce(
        context,
        uplink,
        pod.addresses.map(({ ip }): Ip => ip),
      )
    return rebuilt
  },

  /** Ends a pod's reachability at once; its link may go later. */
  detachRoutedPod(context: HostContext, { traces, firewall }: { traces: RoutedTraces; firewall: FirewallPod }): void {
    removePod(context.netfilter, firewall)
    detachRouted(context, traces)
  },

  isOperational,

  /** What a pod left on the node, found by its link; undefined where the link is gone or another's. */
  findRouted: (context: HostContext, link: OwnedLink) => findRouted(context, link),
  findProxyIndex: (context: HostContext, { addresses }: { addresses: readonly Prefix[] }) =>
    findProxyIndex(context, addresses),

  /** The differences between a pod and what its ADD made. */
  checkRoutedPod: (
    context: HostContext,
    { pod, firewall }: { pod: RoutedExpectation; firewall: FirewallPod },
  ): string[] => [...checkRouted(context, pod), ...checkNode(context, pod), ...checkPod(context.netfilter, firewall)],

  /** Base chains of others that drop what is forwarded, in words. */
  findForeignForwardDrop: (context: HostContext): string[] => findForeignForwardDrop(context.netfilter),

  /** See links.ts. */
  removeLinks: (context: HostContext, { links }: { links: OwnedLink[] }): void => removeLinks(context, links),
  listOwnedLinks: (context: HostContext, { prefix }: { prefix: string }) => listOwnedLinks(context, prefix),
  describeLink: (context: HostContext, { name }: { name: string }) => describeLink(context, name),

  /** See loopback.ts. */
  bringLoopbackUp: (context: HostContext, { netnsFd }: { netnsFd: number }) => bringLoopbackUp(context, netnsFd),
  takeLoopbackDown: (context: HostContext, { netnsFd }: { netnsFd: number }) => takeLoopbackDown(context, netnsFd),
  checkLoopback: (context: HostContext, { netnsFd, addresses }: { netnsFd: number; addresses: readonly Prefix[] }) =>
    checkLoopback(context, netnsFd, addresses),

  /** See child.ts. */
  findMaster: (context: HostContext, where: { name: string | undefined; netnsFd: number | undefined }) =>
    findMaster(context, where),
  addChild: (context: HostContext, child: Child) => addChild(context, child),
  findChildFaults: (context: HostContext, want: ChildExpectation): string[] => findChildFaults(context, want),
  isKindKnown: (context: HostContext, { kind }: { kind: ChildInfo['kind'] }): boolean => isKindKnown(context, kind),
  describePodLink: (
    context: HostContext,
    { netnsFd, link }: { netnsFd: number; link: { index: number } | { ifname: string } },
  ) => describePodLink(context, netnsFd, link),
  removePodLink: (
    context: HostContext,
    { netnsFd, link }: { netnsFd: number; link: { index: number; kind: string } },
  ): void => removePodLink(context, netnsFd, link),

  /** See answers.ts. */
  answerFor: (context: HostContext, { link, answers }: { link: Answering; answers: Omit<Answers, 'link'> }): boolean =>
    answerFor(context.netfilter, link, answers),
  stopAnswering: (context: HostContext, { answers }: { answers: Answers }): void =>
    stopAnswering(context.netfilter, answers),
  findAnswers: (context: HostContext, { owner }: { owner: string }): Answers[] => findAnswers(context.netfilter, owner),
  findAnswerFaults: (
    context: HostContext,
    { link, answers }: { link: Answering; answers: Omit<Answers, 'link'> },
  ): string[] => findAnswerFaults(context.netfilter, link, answers),

  /** See pod-link.ts. */
  awaitPodAddresses,

  /** See pod-link.ts. */
  hasPodLink: (
    context: HostContext,
    {
      netnsFd,
      ...link
    }: { netnsFd: number; ifName: string; mac?: Uint8Array | undefined; addresses: readonly Prefix[] },
  ): boolean => context.inNetns(netnsFd, route => hasPodLink(route, link)),

  ...nicVerbs,
  ...strayVerbs,
  ...surveyVerbs,
  ...vethHostVerbs,

  ...bridgeVerbs,
  /** The differences between a pod on a bridge and what its ADD made. */
  checkBridgedPod: (context: HostContext, { want }: { want: BridgedExpectation }): string[] => [
    ...checkBridgedPod(context, want),
    ...(want.gateway === undefined ? [] : routerFaults(context, want.gateway.addresses)),
  ],
  /** See bridge.ts. The node forwards for the pods then. */
  ensureBridgeGateway(context: HostContext, wanted: GatewayWanted): FoundGateway {
    ensureNode(context, { ...familiesIn(wanted.addresses), nextHop: false, uplink: undefined })
    return ensureGateway(context, wanted)
  },

  /** See probe.ts. */
  probeArp: (
    context: HostContext,
    { uplink, probes }: { uplink: { index: number; mac: Uint8Array }; probes: readonly ArpProbe[] },
  ): Ip[] => probeArp(context, uplink, probes),

  /** See foreign-masquerade.ts. */
  removeForeignMasquerade: (context: HostContext, attachment: ForeignAttachment): void =>
    removeForeignMasquerade(context.netfilter, attachment),

  /** The pods that the firewall knows. */
  listFirewallPods: (context: HostContext) => listPods(context.netfilter),
  /** Those of links, whole. */
  findFirewallPods: (context: HostContext, { links }: { links: readonly string[] }) =>
    listPods(context.netfilter, links).filter(({ link }) => links.includes(link)),
  /** Makes what is missing of parts of the table. @returns true where any was made since it was last asked: elements may be missing */
  ensureFirewall(context: HostContext, { parts }: { parts: readonly FirewallPart[] }): boolean {
    const isMade = parts.map(part => ensureFirewallPart[part](context.netfilter)).some(made => made)
    return takeOwing(context.netfilter) || isMade
  },
  ...portVerbs,
  /** Puts pods back into a table that was made again. */
  addFirewallPods(context: HostContext, { pods }: { pods: readonly FirewallPod[] }): void {
    for (const pod of pods) addPod(context.netfilter, pod)
  },
}
export type Verbs = typeof verbs

/**
 * Verbs that keep their thread waiting for 10 ms and more, for a grace period of the kernel or a long table, or that look again and
 * again, by the name of the thread that an agent has for them.
 */
export const blockingVerbs = {
  removeLinks: 'removals',
  removePodLink: 'removals',
  moveNicIn: 'removals',
  bringNicHome: 'removals',
  detachVethHost: 'removals',
  awaitPodAddresses: 'waits',
  awaitLinkChange: 'links',
  forgetFlows: 'flows',
} as const satisfies { readonly [V in keyof Verbs]?: string }
export type BlockingVerb = keyof typeof blockingVerbs

export type AttachRoutedPod = {
  pod: Omit<RoutedPod, 'uplinkIndex'>
  uplink: { index: number; name: string; mac: Uint8Array } | undefined
  firewall: FirewallPod
}
