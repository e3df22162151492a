// SPDX-License-Identifier: Apache-2.0

// Goal: kill -9 of plugin or agent at any HTTP call of ADD and DEL leaves nothing in kernel, journal and Neutron once one
// DEL came, or none and another agent; and the addresses that others put on the port stay. Method: the simulated OpenStack
// lets the Nth call hang, before its effect or after it; meanwhile the caller is killed. Needs root.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  assertSameState,
  eventually,
  folder,
  type RunningAgent,
  resultOf,
  rowsOf,
  skip,
  stateOfKernel,
} from '../nodelab.ts'
import { isWholeRun, skipUnlessWhole } from '../whole-run.ts'
import { type CloudNode, makeCloudNode } from './cloud.ts'
import { newPod } from './steps.ts'
import { tally } from './strace.ts'

const CALLS_MAX = 40
const TIMES = isWholeRun ? 3 : 1
/** Not a write of which nobody knows yet whether Neutron will carry it out: it is looked after for three minutes. */
const isDecided = (line: string) => !line.startsWith('port_intent')
/** Before the effect: the call is held back, and carried out long after its caller is dead. After it: no answer comes. */
const moments = [
  ['before', { act: 'delay', latencyMs: 700 }],
  ['after', { act: 'hang-after' }],
] as const

describe('kill -9 at an HTTP call', { skip }, () => {
  let cloud: CloudNode
  let foreign: string[]

  /** Resolves when the Nth request since the last `forgetRequests` is with the simulator, or the call has ended. */
  async function reached(requests: number, ended: () => boolean): Promise<boolean> {
    while (!ended()) {
      if (cloud.simulator.requests().length >= requests) {
        await sleep(120)
        return !ended()
      }
      await sleep(5)
    }
    return false
  }

  // A minute, three with `--all`.
  describe('of the plugin in a process of its own', { skip: skipUnlessWhole }, () => {
    let kernel: string[]
    before(async () => {
      cloud = await makeCloudNode('standalone')
      foreign = cloud.fixedIps()
      const it = newPod()
      resultOf(await cloud.node.call('ADD', it, cloud.options()))
      resultOf(await cloud.node.call('DEL', it, cloud.options()))
      kernel = stateOfKernel(cloud.node)
    })
    after(() => cloud[Symbol.asyncDispose]())

    for (const verb of ['ADD', 'DEL'] as const)
      test(`in ${verb}: one DEL and one look at the port remove everything`, async t => {
        const { node, simulator } = cloud
        const hit: string[] = []
        for (const [moment, injection] of moments)
          for (let skipped = 0; skipped < CALLS_MAX; skipped++)
            for (let time = 0; time < TIMES; time++) {
              const it = newPod()
              const options = { ...cloud.options(), env: { MOORING_DATA_DIR: folder('data') } }
              if (verb === 'DEL') resultOf(await node.call('ADD', it, options))
              simulator.forgetRequests()
              simulator.inject({ ...injection, skip: skipped })
              const running = node.start(verb, it, options)
              let hasEnded = false
              void running.outcome.then(() => {
                hasEnded = true
              })
              const isHit = await reached(skipped, () => hasEnded)
              running.child.kill('SIGKILL')
              await running.outcome
              await cloud.heal()
              // What the dead caller asked for may come true only now.
              if (moment === 'before') await sleep(750)
              resultOf(await node.call('DEL', it, options))
              // One more attachment of the node looks at the port.
              const next = newPod()
              resultOf(await node.call('ADD', next, options))
              resultOf(await node.call('DEL', next, options))
              const where = `${moment} call ${skipped + 1} of ${verb}`
              assertSameState(stateOfKernel(node), kernel, where)
              assert.deepEqual(cloud.fixedIps(), foreign, where)
              assert.deepEqual(rowsOf(options.env.MOORING_DATA_DIR).filter(isDecided), [], where)
              if (isHit) hit.push(`${moment} call ${skipped + 1}`)
              else skipped = CALLS_MAX
            }
        t.diagnostic(`hit: ${tally(hit)}`)
        assert.ok(hit.length >= 2)
      })
  })

  describe('of the agent', () => {
    let agent: RunningAgent
    let kept: string[]
    before(async () => {
      cloud = await makeCloudNode('agent')
      foreign = cloud.fixedIps()
      agent = await cloud.node.startAgent({ reconcile: 1 })
      const it = newPod()
      resultOf(await cloud.node.call('ADD', it, cloud.options()))
      resultOf(await cloud.node.call('DEL', it, cloud.options()))
      await eventually('Neutron is told', () => cloud.fixedIps().length === foreign.length)
      kept = cloud.node.state().filter(isDecided)
    })
    after(async () => {
      await agent[Symbol.asyncDispose]()
      await cloud[Symbol.asyncDispose]()
    })

    test('in ADD, and nobody sends DEL: the next agent removes everything', async t => {
      const { node, simulator } = cloud
      const hit: string[] = []
      for (const [moment, injection] of moments)
        for (let skipped = 0; skipped < CALLS_MAX; skipped++)
          for (let time = 0; time < TIMES; time++) {
            const it = newPod()
            simulator.forgetRequests()
            simulator.inject({ ...injection, skip: skipped })
            const running = node.start('ADD', it, cloud.options())
            let hasEnded = false
            void running.outcome.then(() => {
              hasEnded = true
            })
            const isHit = await reached(skipped, () => hasEnded)
            await agent.kill('SIGKILL')
            await running.outcome
            await cloud.heal()
            agent = await node.startAgent({ reconcile: 1 })
            // On a busy machine the kill may come when the pod stands: then it lives, until somebody sends DEL.
            const stands = rowsOf(node.dataDir).some(row => row.includes(`"${it.containerId}"`) && /"ready"/.test(row))
            if (stands || !isHit) resultOf(await node.call('DEL', it, cloud.options()))
            else hit.push(`${moment} call ${skipped + 1}`)
            if (!isHit) skipped = CALLS_MAX
          }
      t.diagnostic(`hit: ${tally(hit)}`)
      assert.ok(hit.length >= 2)
      await eventually(
        'Neutron has the addresses of others alone',
        () => cloud.fixedIps().length === foreign.length,
        30_000,
      )
      assert.deepEqual(cloud.fixedIps(), foreign)
      await eventually('all is undone', () => node.state().filter(isDecided).length <= kept.length, 15_000)
      assertSameState(node.state().filter(isDecided), kept)
    })
  })
})
