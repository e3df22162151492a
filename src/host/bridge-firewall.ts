// SPDX-License-Identifier: Apache-2.0

import { type Ip, networkOf, type Prefix } from '#base'
import { EEXIST, ENOENT } from '#libc'
import type { Transport } from '#netlink'
import {
  addTable,
  commit,
  count,
  deleteElement,
  type ElementOf,
  formatElement,
  give,
  hasElements,
  isIn,
  isNotIn,
  listElements,
  listSets,
  loadField,
  loadMeta,
  type NamedSet,
  NftablesError,
  type Table,
} from '#nftables'
import { partFaults } from './chain-faults.ts'
import { giveBackElements, takeElements } from './elements.ts'
import { ensure, insidesOf } from './firewall.ts'
import { ipVersions, versionOf } from './match.ts'
import { ensureParts, makePart, type Part, table as routed } from './part.ts'
import { type Inside, insideOf, insideRule, insideSet, nat, parseInsideSet, sets } from './ruleset.ts'

// What the kernel must know of a pod behind a bridge. Its routed packets come in by the bridge as those of its neighbours
// do, so keys have its address beside the bridge's name; its frames come in by the pod's own link. Every element says in
// its comment whose it is: without a record nothing else would.

/** What is to be done with a pod's packets. Plain data, so that it may cross threads. */
export type BridgedFirewall = {
  /** Whose the elements are. */
  readonly owner: string
  /** Its addresses, with the networks towards which they stay, are replaced by the node's where they come in by `link`. */
  readonly masquerade?: { readonly link: string; readonly addresses: readonly Prefix[] } | undefined
  /** What comes in by `link` with another MAC is dropped. */
  readonly macCheck?: { readonly link: string; readonly mac: Uint8Array } | undefined
}

const bridged: Table = { family: 'bridge', name: 'mooring' }
/** Links of pods whose frames are checked. */
const checkedLinks: NamedSet = { table: bridged, name: 'checked_links', key: ['ifname'] }
/** Which MACs they may send from. */
const linkMacs: NamedSet = { table: bridged, name: 'link_macs', key: ['ifname', 'ether_addr'] }

const KEY = 1
const KEY_MAC = 2

/** Drops frames with another source than the pod's MAC, before the bridge learns from them. */
export const macCheck: Part = {
  sets: [checkedLinks, linkMacs],
  chains: [
    {
      chain: {
        table: bridged,
        name: 'prerouting',
        base: { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' },
      },
      rules: [
        {
          comment: 'not the MAC of the pod',
          expressions: [
            loadMeta('iifname', KEY),
            isIn(KEY, checkedLinks.name),
            // As nft does, though it is there still: a rule set that nft saved and restored is the same.
            loadMeta('iifname', KEY),
            loadField('ether saddr', KEY_MAC),
            isNotIn(KEY, linkMacs.name),
            count(),
            give('drop'),
          ],
        },
      ],
    },
  ],
}

/** Asks the kernel whether it could check MACs, changing nothing: the batch ends with a removal that is always refused. */
export function knowsMacCheck(transport: Transport): boolean {
  const impossible = deleteElement(checkedLinks, { key: ['no such link'] })
  try {
    commit(transport, [addTable(bridged), ...makePart(macCheck, []), impossible])
    return true
  } catch (error) {
    if (!(error instanceof NftablesError)) throw error
    // EEXIST: it does so already.
    return error.request === impossible.about || error.errno === EEXIST
  }
}

function routedElements({ masquerade, owner: comment }: BridgedFirewall): ElementOf[] {
  const { link, addresses } = masquerade ?? { link: '', addresses: [] }
  return addresses.flatMap(address => {
    const network = networkOf(address)
    const own = { set: sets.masquerade[versionOf(address.ip)], element: { key: [link, address.ip], comment } }
    if (address.length === address.ip.length * 8) return [own]
    const inside = insideSet(insideOf(network, true))
    return [own, { set: inside, element: { key: [link, address.ip, network.ip], comment } }]
  })
}

function bridgedElements({ macCheck, owner: comment }: BridgedFirewall): ElementOf[] {
  if (macCheck === undefined) return []
  const { link, mac } = macCheck
  return [
    { set: checkedLinks, element: { key: [link], comment } },
    { set: linkMacs, element: { key: [link, mac], comment } },
  ]
}

/** Makes the check of MACs where it is missing. @returns true where it had to be made: the pods' elements are missing */
export const ensureMacCheck = (transport: Transport): boolean =>
  ensureParts(transport, { parts: [macCheck] }).length > 0

/**
 * Adds a pod's elements; makes what the tables lack.
 * @returns true where a table had to be made again, so that other pods' elements are missing
 * @throws {NftablesError} naming the element; what was added before stays
 */
export function addBridged(transport: Transport, firewall: BridgedFirewall): boolean {
  let rebuilt = false
  takeMaking(transport, bridgedElements(firewall), () => {
    rebuilt = ensureMacCheck(transport)
  })
  takeMaking(transport, routedElements(firewall), () => {
    rebuilt = ensure(transport, { checked: false, masquerade: true, inside: insidesFor(firewall) }) || rebuilt
  })
  return rebuilt
}

/** The prefix lengths of the networks that are not outside for it. */
const insidesFor = ({ masquerade }: BridgedFirewall): Inside[] =>
  insidesOf(masquerade?.addresses.filter(({ ip, length }) => length < ip.length * 8) ?? [], true)

function takeMaking(transport: Transport, elements: readonly ElementOf[], makeSets: () => void): void {
  try {
    takeElements(transport, elements)
  } catch (error) {
    if (!(error instanceof NftablesError && error.errno === ENOENT)) throw error
    makeSets()
    takeElements(transport, elements)
  }
}

/** Removes a pod's elements; what is not there, or another's by now, is no matter. @throws {NetlinkError} */
export function removeBridged(transport: Transport, firewall: BridgedFirewall): void {
  giveBackElements(transport, [...bridgedElements(firewall), ...routedElements(firewall)])
}

/** What of a pod is missing, in words; none: all is well. @throws {NetlinkError} */
export function checkBridged(transport: Transport, firewall: BridgedFirewall): string[] {
  const elements = [...bridgedElements(firewall), ...routedElements(firewall)]
  const present = elements.length === 0 ? [] : hasElements(transport, elements)
  const faults = elements
    .filter((_, index) => !present[index])
    .map(({ set, element }) => `${formatElement(set, element)} is missing`)
  return [
    ...faults,
    ...(firewall.macCheck === undefined ? [] : partFaults(transport, macCheck)),
    ...(firewall.masquerade === undefined ? [] : partFaults(transport, nat, insidesFor(firewall).map(insideRule))),
  ]
}

/** What an owner has in the tables, found by the comments. @throws {NetlinkError} */
export function findBridged(transport: Transport, owner: string): BridgedFirewall {
  const own = (set: NamedSet) =>
    (listElements(transport, set, { mentioning: [owner] }) ?? [])
      .filter(({ comment }) => comment === owner)
      .map(({ key }) => key)
  const [macKey] = own(linkMacs)
  const lengths = new Map<string, number>()
  for (const inside of listSets(transport, routed).flatMap(name => parseInsideSet(name) ?? []))
    if (inside.shared) for (const [, address] of own(insideSet(inside))) lengths.set(String(address), inside.length)
  const masked = ipVersions.flatMap(version => own(sets.masquerade[version])) as [string, Ip][]
  return {
    owner,
    masquerade:
      masked.length === 0
        ? undefined
        : {
            link: masked[0]![0],
            addresses: masked.map(([, ip]) => ({ ip, length: lengths.get(String(ip)) ?? ip.length * 8 })),
          },
    macCheck: macKey === undefined ? undefined : { link: macKey[0] as string, mac: macKey[1] as Uint8Array },
  }
}
