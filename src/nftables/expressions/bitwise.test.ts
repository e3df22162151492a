// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addRule, ruleAttributes } from '../rule.ts'
import { mask } from './bitwise.ts'
import { compare } from './cmp.ts'
import { give } from './immediate.ts'
import { loadMeta } from './meta.ts'
import { loadField } from './payload.ts'

// Bytes captured from nft 1.0.6 (strace of its sendmsg), from the family header on, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const table = { family: 'inet', name: 'mooring' } as const
const isV4 = [loadMeta('nfproto', 1), compare(1, '==', Uint8Array.of(2))]

test('addRule: bitwise as nft does', () => {
  // nft 'add rule inet mooring b ip daddr 10.0.0.0/9 drop'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_RULE_TABLE mooring
    '0600020062000000', // NFTA_RULE_CHAIN
    '28010480', // NFTA_RULE_EXPRESSIONS
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
    '0800030000000010', //       NFTA_PAYLOAD_OFFSET 0x10
    '0800040000000004', //       NFTA_PAYLOAD_LEN 0x4
    '44000180', //   NFTA_LIST_ELEM
    '0c0001006269747769736500', //     NFTA_EXPR_NAME bitwise
    '34000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_BITWISE_SREG 0x1
    '0800020000000001', //       NFTA_BITWISE_DREG 0x1
    '0800030000000004', //       NFTA_BITWISE_LEN 0x4
    '0c000480', //       NFTA_BITWISE_MASK
    '08000100ff800000', //         NFTA_DATA_VALUE 0xff800000
    '0c000580', //       NFTA_BITWISE_XOR
    '0800010000000000', //         NFTA_DATA_VALUE 0x0
    '2c000180', //   NFTA_LIST_ELEM
    '08000100636d7000', //     NFTA_EXPR_NAME cmp
    '20000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_CMP_SREG 0x1
    '0800020000000000', //       NFTA_CMP_OP 0x0
    '0c000380', //       NFTA_CMP_DATA
    '080001000a000000', //         NFTA_DATA_VALUE 0xa000000
    '30000180', //   NFTA_LIST_ELEM
    '0e000100696d6d656469617465000000', //     NFTA_EXPR_NAME immediate
    '1c000280', //     NFTA_EXPR_DATA
    '0800010000000000', //       NFTA_IMMEDIATE_DREG 0x0
    '10000280', //       NFTA_IMMEDIATE_DATA
    '0c000280', //         NFTA_DATA_VERDICT
    '0800010000000000', //           NFTA_VERDICT_CODE 0x0
  )
  const change = addRule(
    { table, name: 'b' },
    {
      expressions: [
        ...isV4,
        loadField('ip daddr', 1),
        mask(1, Uint8Array.of(255, 128, 0, 0)),
        compare(1, '==', Uint8Array.of(10, 0, 0, 0)),
        give('drop'),
      ],
    },
  )
  assert.deepEqual(change.body, bytes)
  assert.deepEqual(ruleAttributes.encode(ruleAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  assert.equal(change.flags, 0xc00)
})
