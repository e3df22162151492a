// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addRule } from '../rule.ts'
import { compare } from './cmp.ts'
import { forward } from './forward.ts'
import { loadValue } from './immediate.ts'
import { loadMeta } from './meta.ts'
import { payloadAttributes, storeField } from './payload.ts'

// Bytes captured from nft 1.0.6 (strace of its sendmsg), from the family header on, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))

test('addRule: writes header fields and sends the packet out of a link, as nft does', () => {
  // nft 'add rule netdev mooring c arp operation set reply fwd to "v1"', where v1 has the number 3
  const bytes = golden(
    '05000000', // nfgenmsg: netdev
    '0c0001006d6f6f72696e6700', // NFTA_RULE_TABLE mooring
    '0600020063000000', // NFTA_RULE_CHAIN
    'f8000480', // NFTA_RULE_EXPRESSIONS
    '24000180', //   NFTA_LIST_ELEM
    '090001006d65746100000000', //     NFTA_EXPR_NAME meta
    '14000280', //     NFTA_EXPR_DATA
    '0800020000000001', //       NFTA_META_KEY protocol
    '0800010000000001', //       NFTA_META_DREG 0x1
    '2c000180', //   NFTA_LIST_ELEM
    '08000100636d7000', //     NFTA_EXPR_NAME cmp
    '20000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_CMP_SREG 0x1
    '0800020000000000', //       NFTA_CMP_OP 0x0
    '0c000380', //       NFTA_CMP_DATA
    '0600010008060000', //         NFTA_DATA_VALUE
    '2c000180', //   NFTA_LIST_ELEM
    '0e000100696d6d656469617465000000', //     NFTA_EXPR_NAME immediate
    '18000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_IMMEDIATE_DREG 0x1
    '0c000280', //       NFTA_IMMEDIATE_DATA
    '0600010000020000', //         NFTA_DATA_VALUE
    '34000180', //   NFTA_LIST_ELEM
    '0c0001007061796c6f616400', //     NFTA_EXPR_NAME payload
    '24000280', //     NFTA_EXPR_DATA
    '0800050000000001', //       NFTA_PAYLOAD_SREG 0x1
    '0800020000000001', //       NFTA_PAYLOAD_BASE 0x1
    '0800030000000006', //       NFTA_PAYLOAD_OFFSET 0x6
    '0800040000000002', //       NFTA_PAYLOAD_LEN 0x2
    '2c000180', //   NFTA_LIST_ELEM
    '0e000100696d6d656469617465000000', //     NFTA_EXPR_NAME immediate
    '18000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_IMMEDIATE_DREG 0x1
    '0c000280', //       NFTA_IMMEDIATE_DATA
    '0800010003000000', //         NFTA_DATA_VALUE
    '18000180', //   NFTA_LIST_ELEM
    '0800010066776400', //     NFTA_EXPR_NAME fwd
    '0c000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_FWD_SREG_DEV 0x1
  )
  const chain = { table: { family: 'netdev', name: 'mooring' }, name: 'c' } as const
  const expressions = [
    ...[loadMeta('protocol', 1), compare(1, '==', Uint8Array.of(8, 6))],
    ...[loadValue(1, Uint8Array.of(0, 2)), storeField('arp operation', 1)],
    ...[loadValue(1, Uint8Array.of(3, 0, 0, 0)), forward(1)],
  ]
  assert.deepEqual(addRule(chain, { expressions }).body, bytes)
})

test('storeField: says which checksum to make good as nft does', () => {
  // nft 'add rule netdev mooring c ip6 daddr set fd00::1 icmpv6 type set nd-neighbor-advert'
  const address = golden(
    '0800050000000001', // NFTA_PAYLOAD_SREG 0x1
    '0800020000000001', // NFTA_PAYLOAD_BASE 0x1
    '0800030000000018', // NFTA_PAYLOAD_OFFSET 0x18
    '0800040000000010', // NFTA_PAYLOAD_LEN 0x10
    '0800080000000001', // NFTA_PAYLOAD_CSUM_FLAGS pseudo header
  )
  const type = golden(
    '0800050000000001', // NFTA_PAYLOAD_SREG 0x1
    '0800020000000002', // NFTA_PAYLOAD_BASE 0x2
    '0800030000000000', // NFTA_PAYLOAD_OFFSET 0x0
    '0800040000000002', // NFTA_PAYLOAD_LEN 0x2
    '0800060000000001', // NFTA_PAYLOAD_CSUM_TYPE inet
    '0800070000000002', // NFTA_PAYLOAD_CSUM_OFFSET 0x2
  )
  assert.deepEqual(payloadAttributes.encode(storeField('ip6 daddr', 1, 'pseudoHeader').data), address)
  assert.deepEqual(payloadAttributes.encode(storeField('nd type code', 1, 'icmpv6').data), type)
})
