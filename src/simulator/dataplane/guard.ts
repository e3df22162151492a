// SPDX-License-Identifier: Apache-2.0

/**
 * Port security: what a guarded tap may send, by MAC and address, as one nf_tables table of the fabric's bridges.
 * Packets and ARP from anything else are dropped before the bridge learns from them.
 */
import { parsePrefix, tryParseMac } from '#base'
import {
  addChain,
  addElement,
  addRule,
  addSet,
  addTable,
  type Chain,
  type Change,
  compare,
  count,
  deleteTable,
  type Element,
  type Expression,
  give,
  isIn,
  isNotIn,
  loadField,
  loadMeta,
  mask,
  type NamedSet,
  type Table,
} from '#nftables'
import type { Policy, Source } from './wire.ts'

const table: Table = { family: 'bridge', name: 'mooring_fabric' }
const guarded: NamedSet = { table, name: 'guarded', key: ['ifname'] }
const hosts = {
  v4: { table, name: 'hosts_v4', key: ['ifname', 'ether_addr', 'ipv4_addr'] },
  v6: { table, name: 'hosts_v6', key: ['ifname', 'ether_addr', 'ipv6_addr'] },
} satisfies Record<string, NamedSet>
const networks = {
  v4: { ...hosts.v4, name: 'networks_v4', interval: true },
  v6: { ...hosts.v6, name: 'networks_v6', interval: true },
} satisfies Record<string, NamedSet>
const chain: Chain = {
  table,
  name: 'prerouting',
  base: { type: 'filter', hook: 'prerouting', priority: -200, policy: 'accept' },
}

/** ETH_P_* (linux/if_ether.h), in network order. */
const etherTypes = { arp: [0x08, 0x06], v4: [0x08, 0x00], v6: [0x86, 0xdd] } as const

// A concatenated key lies in 32-bit registers, which are numbered from 8: a name fills four, a MAC two.
const KEY = 1
const KEY_MAC = 12
const KEY_ADDRESS = 14

const isType = (type: keyof typeof etherTypes): Expression[] => [
  loadMeta('protocol', KEY),
  compare(KEY, '==', Uint8Array.from(etherTypes[type])),
]
const key = (type: keyof typeof etherTypes, field: 'ip saddr' | 'ip6 saddr' | 'arp saddr ip'): Expression[] => [
  ...isType(type),
  loadMeta('iifname', KEY),
  loadField('ether saddr', KEY_MAC),
  loadField(field, KEY_ADDRESS),
]

/** What is known passes; the rest of that type is dropped. */
const checked = (
  type: keyof typeof etherTypes,
  field: 'ip saddr' | 'ip6 saddr' | 'arp saddr ip',
  version: 'v4' | 'v6',
): Change[] => [
  addRule(chain, { expressions: [...key(type, field), isIn(KEY, hosts[version].name), give('accept')] }),
  addRule(chain, { expressions: [...key(type, field), isIn(KEY, networks[version].name), give('accept')] }),
  addRule(chain, { comment: 'not an address of the port', expressions: [...isType(type), count(), give('drop')] }),
]

const fromNetwork = (address: Uint8Array, bits: Uint8Array): Expression[] => [
  ...isType('v6'),
  loadField('ip6 saddr', KEY),
  mask(KEY, bits),
  compare(KEY, '==', address),
]
const bytes16 = (...first: number[]): Uint8Array => Uint8Array.from({ length: 16 }, (_, at) => first[at] ?? 0)

const rules = (): Change[] => [
  addRule(chain, {
    comment: 'no port security',
    expressions: [loadMeta('iifname', KEY), isNotIn(KEY, guarded.name), give('accept')],
  }),
  ...checked('arp', 'arp saddr ip', 'v4'),
  ...checked('v4', 'ip saddr', 'v4'),
  // Neighbour discovery and the search for a free address.
  addRule(chain, { expressions: [...fromNetwork(bytes16(0xfe, 0x80), bytes16(0xff, 0xc0)), give('accept')] }),
  addRule(chain, { expressions: [...fromNetwork(bytes16(), bytes16().fill(0xff)), give('accept')] }),
  ...checked('v6', 'ip6 saddr', 'v6'),
]

function elementOf(source: Source): { set: NamedSet; element: Element } {
  const { ip, length } = parsePrefix(source.prefix)
  const version = ip.length === 4 ? 'v4' : 'v6'
  const mac = tryParseMac(source.mac) ?? new Uint8Array(6)
  if (length === ip.length * 8) return { set: hosts[version], element: { key: [source.tap, mac, ip] } }
  const last = ip.map((byte, at) => byte | (0xff >> Math.min(8, Math.max(0, length - at * 8))))
  return { set: networks[version], element: { key: [source.tap, mac, ip], end: [source.tap, mac, last] } }
}

/** The table from scratch, in one batch: nothing passes unseen while it is replaced. */
export const guardChanges = (policy: Policy): Change[] => [
  addTable(table),
  deleteTable(table),
  addTable(table),
  ...[guarded, hosts.v4, hosts.v6, networks.v4, networks.v6].map(set => addSet(set)),
  addChain(chain),
  ...rules(),
  ...policy.guarded.map(tap => addElement(guarded, { key: [tap] })),
  ...policy.sources.map(elementOf).map(({ set, element }) => addElement(set, element)),
]
