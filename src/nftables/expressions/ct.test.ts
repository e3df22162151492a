// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addRule, ruleAttributes } from '../rule.ts'
import { compare } from './cmp.ts'
import { loadConnection, loadOriginal, setConnectionMark } from './ct.ts'
import { give, loadValue } from './immediate.ts'
import { isIn } from './lookup.ts'
import { loadMeta, setMark } from './meta.ts'

// Bytes captured from nft 1.0.6 (strace of its sendmsg), from the family header on, one attribute per line.
// As with elements, nft writes the set's number within its batch, ours leave it out.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const table = { family: 'inet', name: 'mooring' } as const

test('addRule: marks of packet and connection as nft does', () => {
  // nft 'add rule inet mooring b meta mark set 0x1 ct mark set 0x1'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_RULE_TABLE mooring
    '0600020062000000', // NFTA_RULE_CHAIN
    'a0000480', // NFTA_RULE_EXPRESSIONS
    '2c000180', //   NFTA_LIST_ELEM
    '0e000100696d6d656469617465000000', //     NFTA_EXPR_NAME immediate
    '18000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_IMMEDIATE_DREG 0x1
    '0c000280', //       NFTA_IMMEDIATE_DATA
    '0800010001000000', //         NFTA_DATA_VALUE 0x1000000
    '24000180', //   NFTA_LIST_ELEM
    '090001006d65746100000000', //     NFTA_EXPR_NAME meta
    '14000280', //     NFTA_EXPR_DATA
    '0800020000000003', //       NFTA_META_KEY 0x3
    '0800030000000001', //       NFTA_META_SREG 0x1
    '2c000180', //   NFTA_LIST_ELEM
    '0e000100696d6d656469617465000000', //     NFTA_EXPR_NAME immediate
    '18000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_IMMEDIATE_DREG 0x1
    '0c000280', //       NFTA_IMMEDIATE_DATA
    '0800010001000000', //         NFTA_DATA_VALUE 0x1000000
    '20000180', //   NFTA_LIST_ELEM
    '0700010063740000', //     NFTA_EXPR_NAME ct
    '14000280', //     NFTA_EXPR_DATA
    '0800020000000003', //       NFTA_CT_KEY 0x3
    '0800040000000001', //       NFTA_CT_SREG 0x1
  )
  const change = addRule(
    { table, name: 'b' },
    {
      expressions: [
        loadValue(1, Uint8Array.of(1, 0, 0, 0)),
        setMark(1),
        loadValue(1, Uint8Array.of(1, 0, 0, 0)),
        setConnectionMark(1),
      ],
    },
  )
  assert.deepEqual(change.body, bytes)
  assert.deepEqual(ruleAttributes.encode(ruleAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  assert.equal(change.flags, 0xc00)
})

test('addRule: ct as nft does', () => {
  // nft 'add rule inet mooring b ct mark 0x1 accept'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_RULE_TABLE mooring
    '0600020062000000', // NFTA_RULE_CHAIN
    '80000480', // NFTA_RULE_EXPRESSIONS
    '20000180', //   NFTA_LIST_ELEM
    '0700010063740000', //     NFTA_EXPR_NAME ct
    '14000280', //     NFTA_EXPR_DATA
    '0800020000000003', //       NFTA_CT_KEY 0x3
    '0800010000000001', //       NFTA_CT_DREG 0x1
    '2c000180', //   NFTA_LIST_ELEM
    '08000100636d7000', //     NFTA_EXPR_NAME cmp
    '20000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_CMP_SREG 0x1
    '0800020000000000', //       NFTA_CMP_OP 0x0
    '0c000380', //       NFTA_CMP_DATA
    '0800010001000000', //         NFTA_DATA_VALUE 0x1000000
    '30000180', //   NFTA_LIST_ELEM
    '0e000100696d6d656469617465000000', //     NFTA_EXPR_NAME immediate
    '1c000280', //     NFTA_EXPR_DATA
    '0800010000000000', //       NFTA_IMMEDIATE_DREG 0x0
    '10000280', //       NFTA_IMMEDIATE_DATA
    '0c000280', //         NFTA_DATA_VERDICT
    '0800010000000001', //           NFTA_VERDICT_CODE 0x1
  )
  const change = addRule(
    { table, name: 'b' },
    { expressions: [loadConnection('mark', 1), compare(1, '==', Uint8Array.of(1, 0, 0, 0)), give('accept')] },
  )
  assert.deepEqual(change.body, bytes)
  assert.deepEqual(ruleAttributes.encode(ruleAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  assert.equal(change.flags, 0xc00)
})

test('addRule: the sender that began the connection as nft does', () => {
  // nft 'add rule inet mooring b ct direction reply iifname . ct original ip saddr @s accept'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_RULE_TABLE mooring
    '0600020062000000', // NFTA_RULE_CHAIN
    'f8000480', // NFTA_RULE_EXPRESSIONS
    '2000018007000100637400001400028008000200000000010800010000000001', //   ct
    '2c00018008000100636d700020000280080001000000000108000200000000000c0003800500010001000000', //   cmp
    '24000180090001006d657461000000001400028008000200000000060800010000000001', //   meta
    '2800018007000100637400001c000280080002000000001308000100000000020500030000000000', //   ct
    '2c0001800b0001006c6f6f6b757000001c000280080002000000000106000100730000000800040000000001', //   lookup
    '300001800e000100696d6d6564696174650000001c0002800800010000000000100002800c0002800800010000000001', //   immediate
  )
  const expressions = [
    loadConnection('direction', 1),
    compare(1, '==', Uint8Array.of(1)),
    loadMeta('iifname', 1),
    loadOriginal('ip saddr', 2),
    isIn(1, 's'),
    give('accept'),
  ]
  // nft names the set by its number in the batch as well.
  const captured = ruleAttributes.decode(bytes.subarray(4)).expressions?.map(withoutSetId)
  assert.deepEqual(captured, expressions)
})

function withoutSetId<T extends { kind: string; data?: unknown }>(expression: T) {
  if (expression.kind !== 'lookup') return expression
  const { setId: _, ...data } = expression.data as { setId?: number }
  return { ...expression, data }
}
