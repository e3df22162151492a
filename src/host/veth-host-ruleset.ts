// SPDX-License-Identifier: Apache-2.0

import { u32 } from '#netlink'
import {
  addChain,
  addRule,
  addTable,
  type Chain,
  type Change,
  compare,
  count,
  type Expression,
  give,
  isIn,
  isNotIn,
  loadConnection,
  loadDestinationType,
  loadMeta,
  loadOriginal,
  lookUp,
  mask,
  masquerade,
  type NamedSet,
  type Rule,
  setConnectionMark,
  setMark,
  type Table,
  translate,
} from '#nftables'
import { addressTypes, type IpVersion, ipVersions, isWithin, perVersion } from './match.ts'
import { type Part, table } from './part.ts'
import { linkAndSource, METADATA, sets as podSets } from './ruleset.ts'

// The rules for pods that have a second, veth NIC to their node (veth-host). On the node they stand in the table of ours and
// never change with the pods; in each pod stands a small table of its own.
//
// Whatever comes from a pod's veth is sent back into the pod by policy routing, where it leaves by the pod's own NIC, unless
// the packet has our mark: then it goes by the node's main table. The mark says: the pod's answer to somebody, or a packet
// that nobody sent elsewhere (no DNAT). Both are told by connection tracking, so connections on the node need no mark, and
// no bit of a packet's mark but our own is touched.

/** The mark's bits unless a configuration names others. */
export const DEFAULT_MARK = 0x2000

/** Sets and maps of pods that use this mark. */
export function vethHostSets(mark: number) {
  const name = (what: string) => `veth_host_${what}${suffix(mark)}`
  return {
    /** Links of the pods. */
    links: { table, name: name('links'), key: ['ifname'] } as NamedSet,
    /** Which addresses a pod may send from. */
    addresses: perVersion(
      (version): NamedSet => ({
        table,
        name: `${name('addresses')}_${version}`,
        key: ['ifname', addressTypes[version]],
      }),
    ),
    /** The node's address that replaces the pod's. */
    nodes: perVersion(
      (version): NamedSet => ({
        table,
        name: `${name('nodes')}_${version}`,
        key: ['ifname', addressTypes[version]],
        data: [addressTypes[version]],
      }),
    ),
    /** Pods that keep their address where nothing was translated. */
    plain: { table, name: name('plain'), key: ['ifname'] } as NamedSet,
    /** Links of pods that may ask the node's metadata service. */
    metadata: podSets.metadataAllowed,
  }
}

const suffix = (mark: number) => (mark === DEFAULT_MARK ? '' : `_${mark.toString(16)}`)

/** The mark that belongs to a set of links; undefined for other sets. */
export function parseLinksSet(name: string): number | undefined {
  const match = /^veth_host_links(?:_([0-9a-f]{1,8}))?$/.exec(name)
  if (match === null) return undefined
  return match[1] === undefined ? DEFAULT_MARK : Number.parseInt(match[1], 16)
}

// linux/netfilter/nf_conntrack_common.h and nf_conntrack_tuple_common.h
const IPS_DST_NAT = 0x20
const IP_CT_DIR_ORIGINAL = 0
const IP_CT_DIR_REPLY = 1
/** linux/rtnetlink.h. */
const RTN_LOCAL = 2
// Registers of 16 bytes: a key is loaded into 1 and 2.
const KEY = 1
const KEY_ADDRESS = 2

const isDirection = (direction: number): Expression[] => [
  loadConnection('direction', KEY),
  compare(KEY, '==', Uint8Array.of(direction)),
]
const destinationWas = (translated: boolean): Expression[] => [
  loadConnection('status', KEY),
  mask(KEY, u32.encode(IPS_DST_NAT)),
  compare(KEY, translated ? '!=' : '==', u32.encode(0)),
]
/** Sets the bits of a register and leaves the others. */
const setBits = (register: number, bits: number): Expression =>
  mask(register, u32.encode(~bits >>> 0), u32.encode(bits >>> 0))

/** The rules on the node for pods that use this mark. */
export function vethHostPart(mark: number): Part {
  const known = parts.get(mark) ?? makeVethHostPart(mark)
  parts.set(mark, known)
  return known
}
const parts = new Map<number, Part>()

function makeVethHostPart(mark: number): Part {
  const sets = vethHostSets(mark)
  const chain = (name: string, base?: Chain['base']): Chain => ({
    table,
    name: `veth_host_${name}${suffix(mark)}`,
    ...(base === undefined ? {} : { base }),
  })
  const comesFromPod = (is: boolean): Expression[] => [
    loadMeta('iifname', KEY),
    is ? isIn(KEY, sets.links.name) : isNotIn(KEY, sets.links.name),
  ]

  const byMain = chain('by_main')
  const own = chain('own')
  const toMetadata = (version: IpVersion): Rule => ({
    comment: 'metadata service',
    expressions: [
      ...isWithin(version, 'destination', METADATA[version]),
      loadMeta('iifname', KEY),
      isNotIn(KEY, sets.metadata.name),
      count(),
      give('drop'),
    ],
  })
  return {
    sets: [sets.links, ...Object.values(sets.addresses), ...Object.values(sets.nodes), sets.plain, sets.metadata],
    chains: [
      {
        chain: byMain,
        rules: [
          { expressions: [loadMeta('mark', KEY), setBits(KEY, mark), setMark(KEY)] },
          { expressions: [give('accept')] },
        ],
      },
      {
        chain: own,
        rules: [
          { comment: 'a service: back into the pod', expressions: [...destinationWas(true), give('accept')] },
          { expressions: [give({ goto: byMain.name })] },
        ],
      },
      {
        // After every DNAT, before the route is looked up.
        chain: chain('steer', { type: 'filter', hook: 'prerouting', priority: -90, policy: 'accept' }),
        rules: [
          { comment: 'not from a pod', expressions: [...comesFromPod(false), give('accept')] },
          ...ipVersions.map(version => ({
            comment: 'an answer to the pod: back into it',
            expressions: [
              ...isDirection(IP_CT_DIR_REPLY),
              loadMeta('iifname', KEY),
              loadOriginal(version === 'v4' ? 'ip saddr' : 'ip6 saddr', KEY_ADDRESS),
              isIn(KEY, sets.addresses[version].name),
              give('accept'),
            ],
          })),
          {
            comment: 'an answer of the pod',
            expressions: [...isDirection(IP_CT_DIR_REPLY), give({ goto: byMain.name })],
          },
          toMetadata('v4'),
          toMetadata('v6'),
          ...ipVersions.map(version => ({
            expressions: [...linkAndSource(version), isIn(KEY, sets.addresses[version].name), give({ goto: own.name })],
          })),
          { comment: 'link-local', expressions: [...isWithin('v6', 'source', 'fe80::/10'), give('accept')] },
          { comment: 'no address yet', expressions: [...isWithin('v6', 'source', '::/128'), give('accept')] },
          {
            comment: 'not an address of the pod',
            expressions: [...isDirection(IP_CT_DIR_ORIGINAL), count(), give('drop')],
          },
        ],
      },
      {
        // Before 100, where kube-proxy masquerades: on a veth without address that would be any address of the node.
        chain: chain('snat', { type: 'nat', hook: 'postrouting', priority: 99, policy: 'accept' }),
        rules: [
          { comment: 'not from a pod', expressions: [...comesFromPod(false), give('accept')] },
          {
            comment: 'keeps its address',
            expressions: [
              ...destinationWas(false),
              loadMeta('iifname', KEY),
              isIn(KEY, sets.plain.name),
              give('accept'),
            ],
          },
          ...ipVersions.map(version => ({
            expressions: [
              ...linkAndSource(version),
              lookUp(KEY, sets.nodes[version].name, KEY),
              translate('snat', version === 'v4' ? 'ip' : 'ip6', { address: KEY }),
            ],
          })),
        ],
      },
    ],
  }
}

/** The table in a pod, one per veth: it goes as a whole. */
export const podTable = (ifName: string): Table => ({ family: 'inet', name: `mooring-${ifName}` })

/** What a pod's table must know. */
export type PodRules = {
  /** The pod's end of the veth. */
  readonly ifName: string
  /** Bits of connections that came by the veth. */
  readonly mark: number
  /** Bits of connections that came by other links; given where the default route goes by the veth. */
  readonly underlayMark?: number | undefined
}

/** The chains of a pod's table with their rules. */
export function podChains({ ifName, mark, underlayMark }: PodRules): Part['chains'] {
  const table = podTable(ifName)
  const name = new Uint8Array(16)
  name.set(new TextEncoder().encode(ifName))
  const isLink = (key: 'iifname' | 'oifname', is: boolean): Expression[] => [
    loadMeta(key, KEY),
    compare(KEY, is ? '==' : '!=', name),
  ]
  const noteConnection = (byVeth: boolean, bits: number): Rule => ({
    expressions: [
      ...isLink('iifname', byVeth),
      ...isDirection(IP_CT_DIR_ORIGINAL),
      loadConnection('mark', KEY),
      setBits(KEY, bits),
      setConnectionMark(KEY),
    ],
  })
  const markAnswer = (bits: number): Rule => ({
    expressions: [
      ...isDirection(IP_CT_DIR_REPLY),
      loadConnection('mark', KEY),
      mask(KEY, u32.encode(bits)),
      compare(KEY, '!=', u32.encode(0)),
      loadMeta('mark', KEY),
      setBits(KEY, bits),
      setMark(KEY),
    ],
  })
  const noteArrival: Rule = {
    // The kernel asks whether the sender is where the packet came from (rp_filter), by the way of an answer: with the
    // mark (src_valid_mark), which answers will have. Not for what is sent on: it must not go by the way of answers.
    expressions: [
      ...isLink('iifname', true),
      ...isDirection(IP_CT_DIR_ORIGINAL),
      loadDestinationType(KEY),
      compare(KEY, '==', u32.encode(RTN_LOCAL)),
      loadMeta('mark', KEY),
      setBits(KEY, mark),
      setMark(KEY),
    ],
  }
  return [
    {
      chain: {
        table,
        name: 'prerouting',
        base: { type: 'filter', hook: 'prerouting', priority: -150, policy: 'accept' },
      },
      rules: [
        noteConnection(true, mark),
        noteArrival,
        ...(underlayMark === undefined ? [] : [noteConnection(false, underlayMark)]),
      ],
    },
    {
      // Type "route": the route is looked up again when the mark has changed.
      chain: { table, name: 'output', base: { type: 'route', hook: 'output', priority: -150, policy: 'accept' } },
      rules: [markAnswer(mark), ...(underlayMark === undefined ? [] : [markAnswer(underlayMark)])],
    },
    {
      chain: {
        table,
        name: 'postrouting',
        base: { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
      },
      rules: [
        {
          comment: 'a service behind the NIC of the pod',
          expressions: [...isLink('iifname', true), ...isLink('oifname', false), masquerade()],
        },
      ],
    },
  ]
}

/** Makes a pod's table. EEXIST where there is one. */
export function makePodTable(rules: PodRules): Change[] {
  const chains = podChains(rules)
  return [
    addTable(podTable(rules.ifName)),
    ...chains.map(({ chain }) => addChain(chain, { exclusive: true })),
    ...chains.flatMap(({ chain, rules }) => rules.map(rule => addRule(chain, rule))),
  ]
}
