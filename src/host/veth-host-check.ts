// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatMac, type Ip, ipEquals } from '#base'
import { NETLINK_NETFILTER, NetlinkSocket, type Transport } from '#netlink'
import {
  AF_INET,
  AF_INET6,
  decodeNeighbour,
  decodeRoute,
  describeRoute,
  describeRule,
  dumpRoutes,
  getNeighbour,
  type Link,
  NUD_PERMANENT,
  type Route,
  RT_TABLE_MAIN,
  type Rule,
} from '#rtnetlink'
import { chainFaults } from './chain-faults.ts'
import type { HostContext } from './context.ts'
import { linkFaults, type Place, pairFaults, settingFaults } from './link-faults.ts'
import { tryFindLink } from './links.ts'
import { advertisedFaults } from './nexthop.ts'
import { routeFault } from './route-faults.ts'
import { ipv6Faults } from './routed.ts'
import { isStrict, listRules } from './veth-host.ts'
import { podChains } from './veth-host-ruleset.ts'
import {
  familiesOf,
  isSameRule,
  nodeRoutes,
  nodeRules,
  nodeTable,
  podRoutes,
  podRules,
  podTableRoutes,
  underlayMark,
  underlayTable,
  type VethHostPod,
} from './veth-host-state.ts'

export type Expected = Omit<VethHostPod, 'gateways' | 'mtuBytes'> & {
  /** Of the ends on the node and in the pod; undefined: nothing tells it. */
  readonly mtuBytes: number | undefined
  readonly podMtuBytes: number | undefined
}

/** Compares a pod with what its ADD made, on both sides. @returns the differences in words, none: all is well */
export const checkVethHost = (context: HostContext, pod: Expected, uplink: string): string[] => [
  ...nodeFaults(context.route, pod, uplink),
  ...context.inNetns(pod.netnsFd, route => podFaults(route, pod, tryFindLink(context.route, { ifname: pod.hostLink }))),
]

/** With or without: whether it was needed depends on what addresses there were then. */
const anySource = () => undefined

function nodeFaults(route: Transport, pod: Expected, uplink: string): string[] {
  const link = tryFindLink(route, { ifname: pod.hostLink })
  const { hostLink, hostMac: mac, mtuBytes, owner } = pod
  const faults = linkFaults(link, hostLink, 'on the node', { kind: 'veth', mac, mtuBytes, owner })
  if (link !== undefined) {
    for (const { ip } of pod.addresses) faults.push(...neighbourFaults(route, link, ip, pod.podMac, 'on the node'))
    faults.push(
      ...routeFaults(route, [...nodeRoutes(pod, anySource), ...nodeTable(pod)], link, {
        ...{ sources: pod.nodeAddresses, where: 'on the node' },
      }),
    )
  }
  faults.push(...ruleFaults(route, nodeRules(pod), 'on the node'))
  if (familiesOf(pod).includes(AF_INET)) {
    faults.push(...strictFaults(uplink, 'on the node'))
    if (link !== undefined)
      faults.push(
        ...strictFaults(hostLink, 'on the node'),
        ...settingFaults('on the node', '1', 'ipv4', 'conf', hostLink, 'src_valid_mark'),
      )
    faults.push(...settingFaults('on the node', '1', 'ipv4', 'ip_forward'))
  }
  if (familiesOf(pod).includes(AF_INET6))
    faults.push(
      ...settingFaults('on the node', '1', 'ipv6', 'conf', 'all', 'forwarding'),
      ...advertisedFaults(uplink, 'on the node'),
    )
  return faults
}

function podFaults(route: Transport, pod: Expected, host: Link | undefined): string[] {
  const { ifName, podMac: mac, podMtuBytes: mtuBytes } = pod
  const link = tryFindLink(route, { ifname: ifName })
  const faults = linkFaults(link, ifName, 'in the pod', { kind: 'veth', mac, mtuBytes })
  if (link !== undefined) {
    faults.push(...pairFaults(host, link))
    for (const address of pod.nodeAddresses)
      faults.push(...neighbourFaults(route, link, address, pod.hostMac, 'in the pod'))
    const routes = [...podRoutes(pod, anySource), ...podTableRoutes(pod)]
    const sources = pod.addresses.map(({ ip }) => ip)
    faults.push(...routeFaults(route, routes, link, { sources, where: 'in the pod' }))
    if (familiesOf(pod).includes(AF_INET6)) faults.push(...ipv6Faults(ifName))
    if (familiesOf(pod).includes(AF_INET))
      faults.push(
        ...strictFaults(ifName, 'in the pod'),
        ...settingFaults('in the pod', '1', 'ipv4', 'conf', ifName, 'src_valid_mark'),
      )
  }
  faults.push(...ruleFaults(route, podRules(pod), 'in the pod'))
  if (pod.isDefault) faults.push(...underlayFaults(route, pod))
  if (familiesOf(pod).includes(AF_INET)) faults.push(...settingFaults('in the pod', '1', 'ipv4', 'ip_forward'))
  if (familiesOf(pod).includes(AF_INET6))
    faults.push(
      ...settingFaults('in the pod', '1', 'ipv6', 'conf', 'all', 'forwarding'),
      ...(pod.isDefault ? [] : advertisedFaults(pod.underlay, 'in the pod')),
    )
  return [...faults, ...tableFaults(pod)]
}

function neighbourFaults(
  route: Transport,
  { index, ifname }: Link,
  address: Uint8Array,
  mac: Uint8Array,
  where: Place,
) {
  const message = route.execute([getNeighbour({ index, address })])[0]!.messages[0]
  const entry = message === undefined ? undefined : decodeNeighbour(message)
  const isRight = entry?.state === NUD_PERMANENT && entry.mac !== undefined && ipEquals(entry.mac, mac)
  return isRight ? [] : [`neighbour ${formatIp(address)} lladdr ${formatMac(mac)} dev ${ifname} is missing ${where}`]
}

function routeFaults(
  route: Transport,
  wanted: readonly Route[],
  { index, ifname }: Link,
  { sources, where }: { sources: readonly Ip[]; where: Place },
): string[] {
  const tables = new Map<string, Route[]>()
  const tableOf = ({ family, table = RT_TABLE_MAIN }: Route): Route[] => {
    const key = `${family} ${table}`
    const known =
      tables.get(key) ??
      route.execute([dumpRoutes(family, { table })])[0]!.messages.map(message => decodeRoute(message))
    tables.set(key, known)
    return known
  }
  return wanted
    .map(want => {
      const table = want.table === undefined ? '' : ` table ${want.table}`
      const named = `${describeRoute(want)} dev ${ifname}${table}`
      return routeFault(tableOf(want), want, { index, sources, isOurs: true }, { named, where })
    })
    .filter(fault => fault !== undefined)
}

const ruleFaults = (route: Transport, wanted: readonly Rule[], where: Place): string[] =>
  [AF_INET, AF_INET6]
    .flatMap(family => {
      const asked = wanted.filter(want => want.family === family)
      const present = asked.length === 0 ? [] : listRules(route, family, linksOf(asked))
      return asked.filter(want => !present.some(entry => isSameRule(entry, want)))
    })
    .map(want => `${describeRule(want)} is missing ${where}`)

/** The links that rules name; undefined where not all do. */
function linksOf(rules: readonly Rule[]): string[] | undefined {
  const links = rules.flatMap(({ inInterface }) => inInterface ?? [])
  return links.length === rules.length ? links : undefined
}

/** What leads by the pod's own NIC, where the default route does not. */
function underlayFaults(route: Transport, pod: Expected): string[] {
  const table = underlayTable(pod.table)
  const isMissing = familiesOf(pod).some(
    family => route.execute([dumpRoutes(family, { table })])[0]!.messages.length === 0,
  )
  return isMissing ? [`the routes of table ${table}, by ${pod.underlay}, are missing in the pod`] : []
}

const strictFaults = (link: string, where: Place): string[] =>
  isStrict(link) ? [`rp_filter of ${link} is strict ${where}: packets to the pod are dropped`] : []

/** The table of nf_tables in the pod. */
function tableFaults({ ifName, mark, isDefault }: Expected): string[] {
  using netfilter = new NetlinkSocket(NETLINK_NETFILTER)
  const chains = podChains({ ifName, mark, ...(isDefault ? { underlayMark: underlayMark(mark) } : {}) })
  return chainFaults(netfilter, chains).map(fault => `${fault} in the pod`)
}
