// SPDX-License-Identifier: Apache-2.0

import type { Ip } from '#base'
import { ENOENT } from '#libc'
import type { Transport } from '#netlink'
import {
  addElement,
  commit,
  type ElementOf,
  formatElement,
  hasElements,
  listKeys,
  listSets,
  NftablesError,
} from '#nftables'
import { partFaults } from './chain-faults.ts'
import { removeElements } from './elements.ts'
import { ipVersions, versionOf } from './match.ts'
import { ensureParts, table } from './part.ts'
import { DEFAULT_MARK, parseLinksSet, vethHostPart, vethHostSets } from './veth-host-ruleset.ts'

/** What the node's rules know of a pod with a veth to its node. */
export type VethHostRules = {
  /** Name of the pod's link on the node. */
  readonly link: string
  readonly mark: number
  /** The pod's addresses, each with the node's that stands for it. */
  readonly addresses: readonly { readonly address: Ip; readonly node: Ip }[]
  /** It keeps its address where no service was meant. */
  readonly plain: boolean
  /** It may ask the cloud's metadata service by the node. */
  readonly metadata: boolean
}

function elementsOf({ link, mark, addresses, plain, metadata }: VethHostRules): ElementOf[] {
  const sets = vethHostSets(mark)
  const own = { key: [link] }
  return [
    { set: sets.links, element: own },
    ...addresses.map(({ address }) => ({ set: sets.addresses[versionOf(address)], element: { key: [link, address] } })),
    ...addresses.map(({ address, node }) => ({
      set: sets.nodes[versionOf(address)],
      element: { key: [link, address], value: [node] },
    })),
    ...(plain ? [{ set: sets.plain, element: own }] : []),
    ...(metadata ? [{ set: sets.metadata, element: own }] : []),
  ]
}

/**
 * Adds a pod's elements, all or none. Makes the rules where they are missing.
 * @returns true where they had to be made, so that other pods may have lost their elements
 * @throws {NftablesError} naming the element
 */
export function addVethHostRules(transport: Transport, pod: VethHostRules): boolean {
  const changes = elementsOf(pod).map(({ set, element }) => addElement(set, element))
  try {
    commit(transport, changes)
    return false
  } catch (error) {
    if (!(error instanceof NftablesError && error.errno === ENOENT)) throw error
  }
  const renewed = ensureParts(transport, { parts: [vethHostPart(pod.mark)] })
  commit(transport, changes)
  return renewed.length > 0
}

/**
 * Makes the rules, or what of them is missing; for each mark in use.
 * @returns true where they had to be made, so that pods may have lost their elements
 */
export function ensureVethHost(transport: Transport): boolean {
  const marks = listSets(transport, table).flatMap(name => parseLinksSet(name) ?? [])
  const parts = (marks.length > 0 ? marks : [DEFAULT_MARK]).map(vethHostPart)
  return ensureParts(transport, { parts }).length > 0
}

/** Removes a pod's elements; what is not there is no matter. @throws {NftablesError} */
export const removeVethHostRules = (transport: Transport, pod: VethHostRules): void =>
  removeElements(transport, elementsOf(pod))

/** Removes whatever the rules know of a link, for the rare case that nothing else is known of it. */
export function forgetVethHostLink(transport: Transport, link: string): void {
  for (const mark of listSets(transport, table).flatMap(name => parseLinksSet(name) ?? [])) {
    const sets = vethHostSets(mark)
    const addressed = ipVersions.flatMap(version => [sets.addresses[version], sets.nodes[version]])
    const elements = [sets.links, sets.plain, sets.metadata, ...addressed].flatMap(set =>
      (listKeys(transport, set, { mentioning: [link] }) ?? [])
        .filter(key => key[0] === link)
        .map(key => ({ set, element: { key } })),
    )
    if (elements.length > 0) removeElements(transport, elements)
  }
}

/** What of a pod is missing in the rules, in words; none: all is well. @throws {NetlinkError} */
export function checkVethHostRules(transport: Transport, pod: VethHostRules): string[] {
  const elements = elementsOf(pod)
  const present = hasElements(transport, elements)
  return [
    ...elements
      .filter((_, index) => !present[index])
      .map(({ set, element }) => `${formatElement(set, element)} is missing`),
    ...partFaults(transport, vethHostPart(pod.mark)),
  ]
}
