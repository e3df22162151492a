// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatMac, ipEquals } from '#base'
import { NETLINK_NETFILTER, NetlinkSocket, type Transport } from '#netlink'
import { getChains } from '#nftables'
import {
  AF_INET,
  AF_INET6,
  decodeNeighbour,
  decodeRoute,
  describeRoute,
  describeRule,
  dumpRoutes,
  getNeighbour,
  IFF_UP,
  type Link,
  NUD_PERMANENT,
  type Route,
  RT_TABLE_MAIN,
  type Rule,
} from '#rtnetlink'
import type { HostContext } from './context.ts'
import { tryFindLink } from './links.ts'
import { tryReadSysctl } from './sysctl.ts'
import { isStrict, listRules } from './veth-host.ts'
import { podChains } from './veth-host-ruleset.ts'
import {
  familiesOf,
  isSameRoute,
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

export type Expected = Omit<VethHostPod, 'gateways'>

/** Compares a pod with what its ADD made, on both sides. @returns the differences in words, none: all is well */
export const checkVethHost = (context: HostContext, pod: Expected, uplink: string): string[] => [
  ...nodeFaults(context.route, pod, uplink),
  ...context.inNetns(pod.netnsFd, route => podFaults(route, pod)),
]

/** With or without: whether it was needed depends on what addresses there were then. */
const anySource = () => undefined

function nodeFaults(route: Transport, pod: Expected, uplink: string): string[] {
  const link = tryFindLink(route, { ifname: pod.hostLink })
  const faults = linkFaults(link, pod.hostLink, pod.hostMac, 'on the node')
  if (link !== undefined) {
    if (link.ifalias !== pod.owner) faults.push(`link ${pod.hostLink} on the node is not of this attachment`)
    for (const { ip } of pod.addresses) faults.push(...neighbourFaults(route, link, ip, pod.podMac, 'on the node'))
    faults.push(...routeFaults(route, [...nodeRoutes(pod, anySource), ...nodeTable(pod)], link, 'on the node'))
  }
  faults.push(...ruleFaults(route, nodeRules(pod), 'on the node'))
  if (familiesOf(pod).includes(AF_INET)) {
    if (link !== undefined) faults.push(...settingFaults('on the node', 'ipv4', 'conf', pod.hostLink, 'src_valid_mark'))
    if (isStrict(uplink)) faults.push(`rp_filter of ${uplink} is strict: packets to the pod are dropped`)
    faults.push(...settingFaults('on the node', 'ipv4', 'ip_forward'))
  }
  if (familiesOf(pod).includes(AF_INET6))
    faults.push(...settingFaults('on the node', 'ipv6', 'conf', 'all', 'forwarding'))
  return faults
}

function podFaults(route: Transport, pod: Expected): string[] {
  const link = tryFindLink(route, { ifname: pod.ifName })
  const faults = linkFaults(link, pod.ifName, pod.podMac, 'in the pod')
  if (link !== undefined) {
    for (const address of pod.nodeAddresses)
      faults.push(...neighbourFaults(route, link, address, pod.hostMac, 'in the pod'))
    const routes = [...podRoutes(pod, anySource), ...podTableRoutes(pod)]
    faults.push(...routeFaults(route, routes, link, 'in the pod'))
    if (familiesOf(pod).includes(AF_INET))
      faults.push(...settingFaults('in the pod', 'ipv4', 'conf', pod.ifName, 'src_valid_mark'))
  }
  faults.push(...ruleFaults(route, podRules(pod), 'in the pod'))
  if (pod.isDefault) faults.push(...underlayFaults(route, pod))
  if (familiesOf(pod).includes(AF_INET)) faults.push(...settingFaults('in the pod', 'ipv4', 'ip_forward'))
  if (familiesOf(pod).includes(AF_INET6))
    faults.push(...settingFaults('in the pod', 'ipv6', 'conf', 'all', 'forwarding'))
  return [...faults, ...tableFaults(pod)]
}

function linkFaults(link: Link | undefined, name: string, mac: Uint8Array, where: string): string[] {
  if (link === undefined) return [`link ${name} ${where} is missing`]
  const faults: string[] = []
  if (link.linkinfo?.kind !== 'veth')
    faults.push(`link ${name} ${where} is no veth but ${link.linkinfo?.kind ?? 'a device'}`)
  if ((link.flags & IFF_UP) === 0) faults.push(`link ${name} ${where} is down`)
  const found = formatMac(link.address ?? new Uint8Array(6))
  if (found !== formatMac(mac)) faults.push(`link ${name} ${where} has MAC ${found}, not ${formatMac(mac)}`)
  return faults
}

function neighbourFaults(
  route: Transport,
  { index, ifname }: Link,
  address: Uint8Array,
  mac: Uint8Array,
  where: string,
) {
  const message = route.execute([getNeighbour({ index, address })])[0]!.messages[0]
  const entry = message === undefined ? undefined : decodeNeighbour(message)
  const isRight = entry?.state === NUD_PERMANENT && entry.mac !== undefined && ipEquals(entry.mac, mac)
  return isRight ? [] : [`neighbour ${formatIp(address)} lladdr ${formatMac(mac)} dev ${ifname} is missing ${where}`]
}

function routeFaults(route: Transport, wanted: readonly Route[], link: Link, where: string): string[] {
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
    .filter(want => !tableOf(want).some(entry => isSameRoute(entry, { ...want, outInterface: link.index })))
    .map(want => {
      const table = want.table === undefined ? '' : ` table ${want.table}`
      return `route ${describeRoute(want)} dev ${link.ifname}${table} is missing ${where}`
    })
}

const ruleFaults = (route: Transport, wanted: readonly Rule[], where: string): string[] =>
  wanted
    .filter(want => !listRules(route, want.family).some(entry => isSameRule(entry, want)))
    .map(want => `${describeRule(want)} is missing ${where}`)

/** What leads by the pod's own NIC, where the default route does not. */
function underlayFaults(route: Transport, pod: Expected): string[] {
  const table = underlayTable(pod.table)
  const isMissing = familiesOf(pod).some(
    family => route.execute([dumpRoutes(family, { table })])[0]!.messages.length === 0,
  )
  return isMissing ? [`the routes of table ${table}, by ${pod.underlay}, are missing in the pod`] : []
}

const settingFaults = (where: string, ...key: string[]): string[] =>
  tryReadSysctl(...key) === '1' ? [] : [`net.${key.join('.')} is off ${where}`]

/** The table of nf_tables in the pod. */
function tableFaults({ ifName, mark, isDefault }: Expected): string[] {
  using netfilter = new NetlinkSocket(NETLINK_NETFILTER)
  const chains = podChains({ ifName, mark, ...(isDefault ? { underlayMark: underlayMark(mark) } : {}) })
  const states = getChains(
    netfilter,
    chains.map(({ chain }) => chain),
  )
  return chains
    .filter(({ rules }, index) => states[index]?.use !== rules.length)
    .map(({ chain }) => `the rules of chain inet ${chain.table.name} ${chain.name} are not there in the pod`)
}
