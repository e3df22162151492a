// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parsePrefix } from '#base'
import { type Change, ruleAttributes } from '#nftables'
import {
  addPortmapNeeds,
  type Condition,
  fitsName,
  nearSet,
  parseNearSet,
  parsePortMap,
  portMap,
  portmap,
} from './portmap-rules.ts'

const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
type Loose = { kind: string; data?: { [key: string]: unknown } }
/** What only nft writes: the set's number within its batch, the operation of bitwise; and how registers are numbered. */
const plain = (expressions: readonly unknown[]) =>
  (expressions as Loose[]).map(({ kind, data }) => {
    const { setId: _id, flags: _flags, ...rest } = data ?? {}
    if (kind === 'bitwise') delete rest['operator']
    for (const name of ['register', 'destination', 'address', 'port', 'source'])
      if (typeof rest[name] === 'number' && rest[name] >= 1 && rest[name] <= 4) rest[name] = 8 + (rest[name] - 1) * 4
    return { kind, data: rest }
  })
const expressionsOf = (body: Uint8Array) => plain(ruleAttributes.decode(body).expressions ?? [])
const rulesOf = (name: string) => portmap.chains.find(({ chain }) => chain.name === name)!.rules

const conditions: Condition[] = [
  { end: 'source', negated: true, network: parsePrefix('192.0.2.0/24') },
  { end: 'destination', negated: false, network: parsePrefix('10.0.0.8/32') },
]

test('portmap: leads a port at one address as nft does', () => {
  // Captured from nft 1.0.6: dnat ip to ip daddr . meta l4proto . th dport map @portmap_to_v4
  const bytes = golden(
    '50010480',
    '24000180090001006d6574610000000014000280080002000000000f0800010000000001', // meta nfproto
    '2c00018008000100636d700020000280080001000000000108000200000000000c0003800500010002000000', // cmp
    '340001800c0001007061796c6f6164002400028008000100000000010800020000000001', // payload, network header
    '08000300000000100800040000000004', //   daddr
    '24000180090001006d657461000000001400028008000200000000100800010000000009', // meta l4proto into 9
    '340001800c0001007061796c6f61640024000280080001000000000a0800020000000002', // payload, transport header, into 10
    '08000300000000020800040000000002', //   dport
    '400001800b0001006c6f6f6b757000003000028008000200000000010800030000000001', // lookup from 1 into 1
    '12000100706f72746d61705f746f5f76340000000800040000000002',
    '30000180080001006e617400240002800800010000000001080002000000000208000300000000010800050000000009', // nat
  )
  const rule = rulesOf('portmap_ports').find(({ expressions }) => JSON.stringify(expressions).includes('portmap_to_v4'))
  assert.deepEqual(plain(rule!.expressions), expressionsOf(bytes))
})

test('addPortmapNeeds: notes whose source is replaced as nft does', () => {
  // Captured from nft 1.0.6: ip6 saddr & ffff:ffff:ffff:ffff:: . ip6 daddr . meta l4proto . th dport
  // @masqto6 ct mark set ct mark | 0x2000
  const bytes = golden(
    '34020480',
    '24000180090001006d6574610000000014000280080002000000000f0800010000000001',
    '2c00018008000100636d700020000280080001000000000108000200000000000c000380050001000a000000',
    '340001800c0001007061796c6f616400240002800800010000000001080002000000000108000300000000080800040000000010',
    '640001800c000100626974776973650054000280080001000000000108000200000000010800060000000000',
    '08000300000000101800048014000100ffffffffffffffff0000000000000000',
    '180005801400010000000000000000000000000000000000',
    '340001800c0001007061796c6f616400240002800800010000000002080002000000000108000300000000180800040000000010',
    '24000180090001006d657461000000001400028008000200000000100800010000000003',
    '340001800c0001007061796c6f616400240002800800010000000011080002000000000208000300000000020800040000000002',
    '300001800b0001006c6f6f6b757000002000028008000200000000010c0001006d617371746f36000800040000000007',
    '2000018007000100637400001400028008000200000000030800010000000001',
    '4c0001800c00010062697477697365003c00028008000100000000010800020000000001080006000000000008000300000000040c00048008000100ffdfffff0c0005800800010000200000',
    '2000018007000100637400001400028008000200000000030800040000000001',
  )
  const group = { target: 'to', version: 'v6', conditions: [], length: 64, bit: 13 } as const
  const changes = addPortmapNeeds({ maps: [], sets: [group] }, [], false)
  const ours = changes.find(({ about }) => /^add rule .*portmap_near_to$/.test(about))
  const named = expressionsOf(bytes).map(each =>
    each.kind === 'lookup' ? { ...each, data: { ...each.data, set: nearSet(group).name } } : each,
  )
  assert.deepEqual(expressionsOf(ours!.body.subarray(4)), named)
})

test('portMap, nearSet: their names say all that their rules need', () => {
  for (const target of ['to', 'any'] as const)
    for (const list of [[], conditions]) {
      const group = { target, version: 'v4', conditions: list } as const
      assert.deepEqual(parsePortMap(portMap(group).name), group)
      const near = { ...group, length: 24, bit: 31 }
      assert.deepEqual(parseNearSet(nearSet(near).name), near)
      assert.equal(parsePortMap(nearSet(near).name), undefined)
      assert.equal(parseNearSet(portMap(group).name), undefined)
    }
  assert.equal(
    portMap({ target: 'any', version: 'v4', conditions }).name,
    'portmap_any_v4_ns_c0000200_24_d_0a000008_32',
  )
  assert.equal(parsePortMap('pod_links'), undefined)
})

test('fitsName: refuses more conditions than the name of a set holds', () => {
  const one: Condition = { end: 'source', negated: true, network: parsePrefix('2001:db8::/32') }
  assert.ok(fitsName(Array(5).fill(one)))
  assert.ok(!fitsName(Array(6).fill(one)))
})

const about = (changes: readonly Change[]) => changes.map(change => change.about.replace(/ inet mooring/, ''))

test('addPortmapNeeds: adds what is not there yet; in chains made anew also the rules of what is', () => {
  const group = { target: 'any', version: 'v4', conditions: [] } as const
  const [first, second] = [24, 16].map(length => ({ ...group, length, bit: 13 })) as [never, never]
  assert.deepEqual(about(addPortmapNeeds({ maps: [group], sets: [first] }, [], false)), [
    'add set portmap_near_any_v4_24_13',
    'add rule of chain portmap_near_any',
    'add rule of chain portmap_replaced',
  ])
  const made = ['portmap_near_any_v4_24_13', 'pod_links', 'portmap_any_v4']
  assert.deepEqual(addPortmapNeeds({ maps: [group], sets: [first] }, made, false), [])
  assert.deepEqual(about(addPortmapNeeds({ maps: [], sets: [second] }, made, false)), [
    'add set portmap_near_any_v4_16_13',
    'add rule of chain portmap_near_any',
  ])
  const conditional = portMap({ ...group, conditions }).name
  assert.deepEqual(about(addPortmapNeeds({ maps: [], sets: [] }, [...made, conditional], true)), [
    'add rule of chain portmap_conditional_any',
    'add rule of chain portmap_near_any',
    'add rule of chain portmap_replaced',
  ])
})
