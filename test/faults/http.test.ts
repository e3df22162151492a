// SPDX-License-Identifier: Apache-2.0

// Goal: whichever HTTP call of an ADD goes wrong, the caller gets an address or one error that names service and reason;
// and after the error, or after DEL, nothing is left in kernel, journal and Neutron. Method: the simulated OpenStack
// counts the calls of an ADD, then spoils each in turn. Needs root.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { Injection } from '#simulator'
import { type CloudNode, makeCloudNode } from '../crash/cloud.ts'
import {
  type Attachment,
  assertSameState,
  errorOf,
  eventually,
  folder,
  makeNetns,
  type RunningAgent,
  resultOf,
  rowsOf,
  skip,
  stateOfKernel,
} from '../nodelab.ts'
import { skipUnlessWhole } from '../whole-run.ts'

const CALLS_MAX = 40
/** Not a write of which nobody knows yet whether Neutron will carry it out: it is looked after for three minutes. */
const isDecided = (line: string) => !line.startsWith('port_intent')
const faults: [string, Injection][] = [
  ['is forbidden', { act: 'answer', status: 403 }],
  ['fails once', { act: 'answer', status: 503, headers: { 'retry-after': '0' } }],
  ['is cut off', { act: 'cut' }],
  ['is done, and its answer is lost', { act: 'cut-after' }],
  ['is done, and answered with an error', { act: 'answer-after', status: 500 }],
]

describe('a fault in each HTTP call of an ADD, in a process of its own', { skip: skip || skipUnlessWhole }, () => {
  let cloud: CloudNode
  let it: Attachment
  let kernel: string[]
  let addresses: string[]
  before(async () => {
    cloud = await makeCloudNode('standalone')
    it = { containerId: 'c1', netns: makeNetns('pod').path }
    const { node } = cloud
    addresses = cloud.fixedIps()
    resultOf(await node.call('ADD', it, cloud.options()))
    resultOf(await node.call('DEL', it, cloud.options()))
    kernel = stateOfKernel(node)
  })
  after(() => cloud[Symbol.asyncDispose]())

  for (const [what, injection] of faults)
    test(`ADD: where one ${what}`, async t => {
      const { node, simulator } = cloud
      const failed: string[] = []
      let recovered = 0
      for (let skipped = 0; skipped < CALLS_MAX; skipped++) {
        // A journal and a token cache of its own: every call is made.
        const dataDir = folder('data')
        const options = { ...cloud.options(), env: { MOORING_DATA_DIR: dataDir } }
        simulator.forgetRequests()
        simulator.inject({ ...injection, skip: skipped })
        const outcome = await node.call('ADD', it, options)
        const spoilt = simulator.requests().find(({ injected }) => injected !== undefined)
        const where = `${what}: call ${skipped + 1}, ${spoilt?.method} ${spoilt?.path}`
        await cloud.heal()
        if (outcome.code === 0) recovered++
        else {
          const error = errorOf(outcome)
          assert.match(`${error.msg} ${error.details}`, /Keystone|Neutron|identity|network/i, where)
          assert.ok(error.code === 11 || error.code === 7 || error.code >= 100, `${where}: ${outcome.stdout}`)
          failed.push(`${spoilt?.method} ${error.code}`)
          assertSameState(stateOfKernel(node), kernel, where)
        }
        resultOf(await node.call('DEL', it, options))
        assertSameState(stateOfKernel(node), kernel, where)
        assert.deepEqual(cloud.fixedIps(), addresses, where)
        assert.deepEqual(rowsOf(dataDir).filter(isDecided), [], where)
        if (spoilt === undefined) break
      }
      t.diagnostic(
        `${recovered - 1} times ADD went on, ${failed.length} times it failed: ${[...new Set(failed)].join(', ')}`,
      )
      assert.ok(failed.length + recovered > 4)
    })
})

describe('a fault in each HTTP call of an ADD, in the agent', { skip }, () => {
  let cloud: CloudNode
  let agent: RunningAgent
  before(async () => {
    cloud = await makeCloudNode('agent')
    agent = await cloud.node.startAgent({ reconcile: 1 })
  })
  after(async () => {
    await agent[Symbol.asyncDispose]()
    await cloud[Symbol.asyncDispose]()
  })

  test('ADD: the agent gives an address or an error, and takes back what it asked for', async () => {
    const { node, simulator } = cloud
    const addresses = cloud.fixedIps()
    const it = { containerId: 'c0', netns: makeNetns('pod').path }
    resultOf(await node.call('ADD', it, cloud.options()))
    resultOf(await node.call('DEL', it, cloud.options()))
    await eventually('Neutron is told', () => cloud.fixedIps().length === addresses.length)
    const kept = node.state()
    for (const [what, injection] of faults)
      for (let skipped = 0; skipped < CALLS_MAX; skipped++) {
        simulator.forgetRequests()
        simulator.inject({ ...injection, skip: skipped })
        const outcome = await node.call('ADD', it, cloud.options())
        const isSpoilt = simulator.requests().some(({ injected }) => injected !== undefined)
        await cloud.heal()
        if (outcome.code !== 0) errorOf(outcome)
        resultOf(await node.call('DEL', it, cloud.options()))
        await eventually('Neutron is told', () => cloud.fixedIps().length === addresses.length)
        assert.deepEqual(cloud.fixedIps(), addresses, what)
        await eventually('the journal is clean', () => node.state().filter(isDecided).length <= kept.length)
        assertSameState(node.state().filter(isDecided), kept, what)
        if (!isSpoilt) break
      }
  })
})
