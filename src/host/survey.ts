// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatMac, formatPrefix, type Ip, ipEquals, isV4 } from '#base'
import type { Transport } from '#netlink'
import { formatElement, listElements, readSets } from '#nftables'
import {
  AF_INET,
  AF_INET6,
  decodeAddress,
  decodeLink,
  decodeNeighbour,
  decodeRoute,
  decodeRule,
  dumpAddresses,
  dumpLinks,
  dumpProxies,
  dumpRoutes,
  dumpRules,
  IFF_LOWER_UP,
  IFF_UP,
  type Route,
  RT_TABLE_MAIN,
  type Rule,
  scopes,
} from '#rtnetlink'
import type { HostContext } from './context.ts'
import { table } from './part.ts'

/** What is in a namespace, for a person to read: nothing here is acted upon. */
export type Survey = {
  readonly links: SurveyLink[]
  readonly routes: SurveyRoute[]
  readonly rules: SurveyRule[]
  /** Addresses for which links answer. */
  readonly proxies: { readonly address: string; readonly link: string }[]
}

export type SurveyLink = {
  readonly name: string
  readonly index: number
  /** Null for a device of a bus. */
  readonly kind: string | null
  readonly mac: string
  readonly mtuBytes: number
  readonly isUp: boolean
  readonly hasCarrier: boolean
  readonly alias: string | null
  /** Number of the peer of a veth, or of the parent, in whichever namespace that is. */
  readonly peerIndex: number | null
  readonly master: string | null
  readonly addresses: string[]
}

export type SurveyRoute = {
  /** As `ip route` writes it. */
  readonly text: string
  readonly table: number
  readonly links: string[]
  readonly destination: string
}

export type SurveyRule = {
  /** As `ip rule` writes it. */
  readonly text: string
  readonly links: string[]
  readonly prefixes: string[]
}

const RT_TABLE_LOCAL = 255
const RTN_MULTICAST = 5

/** Reads a namespace; without a descriptor the node's. */
export function surveyNetns(context: HostContext, { netnsFd }: { netnsFd?: number | undefined }): Survey {
  return netnsFd === undefined ? survey(context.route) : context.inNetns(netnsFd, survey)
}

function survey(route: Transport): Survey {
  const dump = (request: Parameters<Transport['execute']>[0][number]) => route.execute([request])[0]!.messages
  const links = dump(dumpLinks()).map(decodeLink)
  const nameOf = (index: number | undefined) =>
    links.find(link => link.index === index)?.ifname ?? (index === undefined ? '' : `link ${index}`)
  const addresses = dump(dumpAddresses()).map(decodeAddress)
  const families = [AF_INET, AF_INET6]
  const routes = families.flatMap(family => dump(dumpRoutes(family)).map(decodeRoute))
  return {
    links: links.map(link => ({
      name: link.ifname ?? '',
      index: link.index,
      kind: link.linkinfo?.kind ?? null,
      mac: formatMac(link.address ?? new Uint8Array(0)),
      mtuBytes: link.mtu ?? 0,
      isUp: (link.flags & IFF_UP) !== 0,
      hasCarrier: (link.flags & IFF_LOWER_UP) !== 0,
      alias: link.ifalias ?? null,
      peerIndex: link.link ?? null,
      master: link.master === undefined ? null : nameOf(link.master),
      addresses: addresses.filter(({ index }) => index === link.index).map(({ prefix }) => formatPrefix(prefix)),
    })),
    routes: routes
      .filter(each => each.table !== RT_TABLE_LOCAL && each.type !== RTN_MULTICAST)
      .map(each => routeOf(each, nameOf)),
    rules: families.flatMap(family => dump(dumpRules(family)).map(decodeRule)).map(ruleOf),
    proxies: families.flatMap(family =>
      dump(dumpProxies(family))
        .map(decodeNeighbour)
        .map(({ address, index }) => ({ address: formatIp(address), link: nameOf(index) })),
    ),
  }
}

function routeOf(route: Route, nameOf: (index: number | undefined) => string): SurveyRoute {
  const { destination, gateway, outInterface, preferredSource, priority, scope } = route
  const hops = route.nextHops ?? (outInterface === undefined ? [] : [{ outInterface, gateway }])
  const name = destination === undefined ? 'default' : formatDestination(destination)
  const ways = hops.map(
    hop => `${hop.gateway === undefined ? '' : ` via ${formatIp(hop.gateway)}`} dev ${nameOf(hop.outInterface)}`,
  )
  const parts = [
    `${name}${ways.join('')}`,
    ...(scope === scopes.link && route.family === AF_INET ? ['scope link'] : []),
    ...(preferredSource === undefined ? [] : [`src ${formatIp(preferredSource)}`]),
    ...(priority === undefined ? [] : [`metric ${priority}`]),
  ]
  return {
    text: parts.join(' '),
    table: route.table ?? RT_TABLE_MAIN,
    links: hops.map(hop => nameOf(hop.outInterface)),
    destination: name,
  }
}

/** As `ip` does, without the length of a single address. */
const formatDestination = (prefix: { ip: Ip; length: number }) =>
  prefix.length === prefix.ip.length * 8 ? formatIp(prefix.ip) : formatPrefix(prefix)

const tableNames: Readonly<Record<number, string>> = { 253: 'default', 254: 'main', 255: 'local' }

function ruleOf(rule: Rule): SurveyRule {
  const { source, destination, inInterface, outInterface, mark, markMask } = rule
  const words = [
    `from ${source === undefined ? 'all' : formatDestination(source)}`,
    ...(destination === undefined ? [] : [`to ${formatDestination(destination)}`]),
    ...(mark === undefined ? [] : [`fwmark 0x${mark.toString(16)}/0x${(markMask ?? 0xffffffff).toString(16)}`]),
    ...(inInterface === undefined ? [] : [`iif ${inInterface}`]),
    ...(outInterface === undefined ? [] : [`oif ${outInterface}`]),
    `lookup ${tableNames[rule.table] ?? rule.table}`,
  ]
  return {
    text: `${rule.priority}: ${words.join(' ')}`,
    links: [inInterface, outInterface].filter(name => name !== undefined),
    prefixes: [source, destination].filter(prefix => prefix !== undefined).map(formatDestination),
  }
}

/** The elements of the table `inet mooring` whose key or value has one of the links or addresses, in words. */
export function findElements(
  context: HostContext,
  { links, addresses }: { links: readonly string[]; addresses: readonly Ip[] },
): string[] {
  const isMeant = (field: unknown) =>
    field instanceof Uint8Array
      ? addresses.some(address => isV4(address) === isV4(field) && ipEquals(address, field))
      : typeof field === 'string' && links.includes(field)
  return readSets(context.netfilter, table).flatMap(set =>
    (listElements(context.netfilter, set) ?? [])
      .filter(({ key, value }) => [...key, ...(Array.isArray(value) ? value : [])].some(isMeant))
      .map(element => formatElement(set, element)),
  )
}

export const surveyVerbs = { surveyNetns, findElements } as const
