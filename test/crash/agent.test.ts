// SPDX-License-Identifier: Apache-2.0

// Goal: kill -9 of the agent, or of a shim, at any step of ADD and DEL leaves nothing that one DEL, or the next agent, does not remove.
// Method: strace kills it at its Nth netlink request, journal write, file operation; the run prints which steps were hit.
// Needs root and strace.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { assertSameState, eventually, makeLab, type Node, type RunningAgent, resultOf, skip } from '../nodelab.ts'
import { eachStep, keptBy, more, newPod, STEPS_MAX } from './steps.ts'
import { attach, tally, trace, withoutStrace } from './strace.ts'

describe('kill -9 of the agent', { skip: skip || withoutStrace }, () => {
  let node: Node
  let kept: string[]
  let agent: RunningAgent
  before(async () => {
    node = makeLab({ mode: 'agent' }).nodes[0]!
    agent = await node.startAgent({ reconcile: 1 })
    kept = await keptBy(node)
  })
  after(() => agent[Symbol.asyncDispose]())

  /** Runs a call while the agent is killed at a step, and starts the agent again where it was. */
  async function killAt(syscall: string, when: number, call: () => Promise<unknown>): Promise<string | undefined> {
    const tracer = await attach(agent.pid, syscall, `signal=SIGKILL:when=${when}`)
    await call()
    const step = await Promise.race([agent.ended.then(() => tracer.calls().at(-1) ?? syscall), sleep(20, undefined)])
    if (step === undefined) {
      tracer.stop()
      await tracer.ended
    }
    // One that was not reached goes on; it may have been hit by what it did afterwards.
    const hasEnded = await Promise.race([agent.ended.then(() => true), sleep(20, false)])
    if (hasEnded) agent = await node.startAgent({ reconcile: 1 })
    return step
  }

  test('in ADD: one DEL removes everything (DEL-07)', async t => {
    const hit = await eachStep(async (syscall, when) => {
      const it = newPod()
      const step = await killAt(syscall, when, () => node.call('ADD', it, { more }))
      resultOf(await node.call('DEL', it, { more }))
      assertSameState(node.state(), kept, `after ${syscall} ${when}`)
      return step
    })
    t.diagnostic(`hit: ${tally(hit)}`)
    assert.ok(hit.length >= 5)
  })

  test('in ADD, and nobody sends DEL: the next agent removes everything', async t => {
    const hit = await eachStep(async (syscall, when) => {
      const it = newPod()
      const step = await killAt(syscall, when, () => node.call('ADD', it, { more }))
      // Its ADD was answered: the attachment is the runtime's to delete.
      if (step === undefined) resultOf(await node.call('DEL', it, { more }))
      return step
    })
    t.diagnostic(`hit: ${tally(hit)}`)
    await eventually('all is undone', () => node.state().length <= kept.length, 15_000)
    assertSameState(node.state(), kept)
  })

  test('in DEL: the promise is kept by the next agent', async t => {
    const hit = await eachStep(async (syscall, when) => {
      const it = newPod()
      resultOf(await node.call('ADD', it, { more }))
      const step = await killAt(syscall, when, async () => resultOf(await node.call('DEL', it, { more })))
      await eventually('DEL is done', () => node.state().length <= kept.length)
      assertSameState(node.state(), kept, `after ${syscall} ${when}`)
      return step
    })
    t.diagnostic(`hit: ${tally(hit)}`)
    assert.ok(hit.length >= 3)
  })

  test('kill -9 of the shim: ADD is withdrawn, or one DEL removes it', async t => {
    const hit: string[] = []
    for (const syscall of ['connect', 'open', 'read', 'poll', 'write'])
      for (let when = 1; when <= STEPS_MAX; when++) {
        const it = newPod()
        const { prefix, calls } = trace(syscall, `signal=SIGKILL:when=${when}`)
        const { signal } = await node.call('ADD', it, { more, prefix })
        resultOf(await node.call('DEL', it, { more }))
        assertSameState(node.state(), kept, `after ${syscall} ${when}`)
        if (signal !== 'SIGKILL') break
        hit.push(calls().at(-1) ?? syscall)
      }
    t.diagnostic(`hit: ${tally(hit)}`)
    assert.ok(hit.length >= 5)
  })
})
