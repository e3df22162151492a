// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  addToIp,
  broadcastOf,
  compareIp,
  formatIp,
  formatPrefix,
  networkOf,
  parseIp,
  parsePrefix,
  prefixContains,
  tryParseIp,
  tryParsePrefix,
} from './ip.ts'

test('parseIp() and formatIp() agree with RFC 5952', () => {
  const cases = {
    '0.0.0.0': '0.0.0.0',
    '255.255.255.255': '255.255.255.255',
    '::': '::',
    'FD00:0::1': 'fd00::1',
    '2001:db8:0:0:1:0:0:1': '2001:db8::1:0:0:1',
    '2001:db8:0:1:1:1:1:1': '2001:db8:0:1:1:1:1:1',
    '::ffff:1.2.3.4': '1.2.3.4',
    '1:2:3:4:5:6:7::': '1:2:3:4:5:6:7:0',
    'fe80::1': 'fe80::1',
  }
  for (const [text, canonical] of Object.entries(cases)) assert.equal(formatIp(parseIp(text)), canonical, text)
})

test('tryParseIp() refuses what Go refuses', () => {
  for (const text of [
    '',
    '1.2.3',
    '010.0.0.1',
    '1.2.3.256',
    '1.2.3.4.5',
    'fe80::1%eth0',
    ':::',
    '1::2::3',
    '12345::',
    ':1',
    '1:2:3:4:5:6:7:8:9',
    '::1:2:3:4:5:6:7:8',
    '1.2.3.4::',
  ])
    assert.equal(tryParseIp(text), undefined, text)
})

test('parseIp() names the text it refuses', () => {
  assert.throws(() => parseIp('10.0.0.300'), /Cannot parse IP address "10.0.0.300"/)
})

test('tryParsePrefix() wants address and length', () => {
  for (const text of ['10.0.0.0', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/08', '::/129', 'x/8', '10.0.0.0/-1'])
    assert.equal(tryParsePrefix(text), undefined, text)
  assert.equal(formatPrefix(parsePrefix('10.1.2.3/24')), '10.1.2.3/24')
})

test('networkOf() clears host bits', () => {
  assert.equal(formatPrefix(networkOf(parsePrefix('10.1.2.3/20'))), '10.1.0.0/20')
  assert.equal(formatPrefix(networkOf(parsePrefix('fd00::1:ff/121'))), 'fd00::1:80/121')
  assert.equal(formatPrefix(networkOf(parsePrefix('1.2.3.4/0'))), '0.0.0.0/0')
})

test('prefixContains() never matches across families', () => {
  assert.equal(prefixContains(parsePrefix('10.0.0.0/8'), parseIp('10.255.0.1')), true)
  assert.equal(prefixContains(parsePrefix('10.0.0.0/8'), parseIp('11.0.0.1')), false)
  assert.equal(prefixContains(parsePrefix('0.0.0.0/0'), parseIp('::1')), false)
})

test('addToIp() carries, and ends where the family ends', () => {
  assert.equal(formatIp(addToIp(parseIp('10.0.0.255'), 1n)!), '10.0.1.0')
  assert.equal(addToIp(parseIp('255.255.255.255'), 1n), undefined)
  assert.equal(addToIp(parseIp('::'), -1n), undefined)
  assert.equal(formatIp(addToIp(parseIp('fd00::ffff'), 1n)!), 'fd00::1:0')
})

test('compareIp() orders by value, not by text', () => {
  const sorted = ['10.0.0.9', '::1', '10.0.0.10'].map(parseIp).sort(compareIp).map(formatIp)
  assert.deepEqual(sorted, ['10.0.0.9', '10.0.0.10', '::1'])
})

test('broadcastOf() is the last address of an IPv4 network that has room for one', () => {
  for (const [prefix, last] of [
    ['10.1.2.3/16', '10.1.255.255'],
    ['10.1.2.3/30', '10.1.2.3'],
    ['10.1.2.3/31', undefined],
    ['10.1.2.3/0', '255.255.255.255'],
    ['fd00::1/64', undefined],
  ] as const) {
    const found = broadcastOf(parsePrefix(prefix))
    assert.equal(found === undefined ? undefined : formatIp(found), last, prefix)
  }
})
