// SPDX-License-Identifier: Apache-2.0

// Goal: 64 NICs of the node go to 64 containers at once, each to one, and come back at once with all that they had; two
// containers that want the same NIC: one gets it. Method: ends of veth pairs are the NICs. Needs root.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { assertSameState, makeLab, makeManyNetns, type Node, type RunningAgent, resultOf, skip } from './nodelab.ts'

const NICS = 64

describe('host-device, many at once', { skip }, () => {
  let node: Node
  let agent: RunningAgent | undefined
  let kept: string[]
  const attachment = (netns: string, index: number, device = index) => ({
    ...{ containerId: `d${index}`, netns, type: 'host-device' },
    config: { cniVersion: '1.1.0', name: 'nics', type: 'host-device', device: `nic${device}` },
  })

  before(async () => {
    node = makeLab({ mode: 'agent' }).nodes[0]!
    const all = Array.from({ length: NICS }, (_, index) => index)
    for (const index of all) {
      node.ip(`link add nic${index} type veth peer name far${index}`)
      node.ip(`addr add 198.18.${index}.1/24 dev nic${index}`)
    }
    agent = await node.startAgent()
    kept = node.state()
  })
  after(() => agent?.[Symbol.asyncDispose]())

  test(`${NICS} ADDs at once move as many NICs, as many DELs bring them back`, async t => {
    const all = makeManyNetns('pod', NICS).map((netns, index) => attachment(netns, index))
    const begin = performance.now()
    const results = (await Promise.all(all.map(it => node.call('ADD', it)))).map(resultOf)
    const middle = performance.now()
    assert.equal(new Set(results.map(({ interfaces }) => interfaces[0].mac)).size, NICS)
    assert.doesNotMatch(node.ip('-o link'), /: nic\d+@/)
    for (const outcome of await Promise.all(all.map(it => node.call('DEL', it)))) resultOf(outcome)
    t.diagnostic(`ADDs in ${Math.round(middle - begin)} ms, DELs in ${Math.round(performance.now() - middle)} ms`)
    assertSameState(node.state(), kept)
  })

  test('of four containers that want one NIC at once one gets it', async () => {
    const all = makeManyNetns('pod', 4).map((netns, index) => attachment(netns, 100 + index, 0))
    const outcomes = await Promise.all(all.map(it => node.call('ADD', it)))
    assert.equal(outcomes.filter(({ code }) => code === 0).length, 1)
    for (const it of all) resultOf(await node.call('DEL', it))
    assertSameState(node.state(), kept)
  })
})
