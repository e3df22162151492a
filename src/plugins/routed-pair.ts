// SPDX-License-Identifier: Apache-2.0

import { formatPrefix, hostPrefix, type Prefix, parsePrefix, tryParseMac } from '#base'
import type { Result } from '#cni'
import type { FirewallPod, NextHop, PodRoute, RoutedPod, Uplink } from '#host'
import type { At, Attach, Check } from './interface.ts'
import { isNameTaken, linkNames, underFreeName } from './pair.ts'
import { awaitCarrier } from './settle.ts'
import { everyStep } from './steps.ts'
import { findUpstreamPair, toldHostLink } from './upstream.ts'
import type { World } from './world.ts'

// What plugins have in common that join a pod to its node by a veth pair and host routes: veth-route and ptp. They differ in
// the addresses by which the pod reaches the node, and in what the firewall does.

/** What an attachment has on the node: all that DEL must know, when nothing else is left to ask. */
export type RoutedTraces = {
  hostLink: string
  owner: string
  /** With their prefix lengths. */
  addresses: string[]
  /** Where the node answers for the addresses; left out: nowhere. */
  uplinkIndex?: number
  /** Networks towards which the addresses stay what they are; left out: they always do. */
  masquerade?: string[]
  metadata?: boolean
  /** See `FirewallPod`. */
  unchecked?: boolean
  /** Upstream's plugin of the same name made it; the MAC of its link is what that is known by beside its name. */
  foreign?: { mac: string }
}

const prefixesOf = (texts: readonly string[]): Prefix[] => texts.map(parsePrefix)
export const textsOf = (prefixes: readonly Prefix[]): string[] => prefixes.map(formatPrefix)

/** What the firewall knows of the pod. */
const firewallPod = (traces: Omit<RoutedTraces, 'owner' | 'uplinkIndex'>): FirewallPod => ({
  link: traces.hostLink,
  addresses: prefixesOf(traces.addresses).map(({ ip }) => ip),
  masquerade: traces.masquerade === undefined ? undefined : prefixesOf(traces.masquerade),
  metadata: traces.metadata,
  unchecked: traces.unchecked,
})

/** A pod without what names and places its pair. */
export type UnjoinedPod = Omit<
  RoutedPod,
  'hostLink' | 'owner' | 'uplinkIndex' | 'ifName' | 'netnsFd' | 'hostMac' | 'podMac'
>

type Join = {
  pod: UnjoinedPod
  uplink?: Uplink | undefined
  firewall: Pick<RoutedTraces, 'masquerade' | 'metadata' | 'unchecked'>
}

/** Joins the pod to the node. @returns the name of the node's link */
export async function joinPod<Config>(
  { call, world, key, note, undo }: Attach<Config, RoutedTraces>,
  { pod, uplink, firewall }: Join,
): Promise<string> {
  const { owner, hostMac, podMac } = linkNames(key)
  const at = { call, world, key }
  const made = await underFreeName(at, async hostLink => {
    const traces: RoutedTraces = {
      ...{ hostLink, owner, addresses: textsOf(pod.addresses) },
      ...(uplink === undefined ? {} : { uplinkIndex: uplink.index }),
      ...firewall,
    }
    note(traces)
    try {
      const rebuilt = await world.host.attachRoutedPod({
        pod: { ...pod, hostLink, owner, hostMac, podMac, ifName: call.ifName, netnsFd: call.netnsFd! },
        uplink,
        firewall: firewallPod(traces),
      })
      undo(() => leavePod(traces, at))
      if (rebuilt) await world.restoreFirewall()
      return hostLink
    } catch (error) {
      // The verb cleans up behind itself; where it could not, this does, or the record stays. What else may exist
      // already (a route, an address) has nothing to do with the names.
      if (!isNameTaken(error, hostLink)) undo(() => leavePod(traces, at))
      throw error
    }
  })
  await awaitCarrier(made, at)
  return made
}

/** Takes away what `joinPod` made. */
export async function leavePod(traces: RoutedTraces, { world, key }: At): Promise<void> {
  const { hostLink: name, owner, uplinkIndex, foreign } = traces
  const mac = foreign === undefined ? linkNames(key).hostMac : (tryParseMac(foreign.mac) ?? new Uint8Array(6))
  await everyStep(
    () =>
      world.host.detachRoutedPod({
        traces: { hostLink: name, addresses: prefixesOf(traces.addresses), uplinkIndex },
        firewall: firewallPod(traces),
      }),
    async () => {
      if (foreign !== undefined) await world.host.removeForeignMasquerade(key)
    },
    // The host route goes with the link.
    async () => {
      if (name !== '') await world.host.removeLinks({ links: [{ name, owner, mac }] })
    },
  )
}

/** What upstream's plugin of the same name made for the attachment. */
export async function findForeignPods(at: At): Promise<RoutedTraces[]> {
  const pair = await findUpstreamPair(at)
  if (pair === undefined) return []
  const { hostLink, mac } = pair
  return [{ hostLink, owner: '', addresses: [], unchecked: true, foreign: { mac } }]
}

/** What an attachment without a record left on the node, by the names that follow from its key. */
export async function findPods({ world, key }: At): Promise<RoutedTraces[]> {
  const { hostLinks, owner, hostMac: mac } = linkNames(key)
  const found = await Promise.all(hostLinks.map(name => world.host.findRouted({ name, owner, mac })))
  const firewall = new Map(
    (await world.host.findFirewallPods({ links: hostLinks })).map((pod): [string, FirewallPod] => [pod.link, pod]),
  )
  const pods = hostLinks.map(async (hostLink, position) => {
    const [routed, elements] = [found[position], firewall.get(hostLink)]
    if (routed === undefined) {
      // The kernel removed the link with the pod's namespace; a link that is there is another's, with elements of its own.
      if (elements === undefined || (await world.host.describeLink({ name: hostLink })) !== undefined) return undefined
    }
    const { masquerade, metadata = false, unchecked } = elements ?? {}
    const addresses = routed?.addresses ?? elements?.addresses.map(hostPrefix) ?? []
    // Host routes went with the link, proxy entries did not.
    const uplinkIndex = routed === undefined ? await world.host.findProxyIndex({ addresses }) : routed.uplinkIndex
    return {
      ...{ hostLink, owner, addresses: textsOf(addresses), metadata },
      ...(uplinkIndex === undefined ? {} : { uplinkIndex }),
      ...(masquerade === undefined ? {} : { masquerade: textsOf(masquerade) }),
      ...(unchecked === undefined ? {} : { unchecked }),
    }
  })
  return (await Promise.all(pods)).filter(pod => pod !== undefined)
}

/** True if the pair that an earlier ADD made is there. */
export const isJoined = async ({ hostLink, owner }: RoutedTraces, { world }: At): Promise<boolean> =>
  (await world.host.describeLink({ name: hostLink }))?.owner === owner

type Expectation = {
  broadcast?: boolean
  onlink?: boolean
  nextHops: NextHop[]
  routes: PodRoute[]
  uplinkIndex?: number | undefined
  firewall: Pick<RoutedTraces, 'masquerade' | 'metadata' | 'unchecked'>
  /** Upstream has a plugin of the same name, whose pods have neither our names nor our elements. */
  mayBeForeign?: boolean
}

/** Compares a pod with what `joinPod` made. */
export async function findPodFaults<Config>(
  { call, world, key, prevResult, pod, podIndex, addresses, traces }: Check<Config, RoutedTraces>,
  { broadcast = false, onlink = false, nextHops, routes, uplinkIndex, firewall, mayBeForeign = false }: Expectation,
): Promise<string[]> {
  const { hostLinks, owner } = linkNames(key)
  const { interfaces = [] } = prevResult
  const own = interfaces.find(({ name, sandbox }) => hostLinks.includes(name) && (sandbox ?? '') === '')?.name
  const foreign = mayBeForeign && traces === undefined && own === undefined
  const other = foreign ? toldHostLink(interfaces, podIndex)?.name : undefined
  const hostLink = traces?.hostLink ?? own ?? other ?? hostLinks[0]!
  const host = interfaces.find(({ name, sandbox }) => name === hostLink && (sandbox ?? '') === '')
  return await world.host.checkRoutedPod({
    pod: {
      ...{ hostLink, ifName: call.ifName, netnsFd: call.netnsFd! },
      host: { ...madeAs(host), owner: foreign ? undefined : owner },
      pod: madeAs(pod),
      ...{ addresses: [...addresses], broadcast, nextHops, routes, onlink, uplinkIndex, foreign },
    },
    firewall: firewallPod({
      ...{ hostLink, addresses: textsOf(addresses) },
      ...(foreign ? { unchecked: true } : firewall),
    }),
  })
}

const madeAs = (link: NonNullable<Result['interfaces']>[number] | undefined) => ({
  mac: tryParseMac(link?.mac ?? ''),
  mtuBytes: link?.mtu,
})

/** Puts back what the firewall knew of the pods. */
export const restorePods = (all: readonly RoutedTraces[], world: World): Promise<void> =>
  world.host.addFirewallPods({ pods: all.map(firewallPod) })
