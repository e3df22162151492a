// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parsePrefix } from '#base'
import { ruleAttributes } from '#nftables'
import { addInsideRule, insideOf, insideSet, parseInsideSet } from './ruleset.ts'

test('insideSet, parseInsideSet: one set per family and prefix length', () => {
  const v4 = insideOf(parsePrefix('10.99.0.0/16'), false)
  assert.deepEqual(insideSet(v4).name, 'inside_16_v4')
  assert.deepEqual(parseInsideSet('inside_16_v4'), v4)
  const shared = insideOf(parsePrefix('fd00::/64'), true)
  assert.deepEqual(insideSet(shared).key, ['ifname', 'ipv6_addr', 'ipv6_addr'])
  assert.deepEqual(parseInsideSet(insideSet(shared).name), shared)
  assert.equal(parseInsideSet('pod_links'), undefined)
})

test('addInsideRule: is what nft makes of the same rule', () => {
  // Captured from nft 1.0.6, the rule's expressions:
  // insert rule inet mooring outside_v4 iifname . ip daddr & 255.255.0.0 @inside_16_v4 return
  const bytes = Uint8Array.fromHex(
    [
      '60010480', // NFTA_RULE_EXPRESSIONS
      '24000180090001006d65746100000000', // meta
      '14000280080002000000000f0800010000000001', // nfproto into 1
      '2c00018008000100636d7000', // cmp
      '2000028008000100000000010800020000000000', // register 1, ==
      '0c0003800500010002000000', // IPv4
      '24000180090001006d65746100000000', // meta
      '1400028008000200000000060800010000000001', // iifname into 1
      '340001800c0001007061796c6f616400', // payload
      '2400028008000100000000020800020000000001', // into 2, network header
      '08000300000000100800040000000004', // offset 16, 4 bytes
      '4c0001800c0001006269747769736500', // bitwise
      '3c00028008000100000000020800020000000002', // 2 into 2
      '0800060000000000', // NFTA_BITWISE_OP, mask and xor: the default, which ours leave out
      '0800030000000004', // 4 bytes
      '0c00048008000100ffff0000', // 255.255.0.0
      '0c0005800800010000000000', // xor nothing
      '380001800b0001006c6f6f6b75700000', // lookup
      '280002800800020000000001', // register 1
      '11000100696e736964655f31365f763400000000', // inside_16_v4
      '0800040000000001', // NFTA_LOOKUP_SET_ID, which named sets do not need: ours leave it out
      '300001800e000100696d6d656469617465000000', // immediate
      '1c0002800800010000000000', // verdict
      '100002800c00028008000100fffffffb', // return
    ].join(''),
  )
  const { expressions: theirs } = ruleAttributes.decode(bytes)
  const { expressions: ours } = ruleAttributes.decode(
    addInsideRule({ version: 'v4', length: 16, shared: false }).body.subarray(4),
  )
  assert.deepEqual(
    ours,
    theirs?.map(expression => {
      if (!('data' in expression) || expression.data === undefined) return expression
      const { setId: _set, operator, ...data } = expression.data as { setId?: number; operator?: number }
      const kept = operator === undefined || expression.kind === 'bitwise' ? data : { ...data, operator }
      return { ...expression, data: kept }
    }),
  )
})
