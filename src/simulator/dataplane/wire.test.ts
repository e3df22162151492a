// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { seed } from '../seed.ts'
import { find, list, newState, type Port, put, quickLatency, type State } from '../state.ts'
import { policyOf, structureOf, tapOf } from './wire.ts'

function seeded(): State {
  const state = newState({
    latency: quickLatency,
    wireDelayMs: 0,
    tokenTtlMs: 1000,
    tokenCacheMs: 1000,
    maxRoutes: 30,
    maxAddressPairs: 10,
    maxNics: 28,
    requestsPerSecond: 0,
    repeatedShare: 0,
  })
  const account = (username: string) => ({ username, password: 'x', project: username })
  seed(state, { demo: account('demo'), admin: account('admin') }, 2)
  return state
}

const portOf = (state: State, name: string): Port => list(state, 'ports').find(port => port.name === name)!

test('structureOf: gives a server its NIC, address and default route, the router and the outside theirs', () => {
  const state = seeded()
  const { machines, routers, plugs, bridges } = structureOf(state, 'p')
  assert.deepEqual(machines, ['p-vm-worker-1', 'p-vm-worker-2'])
  assert.deepEqual(routers, ['p-router-edge'])
  assert.equal(bridges.length, 2)
  const nic = plugs.find(plug => plug.netns === 'p-vm-worker-1')!
  assert.deepEqual([nic.device, nic.addresses, nic.gateway], ['eth*', ['10.10.10.11/24'], '10.10.10.1'])
  const outside = plugs.find(plug => plug.netns === 'p-outside')!
  assert.deepEqual(outside.addresses, ['198.51.100.1/24', '203.0.113.1/32'])
  for (const { tap, device } of plugs) assert.ok(tap.length < 16 && device.length < 16)
})

test('structureOf: a later NIC arrives down and bare, a namespace can be named by metadata', () => {
  const state = seeded()
  const server = list(state, 'servers')[0]!
  const port = { ...portOf(state, 'worker-1-eth0'), id: 'ffffffff-0000', device_id: server.id }
  put(state, 'ports', port)
  const nic = { id: port.id, made: false, tag: null }
  put(state, 'servers', { ...server, metadata: { netns: 'mine' }, ports: [...server.ports, nic] })
  const { machines, plugs } = structureOf(state, 'p')
  assert.ok(machines.includes('mine'))
  const late = plugs.find(plug => plug.portId === port.id)!
  assert.deepEqual([late.isUp, late.addresses, late.gateway], [false, [], undefined])
})

test('policyOf: a guarded tap may send from fixed addresses and pairs, each with its MAC', () => {
  const state = seeded()
  const port = portOf(state, 'worker-1-eth0')
  const pairs = [{ mac_address: 'FA:16:3E:00:00:01', ip_address: '10.201.1.7/24' }]
  put(state, 'ports', { ...port, allowed_address_pairs: pairs })
  const tap = tapOf(port.id)
  assert.deepEqual(
    policyOf(state, 'p').sources.filter(source => source.tap === tap),
    [
      { tap, mac: port.mac_address, prefix: '10.10.10.11/32' },
      { tap, mac: 'fa:16:3e:00:00:01', prefix: '10.201.1.0/24' },
    ],
  )
  put(state, 'ports', { ...port, port_security_enabled: false })
  assert.ok(!policyOf(state, 'p').guarded.includes(tap))
})

test('policyOf: a route with host bits is never programmed', () => {
  const state = seeded()
  const router = list(state, 'routers')[0]!
  const nexthop = '10.10.10.11'
  const routes = [
    { destination: '10.201.5.7/24', nexthop },
    { destination: '10.202.0.0/16', nexthop },
  ]
  put(state, 'routers', { ...router, routes })
  assert.deepEqual(policyOf(state, 'p').routers[0]?.routes, [{ destination: '10.202.0.0/16', nexthop }])
})

test('policyOf: the router translates for its floating IPs and has the gateway of its port', () => {
  const state = seeded()
  const router = list(state, 'routers')[0]!
  const gateway = find(state, 'ports', router.gw_port_id!)!
  const { outside } = policyOf(state, 'p').routers[0]!
  assert.deepEqual(outside, {
    device: `qg-${gateway.id.slice(0, 11)}`,
    address: gateway.fixed_ips[0]!.ip_address,
    snat: true,
  })
})
