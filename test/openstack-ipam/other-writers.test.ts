// SPDX-License-Identifier: Apache-2.0

// Other writers in the simulated OpenStack, 1000 changes in quick motion: a write takes 10 ms instead of 0.1 s, a look back
// comes after 0.3 s instead of 3 s. OTHER_WRITERS=full runs it 10 times slower, with the times of a real cloud, in some
// minutes. Needs no root.

import type { TestContext } from 'node:test'
import { cloudFromConf, openCloud } from '#openstack'
import { find } from '#simulator'
import { neutronByHand, portOf, setUp } from './cloud.ts'
import { testOtherWriters } from './other-writers.ts'
import type { Ground, Pace } from './writers.ts'

const SLOWER = process.env['OTHER_WRITERS'] === 'full' ? 10 : 1

const pace: Pace = {
  commitMs: 10 * SLOWER,
  verifyMs: 300 * SLOWER,
  pauseMs: 0,
  noticedMs: () => 5_000,
  settledMs: 10_000 * SLOWER,
  changes: 150,
  endAfterMs: Number.POSITIVE_INFINITY,
  rounds: 12,
  routes: { max: 500, held: 8, his: 20 },
  pairs: { max: 500, held: 8, his: 20 },
}

async function makeGround(t: TestContext): Promise<Ground> {
  const { simulator, node, ipam } = await setUp(t, true, { verifyAfterMs: pace.verifyMs })
  const { settings, state } = simulator
  settings.latency = { ...settings.latency, commitMs: pace.commitMs }
  settings.maxAddressPairs = pace.pairs.max
  settings.maxRoutes = pace.routes.max
  settings.repeatedShare = 0.7
  const cloud = openCloud(cloudFromConf(ipam.openstackConf))
  t.after(() => cloud.close())
  const { router_id: routerId, subnet_id: subnetId, servers } = simulator.demo()
  const portId = portOf(simulator).id
  const pairsPortId = servers['worker-2']!.ports[0]!.id
  const byHand = await neutronByHand(simulator, 'demo')
  const allocation_pools = [{ start: '10.10.10.2', end: '10.10.10.199' }]
  await byHand('PUT', `subnets/${subnetId}`, { subnet: { allocation_pools } })
  return {
    ...{ cloud, node, ipam, routerId, subnetId, portId, pairsPortId },
    put: (path, body) => byHand('PUT', path, body),
    routes: () => find(state, 'routers', routerId)!.routes.map(each => each.destination),
    pairs: () => find(state, 'ports', pairsPortId)!.allowed_address_pairs.map(each => each.ip_address),
    addresses: () => find(state, 'ports', portId)!.fixed_ips.map(each => each.ip_address),
    seenMs: () => performance.now(),
    refresh: async () => {},
    listeners: state.listeners,
  }
}

testOtherWriters(pace, { concurrency: true, skip: false }, makeGround)
