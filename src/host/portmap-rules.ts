// SPDX-License-Identifier: Apache-2.0

import { type Prefix, parsePrefix } from '#base'
import {
  addRule,
  addSet,
  type Chain,
  type Change,
  compare,
  count,
  type DataTypeName,
  type Expression,
  give,
  isIn,
  loadConnection,
  loadDestinationType,
  loadField,
  loadMeta,
  lookUp,
  mask,
  masquerade,
  type NamedSet,
  type Rule,
  setConnectionMark,
  translate,
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
} from './match.ts'
import { type ChainRule, type Part, table } from './part.ts'

// Ports of the node that lead to pods. A port is an element of a map: protocol and port, with the node's address before
// them where the pod asks for one, to address and port of the pod. Rules are the same on every node but for three things,
// each of which adds one rule when it is first used: prefix length and mark bit of those whose source is replaced, and
// conditions of a network. The names of sets say which, so that chains which are made anew get the same rules again.

/** A packet is looked at only if its source or destination is, or is not, in a network. */
export type Condition = { readonly end: 'source' | 'destination'; readonly negated: boolean; readonly network: Prefix }

/** Which map a port stands in: `to` one address of the node, or `any`; and under which conditions. */
export type PortGroup = {
  readonly target: 'to' | 'any'
  readonly version: IpVersion
  readonly conditions: readonly Condition[]
}
/** Which set says whose source is replaced: networks of one prefix length, told by one bit of the connection's mark. */
export type NearGroup = PortGroup & { readonly length: number; readonly bit: number }

const protocolAndPort = ['inet_proto', 'inet_service'] as const satisfies DataTypeName[]
const keyOf = ({ target, version }: PortGroup): DataTypeName[] =>
  target === 'to' ? [addressTypes[version], ...protocolAndPort] : [...protocolAndPort]

const suffixOf = (conditions: readonly Condition[]): string =>
  conditions
    .map(({ end, negated, network }) => `_${negated ? 'n' : ''}${end[0]}_${network.ip.toHex()}_${network.length}`)
    .join('')
const SUFFIX = '((?:_n?[sd]_[0-9a-f]+_\\d+)*)'

function parseSuffix(text: string): Condition[] {
  return [...text.matchAll(/_(n?)([sd])_([0-9a-f]+)_(\d+)/g)].map(([, negated, end, hex, length]) => ({
    end: end === 's' ? 'source' : 'destination',
    negated: negated === 'n',
    network: { ip: Uint8Array.fromHex(hex!), length: Number(length) },
  }))
}

/** NFT_SET_MAXNAMELEN is 256. */
const SET_NAME_LENGTH_MAX = 255

/** True if the conditions find room in the names of sets. */
export const fitsName = (conditions: readonly Condition[]): boolean =>
  'portmap_near_any_v6_128_31'.length + suffixOf(conditions).length <= SET_NAME_LENGTH_MAX

/** The map of a group. */
export const portMap = (group: PortGroup): NamedSet => ({
  table,
  name: `portmap_${group.target}_${group.version}${suffixOf(group.conditions)}`,
  key: keyOf(group),
  data: [addressTypes[group.version], 'inet_service'],
})

/** The opposite; undefined for the name of another set. */
export function parsePortMap(name: string): PortGroup | undefined {
  const match = new RegExp(`^portmap_(to|any)_(v4|v6)${SUFFIX}$`).exec(name)
  if (match === null) return undefined
  const [, target, version, conditions] = match
  return { target: target as 'to', version: version as IpVersion, conditions: parseSuffix(conditions!) }
}

/** The set of a group: network of the source, and what the client asked for. */
export const nearSet = (group: NearGroup): NamedSet => ({
  table,
  name: `portmap_near_${group.target}_${group.version}_${group.length}_${group.bit}${suffixOf(group.conditions)}`,
  key: [addressTypes[group.version], ...keyOf(group)],
})

/** The opposite; undefined for the name of another set. */
export function parseNearSet(name: string): NearGroup | undefined {
  const match = new RegExp(`^portmap_near_(to|any)_(v4|v6)_(\\d+)_(\\d+)${SUFFIX}$`).exec(name)
  if (match === null) return undefined
  const [, target, version, length, bit, conditions] = match
  return {
    ...{ target: target as 'to', version: version as IpVersion, conditions: parseSuffix(conditions!) },
    ...{ length: Number(length), bit: Number(bit) },
  }
}

const chain = (name: string, base?: Chain['base']): Chain => ({
  table,
  name: `portmap_${name}`,
  ...(base === undefined ? {} : { base }),
})
const nat = (hook: 'prerouting' | 'output' | 'postrouting', priority: number): Chain =>
  chain(hook, { type: 'nat', hook, priority, policy: 'accept' })

// In each of them a rule per group; their order does not matter.
const near = { to: chain('near_to'), any: chain('near_any') }
const conditional = { to: chain('conditional_to'), any: chain('conditional_any') }
const replaced = chain('replaced')
const ports = chain('ports')

// A field of a key stands in registers of 32 bits, of which 8 to 11 are register 1 and so on.
const KEY = 1
const WORD = 8
const words = { v4: 1, v6: 4 } as const
const LOOPBACK6 = '::1/128'

/** Loads what the client asked for, from a register of 32 bits on. */
function loadAsked({ target, version }: PortGroup, register: number): Expression[] {
  const after = target === 'to' ? register + words[version] : register
  return [
    ...(target === 'to' ? [loadField(addressFields[version].destination, register)] : []),
    loadMeta('l4proto', after),
    loadField('th dport', after + 1),
  ]
}

const conditionsOf = ({ version, conditions }: PortGroup): Expression[] =>
  conditions.flatMap(({ end, negated, network }) => {
    const expressions = isWithin(version, end, network)
    const last = expressions.at(-1)! as ReturnType<typeof compare>
    return negated ? [...expressions.slice(0, -1), compare(KEY, '!=', last.data.data.value)] : expressions
  })

/** Translates what is asked of a group's ports. */
const portRule = (group: PortGroup): Rule => ({
  expressions: [
    ...(group.conditions.length === 0 ? isVersion(group.version) : conditionsOf(group)),
    ...loadAsked(group, WORD),
    lookUp(WORD, portMap(group).name, WORD),
    translate('dnat', group.version === 'v4' ? 'ip' : 'ip6', { address: WORD, port: WORD + words[group.version] }),
  ],
})

const bitOf = (bit: number): Uint8Array => {
  const out = new Uint8Array(4)
  new DataView(out.buffer).setUint32(0, (1 << bit) >>> 0, true)
  return out
}

/**
 * Notes in a bit of the connection's mark, of which the others stay, that its source is to be replaced. A mark of the
 * packet would lead it elsewhere where a routing rule knows the bit, and the packets after it not: no rule sees those here.
 */
const nearRule = (group: NearGroup): Rule => {
  const { version, length, bit } = group
  const bits = bitOf(bit)
  const bytes = words[version] * 4
  return {
    expressions: [
      ...(group.conditions.length === 0 ? isVersion(version) : conditionsOf(group)),
      loadField(addressFields[version].source, WORD),
      ...(length === bytes * 8 ? [] : [mask(WORD, maskOf(length, bytes))]),
      ...loadAsked(group, WORD + words[version]),
      isIn(WORD, nearSet(group).name),
      loadConnection('mark', KEY),
      mask(
        KEY,
        bits.map(byte => ~byte),
        bits,
      ),
      setConnectionMark(KEY),
    ],
  }
}

const replacedRule = (bit: number): Rule => ({
  expressions: [loadConnection('mark', KEY), mask(KEY, bitOf(bit)), compare(KEY, '==', bitOf(bit)), masquerade()],
})

const groups = { to: perVersion(groupOf('to')), any: perVersion(groupOf('any')) }
function groupOf(target: PortGroup['target']) {
  return (version: IpVersion): PortGroup => ({ target, version, conditions: [] })
}
const targets = ['to', 'any'] as const

/** linux/rtnetlink.h, RTN_LOCAL, in host order; linux/netfilter/nf_conntrack_common.h, IPS_DST_NAT. */
const RTN_LOCAL = Uint8Array.of(2, 0, 0, 0)
const IPS_DST_NAT = Uint8Array.of(32, 0, 0, 0)

const toOwnAddress: Rule = {
  comment: 'to an address of the node',
  expressions: [loadDestinationType(KEY), compare(KEY, '==', RTN_LOCAL), give({ jump: ports.name })],
}

const fromOutside = (expressions: Expression[]): Rule => ({
  comment: 'loopback addresses are for the node alone',
  expressions: [...expressions, loadMeta('iifname', KEY), compare(KEY, '!=', linkName('lo')), count(), give('drop')],
})
const linkName = (name: string): Uint8Array => {
  const out = new Uint8Array(16)
  out.set(new TextEncoder().encode(name))
  return out
}
const LOOPBACK4 = '127.0.0.0/8'

/** Leads ports of the node to pods. Made for the first pod that asks. */
export const portmap: Part = {
  sets: targets.flatMap(target => ipVersions.map(version => portMap(groups[target][version]))),
  chains: [
    ...[near.to, near.any, conditional.to, conditional.any].map(each => ({ chain: each, rules: [] })),
    {
      chain: ports,
      rules: [
        {
          // A packet from ::1 cannot leave the node, so a connection to it is never answered by a pod: it stays here.
          comment: 'never leaves the node',
          expressions: [...isWithin('v6', 'destination', LOOPBACK6), give('return')],
        },
        ...targets.flatMap((target): Rule[] => [
          { expressions: [give({ jump: near[target].name })] },
          { expressions: [give({ jump: conditional[target].name })] },
          ...ipVersions.map(version => portRule(groups[target][version])),
        ]),
      ],
    },
    { chain: replaced, rules: [] },
    // Behind all that stands at the usual priority: who published a port first in kube-proxy or Docker keeps it.
    { chain: nat('prerouting', -99), rules: [toOwnAddress] },
    { chain: nat('output', -99), rules: [toOwnAddress] },
    {
      // Before the masquerading of others, which would end the search.
      chain: nat('postrouting', 99),
      rules: [
        {
          comment: 'destination was translated',
          expressions: [
            loadConnection('status', KEY),
            mask(KEY, IPS_DST_NAT),
            compare(KEY, '!=', new Uint8Array(4)),
            give({ jump: replaced.name }),
          ],
        },
      ],
    },
    {
      // What `route_localnet` on a pod's link would let in. Answers to the node's own 127.0.0.1 are translated later.
      chain: chain('loopback', { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' }),
      rules: (['source', 'destination'] as const).map(end => fromOutside(isWithin('v4', end, LOOPBACK4))),
    },
  ],
}

/** What differs from node to node. */
export type PortmapNeeds = { readonly maps: readonly PortGroup[]; readonly sets: readonly NearGroup[] }

/**
 * The changes that give the part what is needed beyond itself.
 * @param made names of the table's sets
 * @param renewed the chains are made anew, without the rules for what is made already
 */
export function addPortmapNeeds(needs: PortmapNeeds, made: readonly string[], renewed: boolean): Change[] {
  const oldMaps = made.flatMap(name => parsePortMap(name) ?? []).filter(group => group.conditions.length > 0)
  const oldSets = made.flatMap(name => parseNearSet(name) ?? [])
  const isNew = (set: NamedSet) => !made.includes(set.name)
  const newMaps = needs.maps.filter(group => group.conditions.length > 0 && isNew(portMap(group)))
  const newSets = needs.sets.filter(group => isNew(nearSet(group)))
  const rulesOfMaps = renewed ? [...oldMaps, ...newMaps] : newMaps
  const rulesOfSets = renewed ? [...oldSets, ...newSets] : newSets
  const knownBits = renewed ? [] : oldSets.map(({ bit }) => bit)
  return [
    ...[...newMaps.map(portMap), ...newSets.map(nearSet)].map(set => addSet(set, { exclusive: true })),
    ...portmapRules({ maps: rulesOfMaps, sets: rulesOfSets }, knownBits).map(({ chain, rule }) => addRule(chain, rule)),
  ]
}

/** The rules that these need beside those of the part. @param knownBits of the connection's mark, that have their rule */
export function portmapRules({ maps, sets }: PortmapNeeds, knownBits: readonly number[] = []): ChainRule[] {
  const bits = new Set(sets.map(({ bit }) => bit).filter(bit => !knownBits.includes(bit)))
  return [
    ...maps
      .filter(({ conditions }) => conditions.length > 0)
      .map(group => ({ chain: conditional[group.target], rule: portRule(group) })),
    ...sets.map(group => ({ chain: near[group.target], rule: nearRule(group) })),
    ...[...bits].map(bit => ({ chain: replaced, rule: replacedRule(bit) })),
  ]
}

/** Networks from which every connection's source is replaced. */
export const everywhere = { v4: parsePrefix('0.0.0.0/0'), v6: parsePrefix('::/0') } as const
/** Where the node's own connections by localhost come from. */
export const localhost: Prefix = parsePrefix(LOOPBACK4)
