// SPDX-License-Identifier: Apache-2.0

import { formatMac } from '#base'
import { ENODEV } from '#libc'
import type { Transport } from '#netlink'
import { decodeLink, deleteLink, dumpLinks, getLink, type Link, setLink } from '#rtnetlink'
import type { HostContext } from './context.ts'

/**
 * A link of ours: its name, the alias that says whose it is, and the MAC that it was made with. The kernel takes no alias
 * when it makes a link: one whose maker was killed a moment later has its MAC alone.
 */
export type OwnedLink = { name: string; owner: string; mac: Uint8Array }

/** True unless the link is another's: its name may have been taken again. */
export const isOwned = (link: Link, { owner, mac }: OwnedLink): boolean =>
  link.ifalias === undefined
    ? link.address !== undefined && formatMac(link.address) === formatMac(mac)
    : link.ifalias === owner

/** A link by name or alternative name, or by number. */
export function tryFindLink(route: Transport, target: { ifname: string } | { index: number }): Link | undefined {
  const message = route.execute([getLink(target)])[0]!.messages[0]
  return message === undefined ? undefined : decodeLink(message)
}

/**
 * Removes links in one go. A link removal waits for RCU, 13-20 ms; a whole group waits once.
 *
 * A link that is another's stays. Absence is success.
 */
export function removeLinks(context: HostContext, links: readonly OwnedLink[]): void {
  const { route } = context
  const found = route.execute(links.map(({ name }) => getLink({ ifname: name })))
  const indices = found.flatMap((reply, position) => {
    const link = reply.messages[0] === undefined ? undefined : decodeLink(reply.messages[0])
    return link !== undefined && isOwned(link, links[position]!) ? [link.index] : []
  })
  if (indices.length === 0) return
  if (indices.length === 1) {
    route.execute([deleteLink({ index: indices[0]! })])
    return
  }
  const group = groupOf(context)
  route.execute(indices.map(index => ({ ...setLink({ index }, { group }), tolerate: [ENODEV] })))
  route.execute([deleteLink({ group })])
}

const groups = new WeakMap<HostContext, number>()

/** The thread's group for removals: random, and carried by no link when it was chosen. Never 0, in which all links are. */
function groupOf(context: HostContext): number {
  const group = groups.get(context) ?? chooseGroup(context)
  groups.set(context, group)
  return group
}

function chooseGroup({ route }: HostContext): number {
  const taken = new Set(route.execute([dumpLinks()])[0]!.messages.map(message => decodeLink(message).group))
  for (;;) {
    const group = 0x40000000 + Math.floor(Math.random() * 0x3fffffff)
    if (!taken.has(group)) return group
  }
}

/** The links whose alias begins so. */
export function listOwnedLinks({ route }: HostContext, prefix: string): { name: string; owner: string }[] {
  return route.execute([dumpLinks()])[0]!.messages.flatMap(message => {
    const { ifname, ifalias }: Link = decodeLink(message)
    return ifname !== undefined && ifalias?.startsWith(prefix) ? [{ name: ifname, owner: ifalias }] : []
  })
}

/** One link by name: what it is and whose. */
export function describeLink(
  { route }: HostContext,
  name: string,
): { index: number; kind: string | undefined; owner: string | undefined; mac: Uint8Array } | undefined {
  const link = tryFindLink(route, { ifname: name })
  if (link === undefined) return undefined
  const { index, ifalias, address, linkinfo } = link
  return { index, kind: linkinfo?.kind, owner: ifalias, mac: address ?? new Uint8Array(6) }
}
