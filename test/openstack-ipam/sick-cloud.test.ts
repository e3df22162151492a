// SPDX-License-Identifier: Apache-2.0

// Goal: a cloud that fails is left alone for a while (L0) or at least not asked to delete (L1); pods get what the node holds
// or are told at once when to try again, DEL neither waits nor fails, and everything goes on by itself. Needs no root.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { deadlineIn } from '#base'
import type { Simulator } from '#simulator'
import { limits, neutronList, setUp } from './cloud.ts'
import { type Node, until } from './node.ts'
import { serverNode } from './server-node.ts'

/** Times made short: the pauses of a real node are a second to half a minute. */
const gate = {
  watchful: true,
  calmMs: 1_500,
  breaker: { failuresMin: 3, spanMs: 100, pauseMs: 800, pauseMsMax: 800 },
}

const fail = (simulator: Simulator) => simulator.inject({ act: 'answer', status: 503, path: '/network/', times: 0 })
const mend = (simulator: Simulator) =>
  fetch(`${simulator.url}/simulator/inject`, { method: 'DELETE' }).then(response => assert.equal(response.status, 204))
const level = (node: Node) => node.world.clouds.list()[0]!.health('network').level

async function timed<T>(work: Promise<T>): Promise<{ ms: number; result: T }> {
  const begin = performance.now()
  const result = await work
  return { ms: performance.now() - begin, result }
}

test('L0: the reserve serves, who finds none is told at once when to try again, DEL is 0 at once; it ends by itself', async t => {
  const { node, simulator, ipam } = await setUp(t, true, { reserve: 2 }, { gate })
  const before = neutronList(simulator).length
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
  await until(() => neutronList(simulator).length === before + 2, 'the reserve')
  fail(simulator)
  assert.equal((await node.call('ADD', 'c1', ipam)).exitCode, 0)
  await until(() => level(node) === 'serve-held', 'L0')

  simulator.forgetRequests()
  assert.equal((await node.call('ADD', 'c2', ipam)).exitCode, 0, 'the reserve has one more')
  const refused = await timed(node.call('ADD', 'c3', ipam))
  assert.ok(refused.ms < 700, `${refused.ms} ms`)
  assert.equal(refused.result.json.code, 11)
  assert.match(
    refused.result.json.msg!,
    /^Cannot .*: neutron is left alone for a while: \d+ requests in a row failed, the last one: HTTP 503; next try in \d+\.\d s/,
  )
  const deleted = await timed(node.call('DEL', 'c1', ipam))
  assert.ok(deleted.ms < 700, `${deleted.ms} ms`)
  assert.equal(deleted.result.exitCode, 0)
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0, 'a node that was ready stays so')
  assert.ok(simulator.requests().length <= 10, `${simulator.requests().length} requests`)

  await mend(simulator)
  await until(() => level(node) !== 'serve-held', 'the end of L0')
  assert.equal((await node.call('ADD', 'c3', ipam)).exitCode, 0)
  await until(() => level(node) === 'normal', 'the end of L1')
  await node.call('DEL', 'c2', ipam)
  await node.call('DEL', 'c3', ipam)
  await until(() => neutronList(simulator).length === before + 2, 'the release')
})

test('a node that nobody asks finds out by itself that the cloud is back', async t => {
  const { node, simulator, ipam } = await setUp(t, true, {}, { gate })
  fail(simulator)
  assert.equal((await node.call('ADD', 'c1', ipam)).json.code, 11)
  assert.equal(level(node), 'serve-held')
  await mend(simulator)
  await until(() => level(node) === 'normal', 'the end')
})

/** Every second request fails, five in all: never many in a row. */
async function makeFlaky(node: Node, simulator: Simulator): Promise<void> {
  for (let count = 0; count < 5; count++) {
    simulator.inject({ act: 'answer', status: 503, path: '/network/v2.0/networks' })
    await node.world.clouds.list()[0]!.neutron.networks.list({}, limits())
  }
  assert.equal(level(node), 'allocate-only')
}

const held = {
  mix: neutronList,
  separate: ({ state }: Simulator) => [...state.rows.ports.live.keys()],
} as const

for (const mode of ['mix', 'separate'] as const)
  test(`L1, ${mode}: pods get addresses, DEL is 0, and nothing is deleted before it is calm`, async t => {
    const { node, simulator, ipam } = await setUp(t, true, { mode, node: 'worker-1', idleMs: 0 }, { gate })
    const before = held[mode](simulator).length
    for (const pod of ['c1', 'c2']) assert.equal((await node.call('ADD', pod, ipam)).exitCode, 0)
    await makeFlaky(node, simulator)
    for (const pod of ['c1', 'c2']) assert.equal((await node.call('DEL', pod, ipam)).exitCode, 0)
    assert.equal((await node.call('ADD', 'c3', ipam)).exitCode, 0)
    while (level(node) === 'allocate-only') {
      const count = held[mode](simulator).length
      assert.ok(count >= before + 2, `${count} of ${before + 2}`)
      await sleep(20)
    }
    await until(() => held[mode](simulator).length === before + 1, 'the removal')
  })

test('L1, eni: a NIC is not detached either while it is Neutron that fails, which has to delete its port', async t => {
  const { node, simulator, ipam, marked } = await serverNode(t, { idleMs: 0 }, { gate })
  assert.equal((await node.call('ADD', 'c1', ipam)).exitCode, 0)
  await makeFlaky(node, simulator)
  assert.equal((await node.call('DEL', 'c1', ipam)).exitCode, 0)
  while (level(node) === 'allocate-only') {
    assert.equal(marked().filter(each => each.device_id !== '').length, 1)
    await sleep(20)
  }
  await until(() => marked().length === 0, 'the removal')
})

test('STATUS of a node that was never ready names the level, and when the cloud is asked again', async t => {
  const { node, simulator, ipam } = await setUp(t, true, {}, { gate })
  fail(simulator)
  await node.call('ADD', 'c1', ipam)
  const { json } = await node.call('STATUS', '', ipam)
  assert.equal(json.code, 50)
  assert.match(json.msg!, /^No address can be given: .*neutron is left alone for a while.*next try in/)
  assert.match(json.details!, /L0 \(serve from what is held\)/)
})

test('a call that cannot end in time is not begun, and the error says so', async t => {
  const { node, simulator, ipam } = await setUp(t, true, {}, { gate: { ...gate, breaker: { failuresMin: 1_000 } } })
  assert.equal((await node.call('ADD', 'c1', ipam)).exitCode, 0)
  const { neutron } = node.world.clouds.list()[0]!
  simulator.inject({ act: 'delay', path: '/network/', latencyMs: 150, times: 0 })
  for (let count = 0; count < 5; count++) await neutron.networks.list({}, limits())
  simulator.forgetRequests()
  await assert.rejects(neutron.networks.list({}, { deadline: deadlineIn(75) }), {
    type: 'TooSlow',
    kind: 'transient',
    effect: 'none',
    message: /neutron takes 0\.[12] s for it at the moment, and 0\.\d s are left, so it was not begun/,
  })
  assert.equal(simulator.requests().length, 0)
  await neutron.networks.list({}, limits())
})
