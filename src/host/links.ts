// SPDX-License-Identifier: Apache-2.0

import { formatMac } from '#base'
import { ENODEV } from '#libc'
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

/**
 * Removes links in one go. A link removal waits for RCU, 13-20 ms; a whole group waits once.
 *
 * A link that is another's stays. Absence is success.
 * @param group a number that no link of the node carries
 */
export function removeLinks({ route }: HostContext, links: readonly OwnedLink[], group: number): void {
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
  route.execute(indices.map(index => ({ ...setLink({ index }, { group }), tolerate: [ENODEV] })))
  route.execute([deleteLink({ group })])
}

/** A number that no link carries as its group, for `removeLinks`. */
export function chooseGroup({ route }: HostContext): number {
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
): { index: number; owner: string | undefined; mac: Uint8Array } | undefined {
  const message = route.execute([getLink({ ifname: name })])[0]!.messages[0]
  if (message === undefined) return undefined
  const { index, ifalias, address } = decodeLink(message)
  return { index, owner: ifalias, mac: address ?? new Uint8Array(6) }
}
