// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { leaseOf, resultRoutes } from './lease.ts'

test('leaseOf: a route without a gateway takes the first of its family, and none of the other', () => {
  const { addresses, routes } = leaseOf({
    ips: [
      { address: 'fd00::5/64' },
      { address: '10.0.0.5/24', gateway: '10.0.0.1' },
      { address: '10.1.0.5/24', gateway: '10.1.0.1' },
    ],
    routes: [
      { dst: '0.0.0.0/0' },
      { dst: '::/0' },
      { dst: '10.9.1.2/16', gw: '10.0.0.2', priority: 5, table: 0, scope: 0, mtu: 1400, advmss: 1360 },
    ],
  })
  assert.equal(addresses.length, 3)
  assert.deepEqual(resultRoutes(routes), [
    { dst: '0.0.0.0/0', gw: '10.0.0.1' },
    { dst: '::/0' },
    { dst: '10.9.0.0/16', gw: '10.0.0.2', priority: 5, table: 0, scope: 0, mtu: 1400, advmss: 1360 },
  ])
})

test('leaseOf: a gateway alone makes no route', () => {
  assert.deepEqual(leaseOf({ ips: [{ address: '10.0.0.5/24', gateway: '10.0.0.1' }] }).routes, [])
})
