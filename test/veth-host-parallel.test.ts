// SPDX-License-Identifier: Apache-2.0

// Goal: many ADDs of veth-host at once, by a process each, give each pod a routing table of its own and no error, with an
// agent and without; then as many DELs leave nothing. Needs root.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import {
  type Attachment,
  assertSameState,
  makeLab,
  makeManyNetns,
  type Node,
  type RunningAgent,
  resultOf,
  run,
  skip,
} from './nodelab.ts'
import { configOf } from './veth-host/pods.ts'

for (const [mode, atOnce] of [
  ['standalone', 8],
  ['agent', 64],
] as const)
  describe(`veth-host at once, ${mode}`, { skip }, () => {
    let node: Node
    let agent: RunningAgent | undefined
    let all: { it: Attachment; more: object; address: string }[]
    let kept: string[]

    before(async () => {
      node = makeLab({ mode }).nodes[0]!
      if (mode === 'agent') agent = await node.startAgent()
      const paths = makeManyNetns('pod', atOnce)
      const names = paths.map(path => path.replace('/run/netns/', ''))
      run(
        'ip',
        ['-n', node.name, '-batch', '-'],
        names.map(name => `link add link eth0 name nic netns ${name} type macvlan mode bridge\n`).join(''),
      )
      all = paths.map((netns, index) => {
        const address = `10.10.10.${20 + index}`
        const prevResult = {
          cniVersion: '1.0.0',
          interfaces: [{ name: 'eth0', sandbox: netns }],
          ips: [{ address: `${address}/24`, gateway: '10.10.10.1', interface: 0 }],
        }
        run(
          'ip',
          ['-n', names[index]!, '-batch', '-'],
          `link set nic name eth0\naddr add ${address}/24 dev eth0\nlink set eth0 up\n`,
        )
        return {
          address,
          it: { containerId: `p${index}`, netns, type: 'veth-host' },
          more: configOf({ prevResult, serviceCidr: '10.96.0.0/12', isDefaultGateway: index % 2 === 1 }),
        }
      })
      const { it, more } = all[0]!
      resultOf(await node.call('ADD', it, { more }))
      resultOf(await node.call('DEL', it, { more }))
      kept = node.state()
    })
    after(() => agent?.[Symbol.asyncDispose]())

    test(`${atOnce} ADDs have as many tables, and all of them stand; as many DELs leave nothing`, async t => {
      const begin = performance.now()
      const outcomes = await Promise.all(all.map(({ it, more }) => node.call('ADD', it, { more })))
      t.diagnostic(`${atOnce} ADDs in ${Math.round(performance.now() - begin)} ms`)
      const results = outcomes.map(resultOf)
      const rules = [...node.ip('rule').matchAll(/1024:\s+from all iif (\S+) lookup (\d+)/g)]
      assert.equal(new Set(rules.map(rule => rule[1])).size, atOnce)
      assert.equal(new Set(rules.map(rule => rule[2])).size, atOnce)
      for (const [index, { address }] of all.entries()) {
        const link = results[index].interfaces[1].name
        const table = rules.find(rule => rule[1] === link)![2]
        assert.match(node.ip(`route show table ${table}`), new RegExp(`^default via ${address} dev ${link} `))
      }
      for (const index of [0, 1, atOnce - 1]) {
        const { it, more } = all[index]!
        resultOf(await node.call('CHECK', it, { more: { ...more, prevResult: results[index] } }))
      }
      const ended = performance.now()
      for (const outcome of await Promise.all(all.map(({ it, more }) => node.call('DEL', it, { more }))))
        resultOf(outcome)
      t.diagnostic(`${atOnce} DELs in ${Math.round(performance.now() - ended)} ms`)
      assertSameState(node.state(), kept)
    })

    test('ADD and DEL of one container in any order leave it whole, or not at all', async () => {
      const { it, more } = all[0]!
      const verbs = ['ADD', 'DEL', 'ADD', 'DEL', 'ADD'] as const
      const outcomes = await Promise.all(verbs.map(verb => node.call(verb, it, { more })))
      for (const { code, stdout } of outcomes) if (code !== 0) assert.equal(JSON.parse(stdout).code, 104)
      resultOf(await node.call('DEL', it, { more }))
      assertSameState(node.state(), kept)
    })
  })
