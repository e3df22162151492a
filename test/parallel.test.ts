// SPDX-License-Identifier: Apache-2.0

// Goal: 64 ADDs at once by 64 processes give 64 different addresses and no error, with an agent and without; then 64 DELs
// leave nothing. Also with calls of one container at once, and while STATUS, CHECK and GC run. Needs root.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import {
  type Attachment,
  assertSameState,
  cniBin,
  makeLab,
  makeManyNetns,
  type Node,
  type RunningAgent,
  resultOf,
  root,
  scratch,
  skip,
  start,
} from './nodelab.ts'
import { isWholeRun, skipUnlessWhole } from './whole-run.ts'

/** A process each takes its time on a small machine: a quarter of them, but with `--all`. */
const atOnce = (mode: Node['mode']) => (mode === 'standalone' && !isWholeRun ? 16 : 64)
const more = { ipMasq: true, cniVersion: '1.1.0' }

for (const mode of ['standalone', 'agent'] as const)
  describe(`at once, ${mode}`, { skip }, () => {
    let node: Node
    let agent: RunningAgent | undefined
    let kept: string[]
    let all: Attachment[]

    before(async () => {
      node = makeLab({ mode }).nodes[0]!
      if (mode === 'agent') agent = await node.startAgent()
      all = makeManyNetns('pod', atOnce(mode)).map((netns, index) => ({ containerId: `p${index}`, netns }))
      resultOf(await node.call('ADD', all[0]!, { more }))
      resultOf(await node.call('DEL', all[0]!, { more }))
      kept = node.state()
    })
    after(() => agent?.[Symbol.asyncDispose]())

    test(`${atOnce(mode)} ADDs give as many addresses, and all of them stand; as many DELs leave nothing`, async t => {
      const begin = performance.now()
      const outcomes = await Promise.all(all.map(it => node.call('ADD', it, { more })))
      t.diagnostic(`${all.length} ADDs in ${Math.round(performance.now() - begin)} ms`)
      const results = outcomes.map(resultOf)
      const addresses = new Set(results.map(({ ips }) => ips[0].address.split('/')[0]))
      assert.equal(addresses.size, all.length)
      assert.equal(new Set(results.map(({ interfaces }) => interfaces[0].name)).size, all.length)

      // What the kernel has is what was told.
      const routed = node
        .ip('route show proto 98')
        .trim()
        .split('\n')
        .map(line => line.split(' ')[0])
      const answered = node
        .ip('-4 neigh show proxy')
        .trim()
        .split('\n')
        .map(line => line.split(' ')[0])
      assert.deepEqual([new Set(routed), new Set(answered)], [addresses, addresses])
      for (const index of [0, 15, all.length - 1])
        resultOf(await node.call('CHECK', all[index]!, { more: { ...more, prevResult: results[index] } }))

      const ended = performance.now()
      for (const outcome of await Promise.all(all.map(it => node.call('DEL', it, { more })))) resultOf(outcome)
      t.diagnostic(`${all.length} DELs in ${Math.round(performance.now() - ended)} ms`)
      assertSameState(node.state(), kept)
    })

    test('ADD twice at once: one of them wins, the other is error 104', async () => {
      const [it] = all
      const outcomes = await Promise.all([1, 2, 3, 4].map(() => node.call('ADD', it!, { more })))
      const codes = outcomes.map(({ code, stdout }) => (code === 0 ? 0 : JSON.parse(stdout).code)).sort((a, b) => a - b)
      assert.deepEqual(codes, [0, 104, 104, 104])
      resultOf(await node.call('DEL', it!, { more }))
      assertSameState(node.state(), kept)
    })

    test('ADD and DEL of one container in any order leave it whole, or not at all', async () => {
      const [it] = all
      for (let round = 0; round < 3; round++) {
        const verbs = ['ADD', 'DEL', 'ADD', 'DEL'] as const
        const outcomes = await Promise.all(verbs.map(verb => node.call(verb, it!, { more })))
        for (const { code, stdout } of outcomes) if (code !== 0) assert.equal(JSON.parse(stdout).code, 104)
        resultOf(await node.call('DEL', it!, { more }))
        assertSameState(node.state(), kept, `round ${round}`)
      }
    })

    test('the executables may be installed anew while they run (ROB-04)', {
      skip: mode === 'standalone' && skipUnlessWhole,
    }, async () => {
      let isBusy = true
      const installing = (async () => {
        for (let round = 0; round < 3 || isBusy; round++) {
          const install = ['install', '--cni-bin', cniBin(), '--config', join(scratch, 'mode')]
          const { code, stderr } = await start([join(root, 'mooring'), ...install], {
            env: { PATH: process.env['PATH'] ?? '' },
          }).outcome
          assert.equal(code, 0, stderr)
        }
      })()
      const pods = all.slice(0, 8)
      for (let round = 0; round < 4; round++)
        for (const verb of ['ADD', 'DEL'] as const)
          for (const outcome of await Promise.all(pods.map(it => node.call(verb, it, { more })))) resultOf(outcome)
      isBusy = false
      await installing
      assertSameState(node.state(), kept)
    })

    test('GC with a list of before takes an attachment as a whole, or not at all (GC-11)', async () => {
      const pods = all.slice(0, 12)
      const gc = { more: { ...more, 'cni.dev/valid-attachments': [] } }
      const status: Attachment = { containerId: '', netns: '' }
      const adding = Promise.all(pods.map(it => node.call('ADD', it, { more })))
      const collecting = Promise.all([1, 2, 3].map(() => node.call('GC', status, gc)))
      for (const outcome of [...(await adding), ...(await collecting)]) resultOf(outcome)
      const lines = node.state()
      for (const [index, { containerId }] of pods.entries()) {
        const address = resultOf((await adding)[index]!).ips[0].address.split('/')[0]
        const traces = [
          lines.some(line => line.includes(`alias mooring veth-route podnet ${containerId} `)),
          lines.some(line => line.includes(`${address} dev eth0 proxy`)),
          lines.some(line => line.endsWith(`/podnet/${address}`)),
          lines.some(line => line.startsWith('attachment ') && line.includes(`"container_id":"${containerId}"`)),
        ]
        assert.equal(new Set(traces).size, 1, `${containerId} ${address}: ${traces}`)
      }
      for (const it of pods) resultOf(await node.call('DEL', it, { more }))
      assertSameState(node.state(), kept)
    })
  })
