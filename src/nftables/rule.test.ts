// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mask } from './expressions/bitwise.ts'
import { compare } from './expressions/cmp.ts'
import { count } from './expressions/counter.ts'
import { loadConnection, loadOriginal, setConnectionMark } from './expressions/ct.ts'
import { loadDestinationType } from './expressions/fib.ts'
import { forward } from './expressions/forward.ts'
import { give, loadValue } from './expressions/immediate.ts'
import { isIn, isNotIn, lookUp } from './expressions/lookup.ts'
import { masquerade } from './expressions/masquerade.ts'
import { loadMeta, setMark } from './expressions/meta.ts'
import { translate } from './expressions/nat.ts'
import { loadField, payloadAttributes, storeField } from './expressions/payload.ts'
import { addRule, deleteRules, findRules, ruleAttributes } from './rule.ts'

// Bytes captured from nft 1.0.6 (strace of its sendmsg), from the family header on, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const table = { family: 'inet', name: 'mooring' } as const

const isV4 = [loadMeta('nfproto', 1), compare(1, '==', Uint8Array.of(2))]
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

test('addRule: masq as nft does', () => {
  // nft 'add rule inet mooring n masquerade'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_RULE_TABLE mooring
    '060002006e000000', // NFTA_RULE_CHAIN
    '18000480', // NFTA_RULE_EXPRESSIONS
    '14000180', //   NFTA_LIST_ELEM
    '090001006d61737100000000', //     NFTA_EXPR_NAME masq
    '04000280', //     NFTA_EXPR_DATA
  )
  const change = addRule({ table, name: 'n' }, { expressions: [masquerade()] })
  assert.deepEqual(change.body, bytes)
  assert.deepEqual(ruleAttributes.encode(ruleAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  assert.equal(change.flags, 0xc00)
})

test('addRule: nat to address and port as nft does', () => {
  // nft 'add rule inet mooring d meta l4proto tcp dnat ip to 10.0.0.1:80'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_RULE_TABLE mooring
    '0600020064000000', // NFTA_RULE_CHAIN
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
    '2c000180', //   NFTA_LIST_ELEM
    '0e000100696d6d656469617465000000', //     NFTA_EXPR_NAME immediate
    '18000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_IMMEDIATE_DREG 0x1
    '0c000280', //       NFTA_IMMEDIATE_DATA
    '080001000a000001', //         NFTA_DATA_VALUE 0xa000001
    '2c000180', //   NFTA_LIST_ELEM
    '0e000100696d6d656469617465000000', //     NFTA_EXPR_NAME immediate
    '18000280', //     NFTA_EXPR_DATA
    '0800010000000002', //       NFTA_IMMEDIATE_DREG 0x2
    '0c000280', //       NFTA_IMMEDIATE_DATA
    '0600010000500000', //         NFTA_DATA_VALUE
    '38000180', //   NFTA_LIST_ELEM
    '080001006e617400', //     NFTA_EXPR_NAME nat
    '2c000280', //     NFTA_EXPR_DATA
    '0800010000000001', //       NFTA_NAT_TYPE 0x1
    '0800020000000002', //       NFTA_NAT_FAMILY 0x2
    '0800030000000001', //       NFTA_NAT_REG_ADDR_MIN 0x1
    '0800050000000002', //       NFTA_NAT_REG_PROTO_MIN 0x2
    '0800070000000002', //       NFTA_NAT_FLAGS 0x2
  )
  const change = addRule(
    { table, name: 'd' },
    {
      expressions: [
        ...isTcp,
        loadValue(1, Uint8Array.of(10, 0, 0, 1)),
        loadValue(2, Uint8Array.of(0, 80)),
        translate('dnat', 'ip', { address: 1, port: 2 }),
      ],
    },
  )
  assert.deepEqual(change.body, bytes)
  assert.deepEqual(ruleAttributes.encode(ruleAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  assert.equal(change.flags, 0xc00)
})

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

// As with elements, nft writes the set's number within its batch, ours leave it out.

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
