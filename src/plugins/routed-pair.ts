// SPDX-License-Identifier: Apache-2.0

import { formatMac, formatPrefix, type Prefix, parsePrefix, tryParseMac } from '#base'
import { array, type Dns, object, optional, type Result, string } from '#cni'
import type { FirewallPod, NextHop, PodRoute, RoutedPod, Uplink } from '#host'
import type { At, Attach, Check } from './interface.ts'
import { isNameTaken, linkNames, underFreeName } from './pair.ts'
import { everyStep } from './steps.ts'
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
  /** MAC of a link that is not ours: what it is known by beside its name. */
  foreignMac?: string
}

const prefixesOf = (texts: readonly string[]): Prefix[] => texts.map(parsePrefix)
export const textsOf = (prefixes: readonly Prefix[]): string[] => prefixes.map(formatPrefix)

/** What the firewall knows of the pod. */
export const firewallPod = (traces: Omit<RoutedTraces, 'owner' | 'uplinkIndex'>): FirewallPod => ({
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
export function joinPod<Config>(
  { call, world, key, note, undo }: Attach<Config, RoutedTraces>,
  { pod, uplink, firewall }: Join,
): Promise<string> {
  const { owner, hostMac, podMac } = linkNames(key)
  const at = { call, world, key }
  return underFreeName(at, async hostLink => {
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
}

/** Takes away what `joinPod` made. */
export async function leavePod(traces: RoutedTraces, { world, key }: At): Promise<void> {
  const { hostLink: name, owner, uplinkIndex } = traces
  await everyStep(
    () =>
      world.host.detachRoutedPod({
        traces: { hostLink: name, addresses: prefixesOf(traces.addresses), uplinkIndex },
        firewall: firewallPod(traces),
      }),
    // The host route goes with the link.
    () => world.host.removeLinks({ links: [{ name, owner, mac: macOf(traces) ?? linkNames(key).hostMac }] }),
  )
}

const macOf = ({ foreignMac }: RoutedTraces) => tryParseMac(foreignMac ?? '')

/**
 * What upstream's plugin of the same name made for the attachment, before ours took its place: the result of that ADD tells
 * the name and the MAC of the node's link, and a link of ours has an owner.
 */
export async function findForeignPods({ call, world }: At): Promise<RoutedTraces[]> {
  const { interfaces = [], ips = [] } = call.prevResult ?? {}
  const podIndex = interfaces.findIndex(({ name, sandbox }) => name === call.ifName && (sandbox ?? '') !== '')
  const told = nodeLinkBefore(interfaces, podIndex)
  const mac = tryParseMac(told?.mac ?? '')
  if (told === undefined || mac === undefined) return []
  const found = await world.host.describeLink({ name: told.name })
  if (found === undefined || found.owner !== undefined || formatMac(found.mac) !== formatMac(mac)) return []
  const addresses = ips.filter(ip => ip.interface === podIndex).map(({ address }) => address)
  return [{ hostLink: told.name, owner: '', addresses, unchecked: true, foreignMac: formatMac(mac) }]
}

/** The node's end stands before the pod's in a result. */
const nodeLinkBefore = (interfaces: NonNullable<Result['interfaces']>, podIndex: number) =>
  interfaces.slice(0, Math.max(0, podIndex)).findLast(({ sandbox }) => (sandbox ?? '') === '')

/** What an attachment without a record left on the node, by the names that follow from its key. */
export async function findPods({ world, key }: At): Promise<RoutedTraces[]> {
  const { hostLinks, owner, hostMac: mac } = linkNames(key)
  const found = await Promise.all(hostLinks.map(name => world.host.findRouted({ name, owner, mac })))
  const routed = found.filter(each => each !== undefined)
  if (routed.length === 0) return []
  const firewall = new Map((await world.host.listFirewallPods()).map((pod): [string, FirewallPod] => [pod.link, pod]))
  return routed.map(({ hostLink, addresses, uplinkIndex }) => {
    const { masquerade, metadata = false, unchecked } = firewall.get(hostLink) ?? {}
    return {
      ...{ hostLink, owner, addresses: textsOf(addresses), metadata },
      ...(uplinkIndex === undefined ? {} : { uplinkIndex }),
      ...(masquerade === undefined ? {} : { masquerade: textsOf(masquerade) }),
      ...(unchecked === undefined ? {} : { unchecked }),
    }
  })
}

/** True if the pair that an earlier ADD made is there. */
export const isJoined = async ({ hostLink, owner }: RoutedTraces, { world }: At): Promise<boolean> =>
  (await world.host.describeLink({ name: hostLink }))?.owner === owner

type Expectation = {
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
  { nextHops, routes, uplinkIndex, firewall, mayBeForeign = false }: Expectation,
): Promise<string[]> {
  const { hostLinks } = linkNames(key)
  const { interfaces = [] } = prevResult
  const own = interfaces.find(({ name, sandbox }) => hostLinks.includes(name) && (sandbox ?? '') === '')?.name
  const foreign = mayBeForeign && traces === undefined && own === undefined
  const other = foreign ? nodeLinkBefore(interfaces, podIndex)?.name : undefined
  const hostLink = traces?.hostLink ?? own ?? other ?? hostLinks[0]!
  return await world.host.checkRoutedPod({
    pod: {
      ...{ hostLink, ifName: call.ifName, netnsFd: call.netnsFd!, podMac: tryParseMac(pod?.mac ?? '') },
      ...{ addresses: [...addresses], nextHops, routes, uplinkIndex, foreign },
    },
    firewall: firewallPod({
      ...{ hostLink, addresses: textsOf(addresses) },
      ...(foreign ? { unchecked: true } : firewall),
    }),
  })
}

/** Puts back what the firewall knew of the pods. */
export const restorePods = (all: readonly RoutedTraces[], world: World): Promise<void> =>
  world.host.addFirewallPods({ pods: all.map(firewallPod) })

/** The key `dns` of interface plugins. */
export const dnsKey = optional(
  object({
    nameservers: optional(array(string)),
    domain: optional(string),
    search: optional(array(string)),
    options: optional(array(string)),
  }),
)

type DnsOfConfig = { [Key in keyof Dns]: Dns[Key] | undefined }

/** The configuration's settings where there are any, else the IPAM's. */
export function dnsOf(own: DnsOfConfig | undefined, leased: Dns | undefined): { dns?: Dns } {
  const entries = Object.entries(own ?? {}).filter(([, value]) => value !== undefined && value !== '')
  if (entries.length > 0) return { dns: Object.fromEntries(entries) }
  return leased === undefined ? {} : { dns: leased }
}
