// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatIp } from '#base'
import { addressesOfBlock, blockOf, coverOf } from './cover.ts'

const addresses = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => `10.0.0.${from + at}`)

test('coverOf() makes one prefix of an aligned block, and never takes in an address that is not given', () => {
  assert.deepEqual(coverOf(addresses(16, 31)), ['10.0.0.16/28'])
  assert.deepEqual(coverOf(addresses(16, 30)), ['10.0.0.16/29', '10.0.0.24/30', '10.0.0.28/31', '10.0.0.30'])
  assert.deepEqual(coverOf(addresses(17, 32)), [
    '10.0.0.17',
    '10.0.0.18/31',
    '10.0.0.20/30',
    '10.0.0.24/29',
    '10.0.0.32',
  ])
  assert.deepEqual(coverOf(['10.0.0.9']), ['10.0.0.9'])
  assert.deepEqual(coverOf([]), [])
})

test('coverOf() joins prefixes and addresses, drops doubles, and keeps IP versions apart', () => {
  assert.deepEqual(coverOf(['10.0.1.0/25', '10.0.1.128/25', '10.0.1.7']), ['10.0.1.0/24'])
  assert.deepEqual(coverOf(['2001:db8::4', '10.0.0.4', '2001:db8::5']), ['10.0.0.4', '2001:db8::4/127'])
})

test('coverOf() of random sets holds exactly what was given', () => {
  for (let round = 0; round < 50; round++) {
    const given = addresses(0, 255).filter(() => Math.random() < (round + 1) / 51)
    const held = coverOf(given).flatMap(text => {
      const [ip, length = '32'] = text.split('/')
      return addressesOfBlock(blockOf(ip!, 1), 2 ** (32 - Number(length)))
    })
    assert.deepEqual(held.toSorted(), given.toSorted())
  }
})

test('blockOf() is the aligned block of an address', () => {
  assert.equal(formatIp(blockOf('10.0.0.37', 16)), '10.0.0.32')
  assert.equal(formatIp(blockOf('2001:db8::1f', 16)), '2001:db8::10')
  assert.deepEqual(addressesOfBlock(blockOf('10.0.0.37', 4), 4), addresses(36, 39))
})
