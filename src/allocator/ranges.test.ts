// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatIp, parseIp, parsePrefix } from '#base'
import { candidates, completeRangeSets, formatRangeSet, isGateway, type RangeSpec, rangeOf } from './ranges.ts'

const spec = (subnet: string, start?: string, end?: string, gateway?: string): RangeSpec => ({
  subnet: parsePrefix(subnet),
  rangeStart: start === undefined ? undefined : parseIp(start),
  rangeEnd: end === undefined ? undefined : parseIp(end),
  gateway: gateway === undefined ? undefined : parseIp(gateway),
})
const setOf = (...specs: RangeSpec[]) => completeRangeSets([specs])[0]!
const order = (set: ReturnType<typeof setOf>, last?: string) =>
  Array.from(candidates(set, last === undefined ? undefined : parseIp(last)), each => formatIp(each.ip))

test('completeRangeSets() fills in gateway, start and end (HL-07)', () => {
  const [v4] = setOf(spec('10.1.2.0/24'))
  assert.deepEqual([v4!.gateway, v4!.start, v4!.end].map(formatIp), ['10.1.2.1', '10.1.2.1', '10.1.2.254'])
  const [v6] = setOf(spec('fd00::/64'))
  assert.deepEqual([v6!.gateway, v6!.start, v6!.end].map(formatIp), ['fd00::1', 'fd00::1', 'fd00::ffff:ffff:ffff:ffff'])
})

test('completeRangeSets() refuses what the reference refuses, in its words (HL-05, HL-06, HL-08, HL-11)', () => {
  const cases: [RangeSpec[][], string][] = [
    [[[spec('10.1.2.0/31')]], 'invalid range set 0: Network 10.1.2.0/31 too small to allocate from'],
    [[[spec('fd00::/127')]], 'invalid range set 0: Network fd00::/127 too small to allocate from'],
    [
      [[spec('10.1.2.3/24')]],
      'invalid range set 0: Network has host bits set. For a subnet mask of length 24 the network address is 10.1.2.0',
    ],
    [[[spec('10.1.2.0/24', '10.1.3.1')]], 'invalid range set 0: RangeStart 10.1.3.1 not in network 10.1.2.0/24'],
    [
      [[spec('10.1.2.0/24', undefined, '10.1.3.1')]],
      'invalid range set 0: RangeEnd 10.1.3.1 not in network 10.1.2.0/24',
    ],
    [
      [[spec('10.1.2.0/24', '10.1.2.9', '10.1.2.5')]],
      'invalid range set 0: RangeStart 10.1.2.9 not in network 10.1.2.0/24',
    ],
    [[[spec('10.1.2.0/24', 'fd00::1')]], 'invalid range set 0: RangeStart fd00::1 not in network 10.1.2.0/24'],
    [[[spec('::ffff:10.0.0.0/120')]], 'invalid range set 0: IPNet IP and Mask version mismatch'],
    [[[{}]], 'invalid range set 0: a range has no subnet'],
    [[[]], 'invalid range set 0: empty range set'],
    [[[spec('10.1.2.0/24')], [spec('10.1.3.0/24'), spec('fd00::/64')]], 'invalid range set 1: mixed address families'],
    [
      [[spec('10.1.0.0/16'), spec('10.1.3.0/24')]],
      'invalid range set 0: subnets 10.1.0.1-10.1.255.254 and 10.1.3.1-10.1.3.254 overlap',
    ],
    [[[spec('10.2.0.0/24')], [spec('10.1.0.0/16')], [spec('10.1.3.0/24')]], 'range set 1 overlaps with 2'],
  ]
  for (const [specs, message] of cases)
    assert.throws(() => completeRangeSets(specs), { name: 'InvalidRange', message }, message)
})

test('completeRangeSets() takes a gateway elsewhere, and network and broadcast as named ends (HL-09, HL-10)', () => {
  const set = setOf(spec('10.1.2.0/30', '10.1.2.0', '10.1.2.3', '192.0.2.1'))
  assert.deepEqual(order(set), ['10.1.2.0', '10.1.2.1', '10.1.2.2', '10.1.2.3'])
})

test('candidates() goes round once, from behind the last address, over all ranges (HL-18)', () => {
  const set = setOf(spec('10.0.0.0/29', '10.0.0.2', '10.0.0.3'), spec('10.0.1.0/29', '10.0.1.1', '10.0.1.3'))
  assert.deepEqual(order(set), ['10.0.0.2', '10.0.0.3', '10.0.1.2', '10.0.1.3'])
  assert.deepEqual(order(set, '10.0.0.2'), ['10.0.0.3', '10.0.1.2', '10.0.1.3', '10.0.0.2'])
  assert.deepEqual(order(set, '10.0.1.3'), ['10.0.0.2', '10.0.0.3', '10.0.1.2', '10.0.1.3'])
  assert.deepEqual(order(set, '10.9.9.9'), order(set))
  assert.deepEqual(order(set, 'fd00::1'), order(set))
})

test('candidates() leaves out the gateways of all ranges of the set', () => {
  const set = setOf(
    spec('10.0.0.0/24', '10.0.0.1', '10.0.0.3', '10.0.0.254'),
    spec('10.0.0.0/24', '10.0.0.8', '10.0.0.9'),
  )
  assert.equal(isGateway(set, parseIp('10.0.0.1')), true)
  assert.deepEqual(order(set), ['10.0.0.2', '10.0.0.3', '10.0.0.8', '10.0.0.9'])
})

test('candidates() carries, ends at the end of its family, and does not count a /64', () => {
  const carry = setOf(spec('10.0.0.0/16', '10.0.0.254', '10.0.1.1', '10.0.9.9'))
  assert.deepEqual(order(carry), ['10.0.0.254', '10.0.0.255', '10.0.1.0', '10.0.1.1'])
  const end = setOf(spec('255.255.255.252/30', undefined, '255.255.255.255'))
  assert.deepEqual(order(end), ['255.255.255.254', '255.255.255.255'])
  const wide = setOf(spec('fd00::/64'))
  const started = performance.now()
  const first = Array.from(candidates(wide, parseIp('fd00::ffff:ffff:ffff:fffe')).take(3), each => formatIp(each.ip))
  assert.deepEqual(first, ['fd00::ffff:ffff:ffff:ffff', 'fd00::2', 'fd00::3'])
  assert.ok(performance.now() - started < 20)
})

test('rangeOf() finds the range, never across families', () => {
  const set = setOf(spec('10.0.0.0/24', '10.0.0.10', '10.0.0.20'), spec('10.0.1.0/24'))
  assert.equal(rangeOf(set, parseIp('10.0.1.7')), set[1])
  assert.equal(rangeOf(set, parseIp('10.0.0.9')), undefined)
  assert.equal(rangeOf(set, parseIp('::a00:a')), undefined)
  assert.equal(formatRangeSet(set), '10.0.0.10-10.0.0.20,10.0.1.1-10.0.1.254')
})
