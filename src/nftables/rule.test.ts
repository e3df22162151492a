// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compare } from './expressions/cmp.ts'
import { count } from './expressions/counter.ts'
import { give } from './expressions/immediate.ts'
import { loadMeta } from './expressions/meta.ts'
import { loadField } from './expressions/payload.ts'
import { addRule, deleteRules, findRules, ruleAttributes } from './rule.ts'

// Bytes captured from nft 1.0.6 (strace of its sendmsg), from the family header on, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const table = { family: 'inet', name: 'mooring' } as const
const isTcp = [loadMeta('l4proto', 1), compare(1, '==', Uint8Array.of(6))]

test('addRule: payload and cmp, put first, as nft insert does', () => {
  // nft 'insert rule inet mooring b tcp dport 80 accept'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_RULE_TABLE mooring
    '0600020062000000', // NFTA_RULE_CHAIN
    'e4000480', // NFTA_RULE_EXPRESSIONS
    '24000180', //   NFTA_LIST_ELEM
    '090001006d65746100000000', //     NFTA_EXPR_NAME meta
    '14000280', //     NFTA_EXPR_DATA
    '0800020000000010', //       NFTA_META_KEY 0x10
    '0800010000000001', //       NFTA_META_DREG 0x1
    '2c000180', //   NFTA_LIST_ELEM
    '08000100636d7000', //     NFTA_EXPR_NAME cmp
    '20000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_CMP_SREG 0x1
    '0800020000000000', //       NFTA_CMP_OP 0x0
    '0c000380', //       NFTA_CMP_DATA
    '0500010006000000', //         NFTA_DATA_VALUE
    '34000180', //   NFTA_LIST_ELEM
    '0c0001007061796c6f616400', //     NFTA_EXPR_NAME payload
    '24000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_PAYLOAD_DREG 0x1
    '0800020000000002', //       NFTA_PAYLOAD_BASE 0x2
    '0800030000000002', //       NFTA_PAYLOAD_OFFSET 0x2
    '0800040000000002', //       NFTA_PAYLOAD_LEN 0x2
    '2c000180', //   NFTA_LIST_ELEM
    '08000100636d7000', //     NFTA_EXPR_NAME cmp
    '20000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_CMP_SREG 0x1
    '0800020000000000', //       NFTA_CMP_OP 0x0
    '0c000380', //       NFTA_CMP_DATA
    '0600010000500000', //         NFTA_DATA_VALUE
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
    { expressions: [...isTcp, loadField('th dport', 1), compare(1, '==', Uint8Array.of(0, 80)), give('accept')] },
    { first: true },
  )
  assert.deepEqual(change.body, bytes)
  assert.deepEqual(ruleAttributes.encode(ruleAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  assert.equal(change.flags, 0x400)
})

test('addRule: counter and comment as nft does', () => {
  // nft 'add rule inet mooring b counter drop comment "spoofed"'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_RULE_TABLE mooring
    '0600020062000000', // NFTA_RULE_CHAIN
    '48000480', // NFTA_RULE_EXPRESSIONS
    '14000180', //   NFTA_LIST_ELEM
    '0c000100636f756e74657200', //     NFTA_EXPR_NAME counter
    '04000280', //     NFTA_EXPR_DATA
    '30000180', //   NFTA_LIST_ELEM
    '0e000100696d6d656469617465000000', //     NFTA_EXPR_NAME immediate
    '1c000280', //     NFTA_EXPR_DATA
    '0800010000000000', //       NFTA_IMMEDIATE_DREG 0x0
    '10000280', //       NFTA_IMMEDIATE_DATA
    '0c000280', //         NFTA_DATA_VERDICT
    '0800010000000000', //           NFTA_VERDICT_CODE 0x0
    '0e000700000873706f6f666564000000', // NFTA_RULE_USERDATA
  )
  const change = addRule({ table, name: 'b' }, { expressions: [count(), give('drop')], comment: 'spoofed' })
  assert.deepEqual(change.body, bytes)
  assert.deepEqual(ruleAttributes.encode(ruleAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  assert.equal(change.flags, 0xc00)
})

test('deleteRules: one by its handle, and all of a chain', () => {
  const chain = { table: { family: 'ip', name: 'nat' }, name: 'C' } as const
  const head = golden(
    '02000000', // nfgenmsg: ip
    '080001006e617400', // NFTA_RULE_TABLE nat
    '0600020043000000', // NFTA_RULE_CHAIN C
  )
  // nft flush chain ip nat C
  assert.deepEqual(deleteRules(chain).body, head)
  // nft delete rule ip nat C handle 2
  const handle = golden('0c0003000000000000000002') // NFTA_RULE_HANDLE
  assert.deepEqual(deleteRules(chain, 2n).body, Uint8Array.of(...head, ...handle))
  assert.equal(deleteRules(chain, 2n).about, 'delete rule 2 of chain ip nat C')
})

test('findRules: handles of those that have the text, whatever their expressions', () => {
  const chain = { table: { family: 'ip', name: 'nat' }, name: 'POSTROUTING' } as const
  const jump = (handle: bigint, target: string) => ({
    body: addRule(chain, { expressions: [give({ jump: target })], comment: `rule ${handle}` }).body,
  })
  const withHandle = (handle: bigint, target: string) => ({
    body: Uint8Array.of(...jump(handle, target).body, ...ruleAttributes.encode({ handle })),
  })
  const messages = [withHandle(3n, 'CNI-a'), withHandle(4n, 'CNI-b'), withHandle(5n, 'CNI-a')]
  const transport = { execute: () => [{ messages }] } as unknown as Parameters<typeof findRules>[0]
  assert.deepEqual(findRules(transport, chain, 'CNI-a'), [3n, 5n])
  assert.deepEqual(findRules(transport, chain, 'CNI-c'), [])
})
