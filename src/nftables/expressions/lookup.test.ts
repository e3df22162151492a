// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ruleAttributes } from '../rule.ts'
import { compare } from './cmp.ts'
import { give } from './immediate.ts'
import { isIn, isNotIn, lookUp } from './lookup.ts'
import { loadMeta } from './meta.ts'
import { translate } from './nat.ts'
import { loadField } from './payload.ts'

// Bytes captured from nft 1.0.6 (strace of its sendmsg), from the family header on, one attribute per line.
// As with elements, nft writes the set's number within its batch, ours leave it out.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const isV4 = [loadMeta('nfproto', 1), compare(1, '==', Uint8Array.of(2))]

test('addRule: lookup of a concatenated key as nft does', () => {
  // nft 'add rule inet mooring b iifname . ip saddr != @s drop'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_RULE_TABLE mooring
    '0600020062000000', // NFTA_RULE_CHAIN
    '10010480', // NFTA_RULE_EXPRESSIONS
    '24000180', //   NFTA_LIST_ELEM
    '090001006d65746100000000', //     NFTA_EXPR_NAME meta
    '14000280', //     NFTA_EXPR_DATA
    '080002000000000f', //       NFTA_META_KEY 0xf
    '0800010000000001', //       NFTA_META_DREG 0x1
    '2c000180', //   NFTA_LIST_ELEM
    '08000100636d7000', //     NFTA_EXPR_NAME cmp
    '20000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_CMP_SREG 0x1
    '0800020000000000', //       NFTA_CMP_OP 0x0
    '0c000380', //       NFTA_CMP_DATA
    '0500010002000000', //         NFTA_DATA_VALUE
    '24000180', //   NFTA_LIST_ELEM
    '090001006d65746100000000', //     NFTA_EXPR_NAME meta
    '14000280', //     NFTA_EXPR_DATA
    '0800020000000006', //       NFTA_META_KEY 0x6
    '0800010000000001', //       NFTA_META_DREG 0x1
    '34000180', //   NFTA_LIST_ELEM
    '0c0001007061796c6f616400', //     NFTA_EXPR_NAME payload
    '24000280', //     NFTA_EXPR_DATA
    '0800010000000002', //       NFTA_PAYLOAD_DREG 0x2
    '0800020000000001', //       NFTA_PAYLOAD_BASE 0x1
    '080003000000000c', //       NFTA_PAYLOAD_OFFSET 0xc
    '0800040000000004', //       NFTA_PAYLOAD_LEN 0x4
    '34000180', //   NFTA_LIST_ELEM
    '0b0001006c6f6f6b75700000', //     NFTA_EXPR_NAME lookup
    '24000280', //     NFTA_EXPR_DATA
    '0800020000000001', //       NFTA_LOOKUP_SREG 0x1
    '0600010073000000', //       NFTA_LOOKUP_SET
    '0800040000000001', //       NFTA_LOOKUP_SET_ID 0x1
    '0800050000000001', //       NFTA_LOOKUP_FLAGS 0x1
    '30000180', //   NFTA_LIST_ELEM
    '0e000100696d6d656469617465000000', //     NFTA_EXPR_NAME immediate
    '1c000280', //     NFTA_EXPR_DATA
    '0800010000000000', //       NFTA_IMMEDIATE_DREG 0x0
    '10000280', //       NFTA_IMMEDIATE_DATA
    '0c000280', //         NFTA_DATA_VERDICT
    '0800010000000000', //           NFTA_VERDICT_CODE 0x0
  )
  const expressions = [...isV4, loadMeta('iifname', 1), loadField('ip saddr', 2), isNotIn(1, 's'), give('drop')]
  const { expressions: theirs } = ruleAttributes.decode(bytes.subarray(4))
  assert.deepEqual(theirs?.map(withoutSetId), expressions)
  assert.deepEqual(ruleAttributes.encode(ruleAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  assert.deepEqual(isIn(1, 's').data, { register: 1, set: 's' })
})

test('addRule: lookup in a map as nft does', () => {
  // nft 'add rule inet mooring n snat ip to ip saddr map @m'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_RULE_TABLE mooring
    '060002006e000000', // NFTA_RULE_CHAIN
    'e4000480', // NFTA_RULE_EXPRESSIONS
    '24000180', //   NFTA_LIST_ELEM
    '090001006d65746100000000', //     NFTA_EXPR_NAME meta
    '14000280', //     NFTA_EXPR_DATA
    '080002000000000f', //       NFTA_META_KEY 0xf
    '0800010000000001', //       NFTA_META_DREG 0x1
    '2c000180', //   NFTA_LIST_ELEM
    '08000100636d7000', //     NFTA_EXPR_NAME cmp
    '20000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_CMP_SREG 0x1
    '0800020000000000', //       NFTA_CMP_OP 0x0
    '0c000380', //       NFTA_CMP_DATA
    '0500010002000000', //         NFTA_DATA_VALUE
    '34000180', //   NFTA_LIST_ELEM
    '0c0001007061796c6f616400', //     NFTA_EXPR_NAME payload
    '24000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_PAYLOAD_DREG 0x1
    '0800020000000001', //       NFTA_PAYLOAD_BASE 0x1
    '080003000000000c', //       NFTA_PAYLOAD_OFFSET 0xc
    '0800040000000004', //       NFTA_PAYLOAD_LEN 0x4
    '34000180', //   NFTA_LIST_ELEM
    '0b0001006c6f6f6b75700000', //     NFTA_EXPR_NAME lookup
    '24000280', //     NFTA_EXPR_DATA
    '0800020000000001', //       NFTA_LOOKUP_SREG 0x1
    '0800030000000001', //       NFTA_LOOKUP_DREG 0x1
    '060001006d000000', //       NFTA_LOOKUP_SET
    '0800040000000001', //       NFTA_LOOKUP_SET_ID 0x1
    '28000180', //   NFTA_LIST_ELEM
    '080001006e617400', //     NFTA_EXPR_NAME nat
    '1c000280', //     NFTA_EXPR_DATA
    '0800010000000000', //       NFTA_NAT_TYPE 0x0
    '0800020000000002', //       NFTA_NAT_FAMILY 0x2
    '0800030000000001', //       NFTA_NAT_REG_ADDR_MIN 0x1
  )
  const expressions = [...isV4, loadField('ip saddr', 1), lookUp(1, 'm', 1), translate('snat', 'ip', { address: 1 })]
  const { expressions: theirs } = ruleAttributes.decode(bytes.subarray(4))
  assert.deepEqual(theirs?.map(withoutSetId), expressions)
})

function withoutSetId<T extends { kind: string; data?: unknown }>(expression: T) {
  if (expression.kind !== 'lookup') return expression
  const { setId: _, ...data } = expression.data as { setId?: number }
  return { ...expression, data }
}
