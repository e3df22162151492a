// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatPrefix } from '#base'
import type { Result } from '#cni'
import { parseConfig } from './config.ts'
import { withGateways } from './gateways.ts'

const on = (result: Result, config: { isGateway?: boolean; isDefaultGateway?: boolean }) => {
  const { ips, routes, gateways } = withGateways(result, parseConfig(config, { args: '' }))
  return { ips: ips.map(({ gateway }) => gateway), routes, gateways: gateways.map(formatPrefix) }
}
const lease = { ips: [{ address: '10.1.2.3/16' }, { address: 'fd00:1::5/64' }] }

test('withGateways() leaves a lease as it is where the node is no gateway', () => {
  assert.deepEqual(on(lease, {}), { ips: [undefined, undefined], routes: [], gateways: [] })
})

test('withGateways() takes the first address of a network, unless the IPAM named one', () => {
  assert.deepEqual(on(lease, { isGateway: true }), {
    ...{ ips: ['10.1.0.1', 'fd00:1::1'], routes: [], gateways: ['10.1.0.1/16', 'fd00:1::1/64'] },
  })
  const named = {
    ips: [
      { address: '10.1.2.3/16', gateway: '10.1.2.254' },
      { address: '10.1.2.4/16', gateway: '10.1.2.254' },
    ],
  }
  assert.deepEqual(on(named, { isGateway: true }).gateways, ['10.1.2.254/16'])
})

test('withGateways() adds a default route to a family that has none in the main table', () => {
  const routes = (list: NonNullable<Result['routes']>) =>
    on({ ...lease, routes: list }, { isDefaultGateway: true }).routes.map(({ dst, gw }) => `${dst} ${gw ?? '-'}`)
  const [v4, v6] = ['0.0.0.0/0 10.1.0.1', '::/0 fd00:1::1']
  assert.deepEqual(routes([]), [v4, v6])
  assert.deepEqual(routes([{ dst: '0.0.0.0/0' }]), ['0.0.0.0/0 -', v6])
  assert.deepEqual(routes([{ dst: '::/0', gw: 'fd00:1::9' }]), ['::/0 fd00:1::9', v4])
  assert.deepEqual(routes([{ dst: '0.0.0.0/0', gw: '10.1.0.9', table: 100 }]), ['0.0.0.0/0 10.1.0.9', v4, v6])
})

test('withGateways() refuses one address for node and pod, and a network without room', () => {
  for (const address of ['10.1.0.1/16', '10.1.0.5/32'])
    assert.throws(() => on({ ips: [{ address }] }, { isGateway: true }), { code: 7 })
  assert.deepEqual(on({ ips: [{ address: '10.1.0.4/31' }] }, { isGateway: true }).gateways, ['10.1.0.5/31'])
})
