// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addressesOfBlock, blockOf, coverOf } from '../shared/cover.ts'
import { chooseBlock, wholeBlocks } from './blocks.ts'
import type { PortAddress } from './plan.ts'

const subnet = { cidr: '10.0.0.0/26', gateway: '10.0.0.1', pools: [{ start: '10.0.0.2', end: '10.0.0.62' }] }

test('chooseBlock() takes an aligned block within the pool that nobody has an address of', () => {
  const first = chooseBlock(subnet, 16, new Set(), 0)!
  assert.deepEqual(coverOf(first), ['10.0.0.16/28'])
  assert.deepEqual(coverOf(chooseBlock(subnet, 16, new Set(['10.0.0.20']), 0)!), ['10.0.0.32/28'])
  assert.deepEqual(coverOf(chooseBlock(subnet, 16, new Set(), 0.99)!), ['10.0.0.32/28'])
  assert.equal(chooseBlock(subnet, 16, new Set(['10.0.0.20', '10.0.0.40']), 0), undefined)
})

test('chooseBlock() leaves out network, broadcast and gateway address, also where a pool has them', () => {
  const whole = { ...subnet, pools: [] }
  const found = new Set<string>()
  for (let at = 0; at < 1; at += 0.01) for (const each of chooseBlock(whole, 4, new Set(), at)!) found.add(each)
  for (const barred of ['10.0.0.0', '10.0.0.1', '10.0.0.63']) assert.ok(!found.has(barred), barred)
  assert.equal(found.size, 56)
})

test('chooseBlock() finds one of a large IPv6 subnet', () => {
  const six = { cidr: '2001:db8::/64', gateway: '2001:db8::1', pools: [] }
  assert.deepEqual(coverOf(chooseBlock(six, 16, new Set(), 0)!), ['2001:db8::10/124'])
})

const free = (first: string, size: number, changedMs: number) =>
  addressesOfBlock(blockOf(first, size), size).map(
    address => ({ address, subnetId: 's4', state: 'free', changedMs }) as PortAddress,
  )

test('wholeBlocks() lets idle blocks go, the one that was used last not first, and never tears one', () => {
  const loose = [...free('10.0.0.16', 4, 5), ...free('10.0.0.20', 4, 9), ...free('10.0.0.24', 4, 7).slice(1)]
  const blocks = (surplus: number, staying: string[] = ['10.0.0.24']) =>
    coverOf(wholeBlocks(loose, staying, 4, surplus).map(each => each.address))
  assert.deepEqual(blocks(11), ['10.0.0.16/29'])
  assert.deepEqual(blocks(7), ['10.0.0.16/30'])
  assert.deepEqual(blocks(3), [])
  assert.deepEqual(blocks(11, ['10.0.0.24', '10.0.0.17']), ['10.0.0.20/30'])
})
