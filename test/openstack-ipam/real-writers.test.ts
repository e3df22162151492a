// SPDX-License-Identifier: Apache-2.0

// Other writers in the real Neutron of lab/openstack, in a project of the test's own, on demand: MOORING_WRITERS_CHANGES=10 takes
// three minutes where a write takes a second, 150 makes it the 1000 changes that the simulator sees. MOORING_WRITERS_MINUTES ends a
// test's changes after that long, with what it has by then. Needs neither root nor data plane.

import { after, before, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { deadlineIn } from '#base'
import { type CloudSession, openCloud } from '#openstack'
import { createLabProject, type LabProject, labMissing } from '../openstack/lab.ts'
import { nodeDirectory, nodeWithNic, startNode } from './node.ts'
import { testOtherWriters } from './other-writers.ts'
import type { Ground, Kind, Pace } from './writers.ts'

const limits = () => ({ deadline: deadlineIn(60_000) })
const LOOK_MS = 400

const pace: Pace = {
  commitMs: 150,
  verifyMs: 3_000,
  pauseMs: 2_000,
  // 5 s where Neutron takes what it takes on a quiet machine: the look back, and what all of them have under way.
  noticedMs: writeMs => Math.max(5_000, 3_000 + 12 * writeMs),
  settledMs: 60_000,
  changes: Number(process.env['MOORING_WRITERS_CHANGES'] ?? 0),
  endAfterMs: Number(process.env['MOORING_WRITERS_MINUTES'] ?? Number.POSITIVE_INFINITY) * 60_000,
  rounds: 3,
  // What this cloud permits, less what somebody's older list may bring back.
  routes: { max: 30, held: 5, his: 6 },
  pairs: { max: 10, held: 2, his: 3 },
}

const skip =
  (await labMissing()) ??
  (process.env['MOORING_WRITERS_CHANGES'] === undefined && 'takes minutes: MOORING_WRITERS_CHANGES=10')
let project: LabProject
let cloud: CloudSession

before(async () => {
  if (skip !== false) return
  project = await createLabProject()
  cloud = openCloud(project.password)
})
after(async () => {
  await cloud?.close()
  await project?.[Symbol.asyncDispose]()
})

async function makeGround(t: TestContext, looksAt: readonly Kind[]): Promise<Ground> {
  const { networks, subnets, ports, routers } = cloud.neutron
  const { id: network_id } = await networks.create({ name: 'writers' }, limits())
  const { id: subnetId } = await subnets.create(
    {
      ...{ network_id, ip_version: 4, cidr: '10.10.10.0/24', enable_dhcp: false },
      allocation_pools: [{ start: '10.10.10.2', end: '10.10.10.199' }],
    },
    limits(),
  )
  const { id: routerId } = await routers.create({ name: 'writers' }, limits())
  await routers.addInterface(routerId, subnetId, limits())
  const [port, pairsPort] = await ports.createMany([{ network_id }, { network_id }], limits())
  const [portId, pairsPortId] = [port!.id, pairsPort!.id]
  const node = startNode({
    directory: nodeDirectory(t),
    host: nodeWithNic('', '02:00:00:00:00:01'),
    longLived: true,
  })
  t.after(() => node[Symbol.asyncDispose]())
  const ipam = {
    openstackConf: project.openstackConf,
    neutronConf: {
      ...{ mode: 'mix', hostPort: portId, reserve: 0 },
      ...{ usableAfterMs: 0, coolDownMs: 0, verifyAfterMs: pace.verifyMs },
    },
  }
  const seen: Record<Kind, string[]> = { routes: [], pairs: [], addresses: [] }
  const look: Record<Kind, () => Promise<string[]>> = {
    routes: async () => (await routers.get(routerId, limits()))!.routes.map(each => each.destination),
    pairs: async () => (await ports.get(pairsPortId, limits()))!.allowed_address_pairs!.map(each => each.ip_address),
    addresses: async () => (await ports.get(portId, limits()))!.fixed_ips.map(each => each.ip_address),
  }
  let seenMs = performance.now()
  const listeners = new Set<() => void>()
  // What a test does not look at is left alone: each look is work for the cloud.
  const refresh = async () => {
    const begunMs = performance.now()
    await Promise.all(looksAt.map(async kind => (seen[kind] = await look[kind]())))
    seenMs = begunMs
    for (const notice of listeners) notice()
  }
  await refresh()
  watchWith(t, refresh)
  return {
    ...{ cloud, routerId, subnetId, portId, pairsPortId, node, ipam, refresh, listeners },
    put: (path, body) => project.network('PUT', `/v2.0/${path}`, body),
    routes: () => seen.routes,
    pairs: () => seen.pairs,
    addresses: () => seen.addresses,
    seenMs: () => seenMs,
  }
}

/** Looks again and again until the test ends. */
function watchWith(t: TestContext, refresh: () => Promise<void>): void {
  let isOver = false
  const watching = (async () => {
    while (!isOver) {
      await sleep(LOOK_MS)
      await refresh()
    }
  })()
  t.after(async () => {
    isOver = true
    await watching
  })
}

testOtherWriters(pace, { concurrency: false, skip, timeout: 300_000 + pace.changes * 40_000 }, makeGround)
