// SPDX-License-Identifier: Apache-2.0

import { type Deadline, deadlineIn, formatMac, ipEquals, isV4, type Prefix, prefixContains } from '#base'
import { EEXIST, ENOENT } from '#libc'
import { mentions, NETLINK_NETFILTER, NetlinkError, NetlinkSocket, type Request, type Transport } from '#netlink'
import { commit, deleteTable, NftablesError } from '#nftables'
import {
  AF_INET,
  AF_INET6,
  addNeighbour,
  addRoute,
  addRule,
  decodeAddress,
  decodeRoute,
  decodeRule,
  deleteLink,
  deleteRoute,
  deleteRule,
  dumpAddresses,
  dumpRoutes,
  dumpRules,
  familyOf,
  IFA_F_SECONDARY,
  protocols,
  type Route,
  RT_TABLE_MAIN,
  RTN_UNICAST,
  type Rule,
  type RulePattern,
  scopes,
  setLink,
  tableOfRule,
} from '#rtnetlink'
import type { HostContext } from './context.ts'
import { isOwned, type OwnedLink, tryFindLink } from './links.ts'
import { ensureForwarding } from './nexthop.ts'
import { createPair } from './pair.ts'
import { enableIpv6, hostRoutesBy } from './routed.ts'
import { ensureSysctl, tryReadSysctl } from './sysctl.ts'
import { makePodTable, podTable } from './veth-host-ruleset.ts'
import {
  type ChooseSource,
  familiesOf,
  nextHopOf,
  nodeRoutes,
  nodeRulePatterns,
  nodeRules,
  nodeTable,
  podRoutes,
  podRules,
  podTableRoutes,
  underlayMark,
  underlayTable,
  type VethHostPod,
} from './veth-host-state.ts'

/** What has to be known before a pod gets a veth to its node. */
export type VethHostSurvey = {
  /** Of the pod's own NIC; undefined: the pod has no such NIC. */
  mtuBytes: number | undefined
  /** Where the pod has routes to, but for the default ones. */
  destinations: Prefix[]
  /** Routing tables on the node that somebody has. */
  tables: number[]
}

export function surveyVethHost(
  context: HostContext,
  { netnsFd, underlay }: Pick<VethHostPod, 'netnsFd' | 'underlay'>,
): VethHostSurvey {
  const inPod = context.inNetns(netnsFd, route => ({
    mtuBytes: tryFindLink(route, { ifname: underlay })?.mtu,
    destinations: [AF_INET, AF_INET6]
      .flatMap(family => route.execute([dumpRoutes(family, { table: RT_TABLE_MAIN })])[0]!.messages.map(decodeRoute))
      .flatMap(({ destination }) => destination ?? []),
  }))
  const tables = [AF_INET, AF_INET6].flatMap(family =>
    context.route.execute([dumpRules(family)])[0]!.messages.map(tableOfRule),
  )
  return { ...inPod, tables: [...new Set(tables)] }
}

/** NetlinkError.request where a routing table has an owner already: choose another. */
export const claimsTable = (table: number): string => `take routing table ${table}`

/**
 * Makes the pair, and on both sides routes, rules and settings; returns when packets pass both ways.
 *
 * Leaves nothing when it fails. @throws {NetlinkError} EEXIST where one of the names, or the table, is taken.
 */
export function attachVethHost(
  context: HostContext,
  pod: VethHostPod,
  uplink: string,
  deadline: Deadline = deadlineIn(10_000),
): void {
  const families = familiesOf(pod)
  for (const family of families)
    if (context.route.execute([dumpRoutes(family, { table: pod.table })])[0]!.messages.length > 0)
      throw new NetlinkError(claimsTable(pod.table), EEXIST)
  using undo = new DisposableStack()
  const pair = createPair(context, pod)
  undo.defer(() => context.route.execute([deleteLink({ index: pair.index })]))
  undo.defer(() => detachVethHost(context, pod))
  prepareNode(pod, uplink)
  context.route.execute(nodeSide(pod, pair.index, nodeSource(context.route, pod)), deadline)
  context.inNetns(pod.netnsFd, route => joinPod(route, pod, pair.peer, deadline))
  undo.move()
}

function prepareNode(pod: VethHostPod, uplink: string): void {
  const [v4, v6] = [AF_INET, AF_INET6].map(family => familiesOf(pod).includes(family)) as [boolean, boolean]
  ensureForwarding({ v4, v6 }, { answering: undefined, advertised: uplink })
  if (v4) {
    // The kernel asks by which link it would answer (rp_filter), as if the answer came in by the link that the packet leaves
    // by: for packets to the pod that is rule 1024, and the answer "back into the pod". So the host interface is content
    // with any link; and the pod's own, which has no address and for which "any" is as strict, shows our mark as well.
    if (isStrict(uplink)) ensureSysctl('2', 'ipv4', 'conf', uplink, 'rp_filter')
    ensureSysctl('0', 'ipv4', 'conf', pod.hostLink, 'rp_filter')
    ensureSysctl('1', 'ipv4', 'conf', pod.hostLink, 'src_valid_mark')
  }
  if (v6 && !ensureSysctl('0', 'ipv6', 'conf', pod.hostLink, 'disable_ipv6'))
    throw new Error('Cannot join a pod with an IPv6 address: this kernel has IPv6 switched off')
}

/** True where packets have to come by the link that answers would take. The greater setting of two counts. */
export function isStrict(link: string): boolean {
  const settings = [link, 'all'].map(name => Number(tryReadSysctl('ipv4', 'conf', name, 'rp_filter') ?? 0))
  return Math.max(...settings) === 1
}

/**
 * The pod's next hop, where the kernel would not choose it on a link without address: it takes the first address of the
 * first link that has one. Not said without need, for the kernel removes an IPv4 route whose source the machine loses,
 * even for a moment.
 */
function nodeSource(route: Transport, pod: VethHostPod): ChooseSource {
  const [first] = route
    .execute([dumpAddresses(0, AF_INET)])[0]!
    .messages.map(decodeAddress)
    .filter(({ scope, flags }) => scope < scopes.link && (flags & IFA_F_SECONDARY) === 0)
    .sort((a, b) => a.index - b.index)
  return family => {
    const own = nextHopOf(pod, family)
    return family === AF_INET && first !== undefined && ipEquals(first.prefix.ip, own) ? undefined : own
  }
}

function nodeSide(pod: VethHostPod, index: number, source: ChooseSource): Request[] {
  return [
    setLink({ index }, { up: true, ifalias: pod.owner }, `set link ${pod.hostLink} up`),
    // Nobody has to ask, whatever arp_ignore says; and for IPv6 the pod would not answer on this link.
    ...pod.addresses.map(({ ip }) => addNeighbour({ index, address: ip, mac: pod.podMac })),
    ...nodeRoutes(pod, source).map(route => addRoute({ ...route, outInterface: index })),
    ...nodeTable(pod).map(route => ({ ...addRoute({ ...route, outInterface: index }), about: claimsTable(pod.table) })),
    ...nodeRules(pod).map(addRule),
  ]
}

/** Everything in the pod, with the thread in its namespace. */
function joinPod(route: Transport, pod: VethHostPod, index: number, deadline: Deadline): void {
  const underlay = tryFindLink(route, { ifname: pod.underlay })
  if (underlay === undefined) throw new Error(`Cannot find link ${pod.underlay} in the pod: it is gone`)
  preparePod(pod)
  const before = pod.isDefault ? familiesOf(pod).flatMap(family => routesOf(route, family, underlay.index)) : []
  const source = podSource(route, pod)
  // By themselves: the kernel does what follows a refusal, and the pod must not lose what could not be copied.
  const copies = pod.isDefault ? copyRoutes(pod, before, underlay.index) : []
  executeAll(
    route,
    copies.map(each => addRoute(each)),
    deadline,
  )
  route.execute(
    [
      setLink({ index }, { up: true }, `set link ${pod.ifName} up in the pod`),
      ...pod.nodeAddresses.map(address => addNeighbour({ index, address, mac: pod.hostMac })),
      ...before.filter(each => each.destination === undefined).map(deleteRoute),
      ...podRoutes(pod, source).map(each => addRoute({ ...each, outInterface: index }, 'append')),
      ...podTableRoutes(pod).map(each => addRoute({ ...each, outInterface: index })),
      ...podRules(pod).map(addRule),
    ],
    deadline,
  )
  using netfilter = new NetlinkSocket(NETLINK_NETFILTER)
  const { ifName, mark, isDefault } = pod
  commit(netfilter, makePodTable({ ifName, mark, ...(isDefault ? { underlayMark: underlayMark(mark) } : {}) }))
}

/** The kernel takes no empty datagram. */
function executeAll(route: Transport, requests: readonly Request[], deadline?: Deadline): void {
  if (requests.length > 0) route.execute(requests, deadline)
}

function preparePod({ ifName, underlay, isDefault, ...pod }: VethHostPod): void {
  const families = familiesOf(pod)
  if (families.includes(AF_INET)) {
    ensureSysctl('1', 'ipv4', 'ip_forward')
    // A client of a NodePort keeps its address, which the pod reaches by its own NIC. Where `all` asks for the check, the
    // mark satisfies it, see podChains.
    ensureSysctl('0', 'ipv4', 'conf', ifName, 'rp_filter')
    ensureSysctl('1', 'ipv4', 'conf', ifName, 'src_valid_mark')
    // The other way round: what comes by the NIC, from where the default route does not lead.
    if (isDefault) ensureSysctl('2', 'ipv4', 'conf', underlay, 'rp_filter')
  }
  if (families.includes(AF_INET6)) {
    enableIpv6(ifName)
    if (!isDefault && tryReadSysctl('ipv6', 'conf', underlay, 'accept_ra') === '1')
      ensureSysctl('2', 'ipv6', 'conf', underlay, 'accept_ra')
    ensureSysctl('1', 'ipv6', 'conf', 'all', 'forwarding')
  }
}

/** Routes of the main table by a link, but for those that every link has. */
const routesOf = (route: Transport, family: number, index: number): Route[] =>
  route
    .execute([dumpRoutes(family, { table: RT_TABLE_MAIN })])[0]!
    .messages.map(decodeRoute)
    .filter(entry => entry.outInterface === index && entry.type === RTN_UNICAST && !isLinkLocal(entry.destination))
const isLinkLocal = (destination: Prefix | undefined) => destination?.ip[0] === 0xfe && destination.ip.length === 16

/** The pod's routes by its own NIC, in a table of their own; with its gateway, where no route names one. */
function copyRoutes(pod: VethHostPod, before: readonly Route[], index: number): Route[] {
  const table = underlayTable(pod.table)
  const copies = before.map(({ preferredSource: _, ...each }) => ({ ...each, table, protocol: protocols.boot }))
  // A route on the link comes before those that need it.
  copies.sort((a, b) => Number(a.gateway !== undefined) - Number(b.gateway !== undefined))
  const missing = pod.gateways.filter(gateway => {
    const family = familyOf(gateway)
    const isReachable = pod.addresses.some(address => prefixContains(address, gateway))
    return isReachable && !copies.some(each => each.family === family && each.destination === undefined)
  })
  const firsts = missing.filter((gateway, at) => missing.findIndex(each => isV4(each) === isV4(gateway)) === at)
  return [
    ...copies,
    ...firsts.map(gateway => ({
      ...{ family: familyOf(gateway), gateway, outInterface: index, table, protocol: protocols.boot },
    })),
  ]
}

/** The pod speaks from the address that the node knows: said only where it has others to choose from. */
function podSource(route: Transport, { addresses }: VethHostPod): ChooseSource {
  const present = route
    .execute([dumpAddresses()])[0]!
    .messages.map(decodeAddress)
    .filter(({ scope }) => scope === scopes.universe)
  return family => {
    const own = addresses.find(({ ip }) => familyOf(ip) === family)!.ip
    return present.some(({ prefix: { ip } }) => familyOf(ip) === family && !ipEquals(ip, own)) ? own : undefined
  }
}

/** What DEL must know. `ifName`, `underlay` and `netnsFd` for the pod's side, where it is still there. */
export type VethHostTraces = Pick<
  VethHostPod,
  'hostLink' | 'ifName' | 'underlay' | 'podMac' | 'table' | 'mark' | 'addresses'
>

/**
 * Takes away what does not go with the link: rules on the node; and in the pod, where there still is one, rules, the table
 * of nf_tables, and what stands in for the pod's routes. The link may go later. Absence is success.
 */
export function detachVethHost(context: HostContext, traces: VethHostTraces & { netnsFd?: number | undefined }): void {
  const { netnsFd } = traces
  try {
    removeRules(context.route, nodeRulePatterns(traces))
  } finally {
    if (netnsFd !== undefined) context.inNetns(netnsFd, route => leavePod(route, traces))
  }
}

/** Removes every rule that fits: the kernel takes one at a time. */
function removeRules(route: Transport, patterns: readonly RulePattern[]): void {
  for (let left = patterns; left.length > 0; ) {
    const replies = route.execute(left.map(deleteRule))
    left = left.filter((_, index) => replies[index]!.tolerated === undefined)
  }
}

function leavePod(route: Transport, traces: VethHostTraces): void {
  const { ifName, underlay, table, podMac } = traces
  const [link, nic] = [tryFindLink(route, { ifname: ifName }), tryFindLink(route, { ifname: underlay })]
  // The namespace is another container's by now, which has a veth of its own.
  if (link !== undefined && formatMac(link.address ?? podMac) !== formatMac(podMac)) return
  const rules = [AF_INET, AF_INET6]
    .flatMap(family => listRules(route, family))
    .filter(rule => rule.protocol === protocols.mooring && [table, underlayTable(table)].includes(rule.table))
  const copies = familiesOf(traces).flatMap(family =>
    route.execute([dumpRoutes(family, { table: underlayTable(table) })])[0]!.messages.map(decodeRoute),
  )
  const defaults = copies.filter(each => each.destination === undefined && each.outInterface === nic?.index)
  executeAll(route, [
    ...rules.map(deleteRule),
    // Those to the veth first: there is one default route of a metric.
    ...(link === undefined
      ? []
      : familiesOf(traces).map(family => deleteRoute({ family, outInterface: link.index, protocol: protocols.boot }))),
    ...defaults.map(({ table: _, ...each }) => ({ ...addRoute(each), tolerate: [EEXIST] })),
    ...copies.map(deleteRoute),
  ])
  using netfilter = new NetlinkSocket(NETLINK_NETFILTER)
  try {
    commit(netfilter, [deleteTable(podTable(ifName))])
  } catch (error) {
    if (!(error instanceof NftablesError && error.errno === ENOENT)) throw error
  }
}

/**
 * What an attachment left on the node, found without any record, under each of its names: by its link, if that is still
 * the owner's, or by rules that name a link which is gone. Runtimes send DEL again and again: the rules, of which each pod
 * has some, are read once.
 */
export function findVethHosts(
  { route }: HostContext,
  links: readonly OwnedLink[],
): Pick<VethHostTraces, 'hostLink' | 'table' | 'mark' | 'addresses'>[] {
  const names = links.map(({ name }) => name)
  const ours = [AF_INET, AF_INET6]
    .flatMap(family => listRules(route, family, names))
    .filter(rule => rule.protocol === protocols.mooring)
  return links.flatMap(owned => {
    const link = tryFindLink(route, { ifname: owned.name })
    if (link !== undefined && !isOwned(link, owned)) return []
    const rules = ours.filter(rule => rule.inInterface === owned.name)
    if (link === undefined && rules.length === 0) return []
    return {
      hostLink: owned.name,
      addresses: link === undefined ? [] : hostRoutesBy(route, link.index),
      table: rules.find(rule => rule.table !== RT_TABLE_MAIN)?.table ?? 0,
      mark: rules.find(rule => rule.mark !== undefined)?.mark ?? 0,
    }
  })
}

/** Removes every rule of ours that names the link, whatever else it says. */
export function removeVethHostRulesOf({ route }: HostContext, hostLink: string): void {
  const rules = [AF_INET, AF_INET6]
    .flatMap(family => listRules(route, family, [hostLink]))
    .filter(rule => rule.protocol === protocols.mooring && rule.inInterface === hostLink)
  executeAll(route, rules.map(deleteRule))
}

/**
 * The rules of a family.
 * @param links given: those that name one of them, others may be among them; that is decoded in a tenth of the time
 */
export const listRules = (route: Transport, family: number, links?: readonly string[]): Rule[] =>
  route
    .execute([dumpRules(family)])[0]!
    .messages.filter(({ body }) => links === undefined || mentions(body, links))
    .map(decodeRule)
