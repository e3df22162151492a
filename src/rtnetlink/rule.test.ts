// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parsePrefix } from '#base'
import { walk } from '#netlink'
import { AF_INET, AF_INET6 } from './address.ts'
import { addRule, decodeRule, deleteRule, dumpRules, type Rule, tableOfRule } from './rule.ts'

// Bytes captured from ip of iproute2 6.1.0 (strace of its sendmsg) and from Linux 6.18's answers to it, without the
// netlink header, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
/** Header, and attributes in any order: `ip` has an order of its own. */
const partsOf = (body: Uint8Array) => [
  body.subarray(0, 12).toHex(),
  ...Array.from(walk(body.subarray(12)), ([type, payload]) => `${type} ${payload.toHex()}`).sort(),
]

const fromPod: Rule = { family: AF_INET, priority: 1024, source: parsePrefix('10.0.0.5/32'), table: 1001 }
const marked: Rule = {
  family: AF_INET,
  priority: 1025,
  destination: parsePrefix('10.1.0.0/16'),
  inInterface: 'v1',
  mark: 0x40,
  markMask: 0x40,
  table: 7,
}
const fromNetwork: Rule = {
  family: AF_INET6,
  priority: 1026,
  source: parsePrefix('fd00::/64'),
  outInterface: 'v1',
  table: 300,
  protocol: 98,
}

test('addRule: writes a rule for a source and a table beyond 255 as ip does', () => {
  // ip rule add priority 1024 from 10.0.0.5/32 table 1001
  const bytes = golden(
    '020020000000000100000000', // fib_rule_hdr: AF_INET, from /32, table unspec, FR_ACT_TO_TBL
    '0800060000040000', // FRA_PRIORITY
    '080002000a000005', // FRA_SRC
    '08000f00e9030000', // FRA_TABLE
  )
  const { type, flags, body } = addRule(fromPod)
  assert.deepEqual([type, flags | 1, partsOf(body)], [32, 0x605, partsOf(bytes)])
})

test('addRule: writes mark, interface and destination as ip does, the small table as an attribute too', () => {
  // ip rule add priority 1025 to 10.1.0.0/16 iif v1 fwmark 0x40/0x40 table 7
  const bytes = golden(
    '021000000700000100000000', // fib_rule_hdr: AF_INET, to /16, table 7, FR_ACT_TO_TBL
    '0800060001040000', // FRA_PRIORITY
    '080001000a010000', // FRA_DST
    '0700030076310000', // FRA_IIFNAME v1
    '08000a0040000000', // FRA_FWMARK
    '0800100040000000', // FRA_FWMASK
    '08000f0007000000', // FRA_TABLE (ip: the header's alone)
  )
  assert.deepEqual(partsOf(addRule(marked).body), partsOf(bytes))
})

test('addRule: writes an IPv6 rule with a protocol as ip does', () => {
  // ip -6 rule add priority 1026 from fd00::/64 oif v1 table 300 protocol 98
  const bytes = golden(
    '0a0040000000000100000000', // fib_rule_hdr: AF_INET6, from /64, FR_ACT_TO_TBL
    '0800060002040000', // FRA_PRIORITY
    '14000200fd000000000000000000000000000000', // FRA_SRC
    '0700110076310000', // FRA_OIFNAME v1
    '08000f002c010000', // FRA_TABLE
    '0500150062000000', // FRA_PROTOCOL
  )
  assert.deepEqual(partsOf(addRule(fromNetwork).body), partsOf(bytes))
})

test('deleteRule: writes what ip does, and the action too', () => {
  // ip rule del priority 1024 from 10.0.0.5/32 table 1001
  const bytes = golden(
    '020020000000000100000000', // fib_rule_hdr: AF_INET, from /32, FR_ACT_TO_TBL (ip: none)
    '0800060000040000', // FRA_PRIORITY
    '080002000a000005', // FRA_SRC
    '08000f00e9030000', // FRA_TABLE
  )
  const { type, flags, body } = deleteRule(fromPod)
  assert.deepEqual([type, flags | 1, partsOf(body)], [33, 0x5, partsOf(bytes)])
})

test('dumpRules: asks as ip does', () => {
  // ip -6 rule show
  const { type, flags, body } = dumpRules(AF_INET6)
  assert.deepEqual([type, flags | 1, body.toHex()], [34, 0x301, '0a0000000000000000000000'])
})

test('decodeRule: reads mark, interface and destination, and keeps nothing else', () => {
  const body = golden(
    '021000000700000100000000', // fib_rule_hdr
    '08000f0007000000', // FRA_TABLE
    '08000e00ffffffff', // FRA_SUPPRESS_PREFIXLEN
    '0500150000000000', // FRA_PROTOCOL
    '0700030076310000', // FRA_IIFNAME v1
    '0800060001040000', // FRA_PRIORITY
    '08000a0040000000', // FRA_FWMARK
    '0800100040000000', // FRA_FWMASK
    '080001000a010000', // FRA_DST
  )
  assert.deepEqual(decodeRule({ type: 32, flags: 2, seq: 1, body }), { ...marked, protocol: 0 })
  assert.equal(tableOfRule({ type: 32, flags: 2, seq: 1, body }), marked.table)
})

test('decodeRule: takes the lack of a priority for 0, that of the rule for the local table', () => {
  const body = golden(
    '02000000ff00000100000000', // fib_rule_hdr
    '08000f00ff000000', // FRA_TABLE
    '08000e00ffffffff', // FRA_SUPPRESS_PREFIXLEN
    '0500150002000000', // FRA_PROTOCOL
  )
  const rule = decodeRule({ type: 32, flags: 2, seq: 1, body })
  assert.deepEqual(rule, { family: AF_INET, priority: 0, table: 255, protocol: 2 })
})
