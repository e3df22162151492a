// SPDX-License-Identifier: Apache-2.0

import type { Transport } from '#netlink'
import { type ElementOf, formatElement, listElements, readSets, type Table } from '#nftables'
import { decodeLink, dumpLinks } from '#rtnetlink'
import type { HostContext } from './context.ts'
import { removeElements } from './elements.ts'
import { table as routed } from './part.ts'

// After a journal was lost, the tables of the firewall have elements that nobody knows of: a container gets no DEL any more,
// or one that finds its link by name. An element tells by its key which link of the node it is about, and some by their
// comment whose it is, as the link's alias does.

/** Of containers whose links are in their namespaces alone: nothing on the node tells whether they live. */
const silent: Table = { family: 'netdev', name: 'mooring' }
const tables: readonly Table[] = [routed, { family: 'bridge', name: 'mooring' }, silent]

/** What is known to be somebody's: links of the node, and owners as comments name them. */
export type Known = {
  readonly links: readonly string[]
  readonly owners: readonly string[]
  /** With it begin the owners that stand in the alias of a link on the node. */
  readonly ownerPrefix: string
}

/** An element that nobody knows of, in words; `isDead` where the link that it is about, or its owner's, is gone. */
export type Stray = { readonly text: string; readonly isDead: boolean }

/** The elements that nobody knows of. Reads all there are: for the start of an agent. @throws {NetlinkError} */
export const listStrays = (context: HostContext, known: Known): Stray[] =>
  findStrays(context, known).map(({ text, isDead }) => ({ text, isDead }))

/** Removes those of the elements that nobody knows of, and whose link is gone, still. @throws {NetlinkError} */
export function removeStrays(context: HostContext, { texts, ...known }: Known & { texts: readonly string[] }): void {
  const dead = findStrays(context, known).filter(({ text, isDead }) => isDead && texts.includes(text))
  if (dead.length > 0) removeElements(context.netfilter, dead)
}

function findStrays({ netfilter, route }: HostContext, known: Known): (ElementOf & Stray)[] {
  const [links, owners] = [new Set(known.links), new Set(known.owners)]
  const elements = tables.flatMap(table => elementsOf(netfilter, table))
  const unknown = elements.filter(
    ({ set, element }) => !owners.has(element.comment ?? '') && !links.has(linkOf({ set, element }) ?? ''),
  )
  if (unknown.length === 0) return []
  const present = route.execute([dumpLinks()])[0]!.messages.map(decodeLink)
  const [names, aliases] = [new Set(present.map(link => link.ifname)), new Set(present.map(link => link.ifalias))]
  return unknown.map(({ set, element }) => {
    const link = linkOf({ set, element })
    const { comment } = element
    const hasLink = set.table !== silent && comment?.startsWith(known.ownerPrefix)
    const isDead = (link !== undefined && !names.has(link)) || (hasLink === true && !aliases.has(comment))
    const owner = comment === undefined ? '' : ` ("${comment}")`
    return { set, element, isDead, text: `${formatElement(set, element)}${owner}` }
  })
}

const elementsOf = (netfilter: Transport, table: Table): ElementOf[] =>
  readSets(netfilter, table).flatMap(set => (listElements(netfilter, set) ?? []).map(element => ({ set, element })))

/** The link that an element is about: ours have it in front. */
const linkOf = ({ set, element }: ElementOf): string | undefined =>
  set.key[0] === 'ifname' ? (element.key[0] as string) : undefined

export const strayVerbs = { listStrays, removeStrays } as const
