// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { difference, fixedIps, sortIps } from './address.ts'

const held = (...ends: number[]) => ends.map(end => ({ subnet_id: 's', ip_address: `10.0.0.${end}` }))
const ends = (ips: readonly { ip_address?: string }[]): string[] =>
  ips.map(each => each.ip_address?.split('.')[3] ?? '*')

test('difference: an entry without an address reuses the last of what no other entry names', () => {
  const change = difference(sortIps(held(50, 60, 7, 99)), [
    { subnet_id: 's', ip_address: '10.0.0.99' },
    { subnet_id: 's' },
  ])
  assert.deepEqual(ends(change.keep), ['99', '7'])
  assert.deepEqual(ends(change.drop), ['50', '60'])
  assert.deepEqual(change.add, [])
})

test('difference: what is new is added, also without an address when nothing is left to reuse', () => {
  const change = difference(held(50), [...held(50, 51), { subnet_id: 's' }])
  assert.deepEqual(ends(change.keep), ['50'])
  assert.deepEqual(ends(change.add), ['51', '*'])
  assert.deepEqual(change.drop, [])
})

test('sortIps: by the address as a string', () => {
  assert.deepEqual(ends(sortIps(held(7, 50, 165, 17))), ['165', '17', '50', '7'])
})

test('fixedIps: refuses in the words of Neutron', () => {
  const message = (value: unknown): string => {
    try {
      fixedIps(value, 'fixed_ips')
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }
  const start = 'Invalid input for fixed_ips. Reason: '
  assert.equal(message(null), `${start}Invalid data format for fixed IP: 'None'.`)
  assert.equal(message([{ ip_address: '10.0.0.300' }]), `${start}'10.0.0.300' is not a valid IP address.`)
  assert.equal(
    message([{ ip_address: '10.0.0.5' }, { ip_address: '10.0.0.5' }]),
    `${start}Duplicate IP address '10.0.0.5'.`,
  )
})
