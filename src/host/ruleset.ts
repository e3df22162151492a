// SPDX-License-Identifier: Apache-2.0

import type { Prefix } from '#base'
import {
  addRule,
  addSet,
  type Chain,
  type Change,
  count,
  type Expression,
  give,
  isIn,
  isNotIn,
  loadField,
  loadMeta,
  mask,
  masquerade,
  type NamedSet,
  type Rule,
} from '#nftables'
import {
  addressFields,
  addressTypes,
  type IpVersion,
  ipVersions,
  isVersion,
  isWithin,
  maskOf,
  perVersion,
  versionOf,
} from './match.ts'
import { type ChainRule, type Part, table } from './part.ts'

// What stands in the one table of ours. Chains and rules are the same on every node and never change with the pods: a pod
// is elements of hash sets, whose cost does not grow. Every key begins with the name of the pod's link on the node, so that
// an element has one owner and removing one pod never takes away what another needs.

const linkSet = (name: string): NamedSet => ({ table, name, key: ['ifname'] })
const linkAddressSet = (name: string, version: IpVersion): NamedSet => ({
  table,
  name: `${name}_${version}`,
  key: ['ifname', addressTypes[version]],
})

export const sets = {
  /** Links of pods: what comes in by them is checked. */
  podLinks: linkSet('pod_links'),
  /** Which addresses a pod may send from. */
  podAddresses: perVersion(version => linkAddressSet('pod_addresses', version)),
  /** Links of pods that may ask the metadata service. */
  metadataAllowed: linkSet('metadata_allowed'),
  /** Pods whose address is replaced by the node's on the way to the outside. */
  masquerade: perVersion(version => linkAddressSet('masquerade', version)),
}

/**
 * A prefix length of networks that are not outside for a pod. `shared`: several pods' packets come in by its link, a
 * bridge, so that its address is part of the key.
 */
export type Inside = { readonly version: IpVersion; readonly length: number; readonly shared: boolean }

/**
 * What is not outside for a pod: link and network. One set, and one rule, per prefix length in use on the node, since a
 * rule masks the destination before it looks it up. An interval set of pod and network would need neither, but inserting
 * into one copies it: 1000 pods would pay for each other.
 */
export function insideSet({ version, length, shared }: Inside): NamedSet {
  const address = addressTypes[version]
  return {
    table,
    name: `inside_${length}_${shared ? 'of_' : ''}${version}`,
    key: ['ifname', ...(shared ? [address] : []), address],
  }
}

/** The prefix length of a network, and its family. */
export const insideOf = (network: Prefix, shared: boolean): Inside => ({
  version: versionOf(network.ip),
  length: network.length,
  shared,
})

/** What a set's name says; undefined for other sets. */
export function parseInsideSet(name: string): Inside | undefined {
  const match = /^inside_(\d{1,3})_(of_)?(v4|v6)$/.exec(name)
  if (match === null) return undefined
  return { length: Number(match[1]), shared: match[2] !== undefined, version: match[3] as IpVersion }
}

// Registers 1 to 4 hold 16 bytes each and follow one another: a link's name fills the first, the address comes next.
const KEY = 1
const KEY_ADDRESS = 2
/** After a link's name and an address; a register of 4 bytes for IPv4 (NFT_REG32_05), which nft writes so as well. */
const KEY_SECOND_ADDRESS = { v4: 13, v6: 3 } as const
/** Loads the key of link of arrival and source. */
export const linkAndSource = (version: IpVersion): Expression[] => [
  ...isVersion(version),
  loadMeta('iifname', KEY),
  loadField(addressFields[version].source, KEY_ADDRESS),
]

/** Where clouds answer questions about the machine that asks. */
export const METADATA = { v4: '169.254.169.254/32', v6: 'fe80::a9fe:a9fe/128' } as const

const guardChain: Chain = {
  table,
  name: 'prerouting',
  // Before connection tracking, so that what is dropped costs no entry there; before every DNAT.
  base: { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' },
}

const toMetadata = (version: IpVersion): Rule => ({
  comment: 'metadata service',
  expressions: [
    ...isWithin(version, 'destination', METADATA[version]),
    loadMeta('iifname', KEY),
    isNotIn(KEY, sets.metadataAllowed.name),
    count(),
    give('drop'),
  ],
})
const spoofed = (version: IpVersion): Rule => ({
  comment: 'not an address of the pod',
  expressions: [...linkAndSource(version), isNotIn(KEY, sets.podAddresses[version].name), count(), give('drop')],
})

/** Checks what pods send: from their own addresses only, and not to the metadata service. */
export const guard: Part = {
  sets: [sets.podLinks, ...Object.values(sets.podAddresses), sets.metadataAllowed],
  chains: [
    {
      chain: guardChain,
      rules: [
        {
          comment: 'not from a pod',
          expressions: [loadMeta('iifname', KEY), isNotIn(KEY, sets.podLinks.name), give('accept')],
        },
        toMetadata('v4'),
        toMetadata('v6'),
        spoofed('v4'),
        // Neighbour discovery. The kernel forwards neither (ip6_forward), so they reach no further than the node.
        {
          comment: 'link-local',
          expressions: [...isWithin('v6', 'source', 'fe80::/10'), give('accept')],
        },
        { comment: 'no address yet', expressions: [...isWithin('v6', 'source', '::/128'), give('accept')] },
        spoofed('v6'),
      ],
    },
  ],
}

const outsideChain = perVersion((version): Chain => ({ table, name: `outside_${version}` }))
const MULTICAST = { v4: '224.0.0.0/4', v6: 'ff00::/8' } as const

const outside = (version: IpVersion) => ({
  chain: outsideChain[version],
  rules: [
    {
      comment: 'multicast',
      expressions: [...isWithin(version, 'destination', MULTICAST[version]), give('return')],
    },
    // `masquerade` takes an address of the link by which the packet leaves. That is the node's NIC here: links of pods,
    // which have no address of their own (the kernel would take 169.254.1.1), went away in postrouting.
    { expressions: [masquerade()] },
  ],
})

/** Replaces pods' addresses towards the outside. Made for the first pod that asks: before, the node needs no NAT. */
export const nat: Part = {
  sets: [sets.podLinks, ...Object.values(sets.masquerade)],
  chains: [
    outside('v4'),
    outside('v6'),
    {
      chain: {
        table,
        name: 'postrouting',
        base: { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
      },
      rules: [
        {
          comment: 'to a pod of this node',
          expressions: [loadMeta('oifname', KEY), isIn(KEY, sets.podLinks.name), give('accept')],
        },
        ...ipVersions.map(version => ({
          // The link of arrival is known here for forwarded packets since Linux 5.7.
          expressions: [
            ...linkAndSource(version),
            isIn(KEY, sets.masquerade[version].name),
            give({ goto: outsideChain[version].name }),
          ],
        })),
      ],
    },
  ],
}

/** Makes the set of a prefix length, and the rule that looks destinations up in it. EEXIST where it was made already. */
export const addInside = (inside: Inside): Change[] => [
  addSet(insideSet(inside), { exclusive: true }),
  addInsideRule(inside),
]

/** The rule alone. */
export function addInsideRule(inside: Inside): Change {
  const { chain, rule } = insideRule(inside)
  return addRule(chain, rule, { first: true })
}

/** The rule that lets a pod's packets to networks of a prefix length keep their address. */
export function insideRule(inside: Inside): ChainRule {
  const { version, length, shared } = inside
  const { source, destination } = addressFields[version]
  const register = shared ? KEY_SECOND_ADDRESS[version] : KEY_ADDRESS
  const expressions = [
    ...isVersion(version),
    loadMeta('iifname', KEY),
    ...(shared ? [loadField(source, KEY_ADDRESS)] : []),
    loadField(destination, register),
    mask(register, maskOf(length, version === 'v4' ? 4 : 16)),
    isIn(KEY, insideSet(inside).name),
    give('return'),
  ]
  return { chain: outsideChain[version], rule: { expressions, comment: 'network of the pod' } }
}
