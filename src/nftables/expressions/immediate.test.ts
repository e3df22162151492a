// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addRule, ruleAttributes } from '../rule.ts'
import { give } from './immediate.ts'

// Bytes captured from nft 1.0.6 (strace of its sendmsg), from the family header on, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const table = { family: 'inet', name: 'mooring' } as const

test('addRule: goto as nft does', () => {
  // nft 'add rule inet mooring n goto c'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_RULE_TABLE mooring
    '060002006e000000', // NFTA_RULE_CHAIN
    '3c000480', // NFTA_RULE_EXPRESSIONS
    '38000180', //   NFTA_LIST_ELEM
    '0e000100696d6d656469617465000000', //     NFTA_EXPR_NAME immediate
    '24000280', //     NFTA_EXPR_DATA
    '0800010000000000', //       NFTA_IMMEDIATE_DREG 0x0
    '18000280', //       NFTA_IMMEDIATE_DATA
    '14000280', //         NFTA_DATA_VERDICT
    '08000100fffffffc', //           NFTA_VERDICT_CODE 0xfffffffc
    '0600020063000000', //           NFTA_VERDICT_CHAIN
  )
  const change = addRule({ table, name: 'n' }, { expressions: [give({ goto: 'c' })] })
  assert.deepEqual(change.body, bytes)
  assert.deepEqual(ruleAttributes.encode(ruleAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  assert.equal(change.flags, 0xc00)
})
