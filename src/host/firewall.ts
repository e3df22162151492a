// SPDX-License-Identifier: Apache-2.0

import { type Ip, networkOf, type Prefix } from '#base'
import { ENOENT } from '#libc'
import type { Transport } from '#netlink'
import {
  addElement,
  commit,
  deleteTable,
  type ElementOf,
  formatElement,
  hasElements,
  hooks,
  listChains,
  listKeys,
  listSets,
  type NamedSet,
  NftablesError,
  policies,
} from '#nftables'
import { partFaults } from './chain-faults.ts'
import { commitUnlessAbsent, removeElements } from './elements.ts'
import { ipVersions, versionOf } from './match.ts'
import { ensureParts, type FindMore, table } from './part.ts'
import {
  addInside,
  addInsideRule,
  guard,
  type Inside,
  insideOf,
  insideRule,
  insideSet,
  nat,
  parseInsideSet,
  sets,
} from './ruleset.ts'

/** What the firewall knows of a pod. */
export type FirewallPod = {
  /** Name of the pod's link on the node. */
  readonly link: string
  /** The addresses that it may send from. */
  readonly addresses: readonly Ip[]
  /**
   * Given: its addresses are replaced by the node's towards everything outside of these networks, multicast excepted.
   * Between pods of one node nothing is replaced. Left out: its addresses stay.
   */
  readonly masquerade?: readonly Prefix[] | undefined
  /** It may ask the cloud's metadata service. */
  readonly metadata?: boolean | undefined
  /** It may send from any address, and to the metadata service: of the table it needs what masquerade needs, if that. */
  readonly unchecked?: boolean | undefined
}

/** What a pod's elements need of the table. */
export type Needs = {
  readonly checked: boolean
  readonly masquerade: boolean
  readonly inside: readonly Inside[]
}

/**
 * Makes the table `inet mooring`, or what of it is missing or of another release. Elements stay as they are. Harmless at
 * any time and beside other processes; where all is well it only reads.
 * @returns whether the checks of pods had to be made, so that whatever pods there were have lost theirs.
 * @throws {NftablesError}
 */
export function ensureTable(transport: Transport): boolean {
  return ensure(transport, { checked: true, masquerade: false, inside: [] })
}

/** @returns whether anything that pods have elements in had to be made, so that there may have been some before. */
export function ensure(transport: Transport, needs: Needs): boolean {
  const parts = [...(needs.checked ? [guard] : []), ...(needs.masquerade ? [nat] : [])]
  const ifPresent = [guard, nat].filter(part => !parts.includes(part))
  const renewed = ensureParts(transport, { parts, ifPresent, more: missingInside(needs) })
  return renewed.includes(needs.checked ? guard : nat)
}

/** The rule of each prefix length in chains made anew, and what this pod needs beyond. */
const missingInside =
  (needs: Needs): FindMore =>
  (transport, { renewed, present }) => {
    if (!needs.masquerade && !nat.chains.some(({ chain }) => present.includes(chain.name))) return []
    const made = listSets(transport, table).flatMap(name => parseInsideSet(name) ?? [])
    const isMade = (inside: Inside) => made.some(each => insideSet(each).name === insideSet(inside).name)
    return [
      ...(renewed.includes(nat) ? made.map(addInsideRule) : []),
      ...needs.inside.filter(inside => !isMade(inside)).flatMap(addInside),
    ]
  }

/**
 * Adds a pod's elements, all or none; what is there already stays. Makes the table where it is missing.
 * @returns true where somebody had taken the table away, and with it what the other pods need: add them again.
 * @throws {NftablesError} naming the element.
 */
export function addPod(transport: Transport, pod: FirewallPod): boolean {
  const changes = elementsOf(pod).map(({ set, element }) => addElement(set, element))
  if (changes.length === 0) return false
  try {
    commit(transport, changes)
    return false
  } catch (error) {
    if (!(error instanceof NftablesError && error.errno === ENOENT)) throw error
  }
  const rebuilt = ensure(transport, needsOf(pod))
  commit(transport, changes)
  return rebuilt
}

function needsOf({ masquerade, unchecked = false }: FirewallPod): Needs {
  return {
    checked: !unchecked,
    masquerade: masquerade !== undefined,
    inside: insidesOf(networksOf(masquerade), false),
  }
}

/** The prefix lengths of networks, each once. */
export const insidesOf = (networks: readonly Prefix[], shared: boolean): Inside[] => [
  ...new Map(
    networks.map(network => insideOf(network, shared)).map(inside => [insideSet(inside).name, inside]),
  ).values(),
]

/** A network of one address is the pod itself, to which it sends nothing: no element. */
const networksOf = (masquerade: readonly Prefix[] = []) =>
  masquerade.filter(({ ip, length }) => length < ip.length * 8).map(networkOf)

function elementsOf({ link, addresses, masquerade, metadata, unchecked }: FirewallPod): ElementOf[] {
  const found: ElementOf[] = unchecked ? [] : [{ set: sets.podLinks, element: { key: [link] } }]
  for (const address of addresses) {
    const element = { key: [link, address] }
    if (!unchecked) found.push({ set: sets.podAddresses[versionOf(address)], element })
    if (masquerade !== undefined) found.push({ set: sets.masquerade[versionOf(address)], element })
  }
  for (const network of networksOf(masquerade))
    found.push({ set: insideSet(insideOf(network, false)), element: { key: [link, network.ip] } })
  if (metadata && !unchecked) found.push({ set: sets.metadataAllowed, element: { key: [link] } })
  return found
}

/**
 * Removes a pod's elements; what is not there is no matter.
 * @throws {NftablesError}
 */
export function removePod(transport: Transport, pod: FirewallPod): void {
  const elements = elementsOf(pod)
  if (elements.length > 0) removeElements(transport, elements)
}

/** What of a pod is missing in the firewall, in words; none: all is well. @throws {NetlinkError} */
export function checkPod(transport: Transport, pod: FirewallPod): string[] {
  const elements = elementsOf(pod)
  if (elements.length === 0) return []
  const present = hasElements(transport, elements)
  const faults = elements
    .filter((_, index) => !present[index])
    .map(({ set, element }) => `${formatElement(set, element)} is missing`)
  const { checked, masquerade, inside } = needsOf(pod)
  return [
    ...faults,
    ...(checked ? partFaults(transport, guard) : []),
    ...(masquerade ? partFaults(transport, nat, inside.map(insideRule)) : []),
  ]
}

/**
 * The pods that the table has elements of, by link; none without the table.
 * @param links looks for these alone; others may be among what is found, not whole
 * @throws {NetlinkError}
 */
export function listPods(transport: Transport, links?: readonly string[]): FirewallPod[] {
  const options = links === undefined ? {} : { mentioning: links }
  const pods = new Map<string, { link: string; addresses: Ip[]; masquerade?: Prefix[]; metadata?: boolean }>()
  const podOf = (link: string) => {
    const pod = pods.get(link) ?? { link, addresses: [] }
    pods.set(link, pod)
    return pod
  }
  const each = (set: NamedSet, visit: (pod: ReturnType<typeof podOf>, address: Ip) => void) => {
    for (const [link, address] of listKeys(transport, set, options) ?? []) visit(podOf(link as string), address as Ip)
  }
  const checked = new Set<string>()
  each(sets.podLinks, ({ link }) => checked.add(link))
  each(sets.metadataAllowed, pod => {
    pod.metadata = true
  })
  for (const version of ipVersions) {
    each(sets.podAddresses[version], (pod, address) => pod.addresses.push(address))
    each(sets.masquerade[version], (pod, address) => {
      pod.masquerade ??= []
      if (!checked.has(pod.link)) pod.addresses.push(address)
    })
  }
  for (const inside of listSets(transport, table).flatMap(name => parseInsideSet(name) ?? []))
    if (!inside.shared)
      each(insideSet(inside), (pod, ip) => {
        pod.masquerade ??= []
        pod.masquerade.push({ ip, length: inside.length })
      })
  return [...pods.values()].map(pod => (checked.has(pod.link) ? pod : { ...pod, unchecked: true }))
}

/** Removes the table and all that is in it. @throws {NftablesError} */
export function removeTable(transport: Transport): void {
  commitUnlessAbsent(transport, deleteTable(table))
}

/**
 * Chains of others that drop forwarded packets which none of their rules accepts, as Docker's does, in words. A drop is
 * final: no rule of ours can undo it. Rules of the old iptables back end are not seen (iptables-legacy).
 * @throws {NetlinkError}
 */
export function findForeignForwardDrop(transport: Transport): string[] {
  const families = ['inet', 'ip', 'ip6']
  return listChains(transport)
    .filter(chain => chain.hook === hooks.forward && chain.policy === policies.drop && families.includes(chain.family))
    .filter(chain => chain.family !== table.family || chain.table !== table.name)
    .map(({ family, table, name }) => `chain ${name} of table ${family} ${table} has policy drop`)
}
