// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addRule, ruleAttributes } from '../rule.ts'
import { compare } from './cmp.ts'
import { loadDestinationType } from './fib.ts'
import { give } from './immediate.ts'

// Bytes captured from nft 1.0.6 (strace of its sendmsg), from the family header on, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const table = { family: 'inet', name: 'mooring' } as const

test('addRule: fib as nft does', () => {
  // nft 'add rule inet mooring b fib daddr type local accept'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_RULE_TABLE mooring
    '0600020062000000', // NFTA_RULE_CHAIN
    '88000480', // NFTA_RULE_EXPRESSIONS
    '28000180', //   NFTA_LIST_ELEM
    '0800010066696200', //     NFTA_EXPR_NAME fib
    '1c000280', //     NFTA_EXPR_DATA
    '0800030000000002', //       NFTA_FIB_FLAGS 0x2
    '0800020000000003', //       NFTA_FIB_RESULT 0x3
    '0800010000000001', //       NFTA_FIB_DREG 0x1
    '2c000180', //   NFTA_LIST_ELEM
    '08000100636d7000', //     NFTA_EXPR_NAME cmp
    '20000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_CMP_SREG 0x1
    '0800020000000000', //       NFTA_CMP_OP 0x0
    '0c000380', //       NFTA_CMP_DATA
    '0800010002000000', //         NFTA_DATA_VALUE 0x2000000
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
    { expressions: [loadDestinationType(1), compare(1, '==', Uint8Array.of(2, 0, 0, 0)), give('accept')] },
  )
  assert.deepEqual(change.body, bytes)
  assert.deepEqual(ruleAttributes.encode(ruleAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  assert.equal(change.flags, 0xc00)
})
