// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatPrefix, isV4 } from '#base'
import { firewall, type HostContext } from '#host'
import type { Message, Request } from '#netlink'
import {
  AF_INET,
  AF_INET6,
  decodeAddress,
  decodeLink,
  decodeNeighbour,
  decodeRoute,
  decodeRule,
  describeRoute,
  dumpAddresses,
  dumpLinks,
  dumpProxies,
  dumpRoutes,
  dumpRules,
  scopes,
} from '#rtnetlink'

// One dump at a time: the kernel refuses a second one on the same socket.
const list = <T>(context: HostContext, request: Request, decode: (message: Message) => T): T[] =>
  context.route.execute([request])[0]!.messages.map(decode)

/**
 * What a plugin can leave on a node, one line per object: links, addresses, routes, rules, proxy entries, and pods in the
 * firewall. Neighbours that the kernel learned by itself are not among it.
 */
export function readKernel(context: HostContext): string[] {
  const families = [AF_INET, AF_INET6]
  const links = list(context, dumpLinks(), decodeLink)
  const names = new Map(links.map(({ index, ifname }) => [index, ifname ?? String(index)]))
  const on = (index: number | undefined) => (index === undefined ? '' : ` dev ${names.get(index) ?? index}`)
  return [
    ...links.map(({ ifname, ifalias }) => `link ${ifname}${ifalias === undefined ? '' : ` (${ifalias})`}`),
    ...list(context, dumpAddresses(), decodeAddress).map(
      each => `address ${formatPrefix(each.prefix)}${on(each.index)}`,
    ),
    ...families.flatMap(family =>
      list(context, dumpRoutes(family), decodeRoute).map(
        ({ outInterface, ...route }) => `route ${describeRoute(route)}${on(outInterface)} table ${route.table}`,
      ),
    ),
    ...families.flatMap(family =>
      list(context, dumpRules(family), decodeRule).map(
        ({ priority, source, table }) =>
          `rule ${priority}${source === undefined ? '' : ` from ${formatPrefix(source)}`} table ${table}`,
      ),
    ),
    ...families.flatMap(family =>
      list(context, dumpProxies(family), decodeNeighbour).map(
        each => `proxy ${formatIp(each.address)}${on(each.index)}`,
      ),
    ),
    ...firewall.listPods(context.netfilter).map(pod => `firewall ${pod.link} ${pod.addresses.map(formatIp).join(' ')}`),
  ]
}

/** The IPv4 addresses that others can reach, by link: not those of loopback and of the link alone. */
export function readAddresses(context: HostContext): { link: string; address: string }[] {
  const names = new Map(list(context, dumpLinks(), decodeLink).map(({ index, ifname }) => [index, ifname ?? '']))
  return list(context, dumpAddresses(), decodeAddress)
    .filter(({ prefix, scope }) => isV4(prefix.ip) && scope === scopes.universe)
    .map(({ index, prefix }) => ({ link: names.get(index) ?? '', address: formatIp(prefix.ip) }))
}
