// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addRule, ruleAttributes } from '../rule.ts'
import { compare } from './cmp.ts'
import { loadValue } from './immediate.ts'
import { masquerade } from './masquerade.ts'
import { loadMeta } from './meta.ts'
import { translate } from './nat.ts'

// Bytes captured from nft 1.0.6 (strace of its sendmsg), from the family header on, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const table = { family: 'inet', name: 'mooring' } as const
const isTcp = [loadMeta('l4proto', 1), compare(1, '==', Uint8Array.of(6))]

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
