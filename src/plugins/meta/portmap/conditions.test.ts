// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatPrefix } from '#base'
import { parseConditions, styleOf } from './conditions.ts'

const read = (version: 'v4' | 'v6', ...words: string[]) => {
  const found = parseConditions(version, words)
  if (typeof found === 'string') return found
  return found.map(({ end, negated, network }) => `${negated ? 'not ' : ''}${end} ${formatPrefix(network)}`)
}

test('parseConditions: both languages, words apart or together', () => {
  assert.deepEqual(read('v4', '!', '-d', '192.0.2.9/24', '--source', '10.0.0.1'), [
    'not destination 192.0.2.0/24',
    'source 10.0.0.1/32',
  ])
  assert.deepEqual(read('v6', '! --dst fc00::/7'), ['not destination fc00::/7'])
  assert.deepEqual(read('v4', 'ip', 'saddr', '!=', '10.0.0.0/8', 'ip daddr == 192.0.2.1'), [
    'not source 10.0.0.0/8',
    'destination 192.0.2.1/32',
  ])
  assert.deepEqual(read('v6', 'ip6 daddr 2001:db8::/32'), ['destination 2001:db8::/32'])
  assert.deepEqual(read('v4'), [])
  assert.deepEqual(read('v4', ''), [])
})

test('parseConditions: says what it does not understand', () => {
  assert.equal(read('v4', '-i', 'eth0'), '"-i eth0" is not understood')
  assert.equal(read('v4', '-s'), '"-s" is not understood')
  assert.equal(read('v4', '!', '-d'), '"! -d" is not understood')
  assert.equal(read('v4', '-s', '10.0.0.1', 'ip', 'saddr'), '"ip saddr" is not understood')
  assert.equal(read('v4', 'ip6 saddr ::1'), '"ip6 saddr ::1" is not understood')
  assert.equal(read('v4', '-s', '::1'), '"::1" is no network of IPv4')
  assert.equal(read('v6', 'ip6', 'saddr', 'x'), '"x" is no network of IPv6')
})

test('styleOf: as upstream, by the first letter', () => {
  assert.equal(styleOf(['! -s']), 'iptables')
  assert.equal(styleOf(['-s']), 'iptables')
  assert.equal(styleOf(['ip', 'saddr']), 'nftables')
  assert.equal(styleOf(['']), undefined)
  assert.equal(styleOf([]), undefined)
  assert.equal(styleOf(undefined), undefined)
})
