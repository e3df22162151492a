// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { OpenStackError } from '#openstack'
import type { Want } from './plan.ts'
import { type AddRequest, learn, newState, noteUnserved } from './refusal.ts'

const refusal = (kind: 'exhausted' | 'permanent' | 'conflict' | 'auth', type: string, reason = type) =>
  new OpenStackError({ service: 'neutron', action: 'update', reason, status: 409, type, kind, effect: 'none' })
const full = refusal('exhausted', 'IpAddressGenerationFailure')

const want = (id: number, address?: string): Want => ({
  id,
  portId: 'p',
  subnetIds: ['s4'],
  address,
  owner: { network: 'n', containerId: `c${id}`, ifName: 'eth0' },
  expiresMs: 1e12,
})
const byName = (...addresses: string[]): AddRequest => ({
  named: addresses.map((address, index) => want(index + 1, address)),
  adding: { s4: addresses.length },
  serving: true,
})
const nowhere = () => false

test('learn() leaves the reserve out, then takes subnets apart, then halves, until one is too many', () => {
  const state = newState(true)
  const both: AddRequest = { named: [], adding: { s4: 3, s6: 2 }, serving: true }
  assert.deepEqual(learn(state, full, both, nowhere), {})
  assert.deepEqual([state.refill, state.refillFailed !== undefined, state.apart], [false, true, false])
  learn(state, full, both, nowhere)
  assert.equal(state.apart, true)
  learn(state, full, { ...both, adding: { s4: 3 } }, nowhere)
  assert.equal(state.batchMax, 1)
  assert.deepEqual(learn(state, full, { ...both, adding: { s4: 1 } }, nowhere), { full: 's4' })
  noteUnserved(state, [want(1), { ...want(2), subnetIds: ['s4', 's5'] }])
  assert.deepEqual([...state.unserved.keys()], [1])
})

test('learn() moves a reserve to another subnet, and calls none exhausted for it', () => {
  const state = newState(true)
  const reserve: AddRequest = { named: [], adding: { s4: 4 }, serving: false }
  assert.deepEqual(
    learn(state, full, reserve, () => true),
    { full: 's4' },
  )
  assert.deepEqual([state.refill, state.exhausted.size], [true, 0])
  assert.deepEqual(learn(state, full, reserve, nowhere), {})
  assert.deepEqual([state.refill, state.refillFailed !== undefined, state.exhausted.size], [false, true, 0])
})

test('learn() refuses the one whose address Neutron names as taken', () => {
  const state = newState(false)
  const taken = refusal('permanent', 'IpAddressAlreadyAllocated', 'IP address 10.0.0.1 already allocated in subnet s4')
  learn(state, taken, byName('10.0.0.11', '10.0.0.1'), nowhere)
  assert.deepEqual([...state.unserved.keys()], [2])
  assert.match(
    state.unserved.get(2)!.message,
    /^Cannot give address 10.0.0.1 of port p to interface eth0 of container c2: IP address 10.0.0.1 already allocated/,
  )
  assert.equal(state.namedMax, Number.POSITIVE_INFINITY)
})

test('learn() asks for named addresses one by one where Neutron does not say which is wrong', () => {
  const state = newState(false)
  const wrong = refusal('permanent', 'InvalidIpForSubnet', 'not a valid IP for the subnet')
  learn(state, wrong, byName('10.0.0.1', '10.0.0.255'), nowhere)
  assert.deepEqual([state.namedMax, state.unserved.size], [1, 0])
  learn(state, wrong, byName('10.0.0.255'), nowhere)
  assert.equal(state.unserved.size, 1)
})

test('learn() waits after a conflict, also where an address that the port had is another’s by now', () => {
  const state = newState(false)
  assert.deepEqual(learn(state, refusal('conflict', 'RevisionNumberConstraintFailed'), byName('10.0.0.1'), nowhere), {
    wait: true,
  })
  const taken = refusal('permanent', 'IpAddressAlreadyAllocated')
  const any: AddRequest = { named: [], adding: { s4: 1 }, serving: true }
  for (let tries = 0; tries < 7; tries++) assert.deepEqual(learn(state, taken, any, nowhere), { wait: true })
  assert.throws(() => learn(state, taken, any, nowhere), taken)
  const denied = refusal('auth', 'PolicyNotAuthorized')
  assert.throws(() => learn(state, denied, byName('10.0.0.1'), nowhere), denied)
})
