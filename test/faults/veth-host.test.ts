// SPDX-License-Identifier: Apache-2.0

// Goal: whichever netlink request of an ADD of veth-host the kernel refuses, on the node or in the pod, the caller gets one
// error that names it, and nothing is left. Method: strace lets each request fail in turn, in the agent and in a process of
// its own; and it sees that no process is started. Needs root and strace.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { attach, trace, withoutStrace } from '../crash/strace.ts'
import {
  assertSameState,
  errorOf,
  makeLab,
  type Node,
  type RunningAgent,
  resultOf,
  skip,
  stateOfKernel,
} from '../nodelab.ts'
import { configOf, makePod, type Pod } from '../veth-host/pods.ts'

const REQUESTS_MAX = 100
/** Needs every kind of request: both families, the pod's default route. */
const everything = (pod: Pod) => configOf({ prevResult: pod.prevResult, isDefaultGateway: true, ipMasq: false })
const inPod = ({ netns }: Pod) => stateOfKernel(netns).filter(line => !line.includes(': anycast '))

describe('veth-host: a fault in each netlink request', { skip: skip || withoutStrace }, () => {
  let node: Node
  let pod: Pod
  let agent: RunningAgent
  let kept: string[]
  let keptInPod: string[]
  before(async () => {
    node = makeLab({ mode: 'agent' }).nodes[0]!
    agent = await node.startAgent()
    pod = makePod(node)
    const more = everything(pod)
    resultOf(await node.call('ADD', pod.it, { more }))
    resultOf(await node.call('DEL', pod.it, { more }))
    kept = node.state()
    keptInPod = inPod(pod)
  })
  after(() => agent[Symbol.asyncDispose]())

  test('ADD: ENOMEM in every request in turn is error 11, and DEL leaves nothing', async t => {
    const more = everything(pod)
    const failed: string[] = []
    for (let when = 1; when <= REQUESTS_MAX; when++) {
      const tracer = await attach(agent.pid, 'sendto', `error=ENOMEM:when=${when}`)
      const outcome = await node.call('ADD', pod.it, { more })
      tracer.stop()
      await tracer.ended
      if (outcome.code === 0) {
        resultOf(await node.call('DEL', pod.it, { more }))
        if (tracer.calls().length < when) break
        continue
      }
      const error = errorOf(outcome)
      assert.equal(error.code, 11, outcome.stdout)
      assert.match(error.msg, /^Cannot .+: .*\(ENOMEM\)/)
      // strace counts for each thread: the one that takes back may have met the fault as well, and left it to DEL.
      resultOf(await node.call('DEL', pod.it, { more }))
      assertSameState(node.state(), kept, `after ENOMEM in request ${when}`)
      assertSameState(inPod(pod), keptInPod, `in the pod, after ENOMEM in request ${when}`)
      failed.push(error.msg)
    }
    t.diagnostic(`failed: ${failed.length} requests`)
    assert.ok(failed.length >= 10, failed.join('\n'))
  })

  test('ADD and DEL: start no process but the one that was called', async () => {
    const tracer = await attach(agent.pid, 'execve,execveat,fork,vfork,clone,clone3')
    for (const verb of ['ADD', 'DEL'] as const) {
      const shim = trace('execve,execveat,fork,vfork,clone,clone3')
      resultOf(await node.call(verb, pod.it, { prefix: shim.prefix, more: everything(pod) }))
      assert.deepEqual(shim.calls(), ['execve'], verb)
    }
    tracer.stop()
    await tracer.ended
    assert.deepEqual(tracer.calls(), [])
  })
})
