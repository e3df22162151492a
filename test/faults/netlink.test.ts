// SPDX-License-Identifier: Apache-2.0

// Goal: whichever netlink request of an ADD the kernel refuses, the caller gets one error that names it, and nothing is
// left. Method: strace counts the requests of an ADD, then lets each fail in turn; and it sees that no process is started.
// Needs root and strace.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { type Kind, skipWithout } from '../child-link/lab.ts'
import { attach, tally, trace, withoutStrace } from '../crash/strace.ts'
import {
  type Attachment,
  assertSameState,
  type CallOptions,
  errorOf,
  makeLab,
  makeNetns,
  type Node,
  type RunningAgent,
  resultOf,
  run,
  skip,
  type Verb,
} from '../nodelab.ts'
import { skipUnlessWhole } from '../whole-run.ts'

const REQUESTS_MAX = 100
let containers = 0
/** Why a type cannot be tested here; false where it can. */
const skipped = (type: string) => skip || withoutStrace || (type === 'veth-route' ? false : skipWithout(type as Kind))
const linksIn = ({ netns }: Attachment) => run('nsenter', [`--net=${netns}`, 'ip', '-o', 'link'])
const newPod = (): Attachment => ({ containerId: `c${containers++}`, netns: makeNetns('pod').path })

/** An attachment that needs every kind of request: both families, masquerade. */
const everything = (node: Node) => ({
  ipMasq: true,
  ipam: {
    type: 'host-local',
    dataDir: node.leases,
    ranges: [
      [{ subnet: '10.10.10.0/24', rangeStart: '10.10.10.19', rangeEnd: '10.10.10.199' }],
      [{ subnet: 'fd00:10::/64', rangeStart: 'fd00:10::19' }],
    ],
    routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
  },
})

async function keptBy(node: Node): Promise<string[]> {
  const it = newPod()
  const more = everything(node)
  resultOf(await node.call('ADD', it, { more }))
  resultOf(await node.call('DEL', it, { more }))
  return node.state()
}

describe('a fault in each netlink request, in a process of its own', { skip: skip || withoutStrace }, () => {
  let node: Node
  let kept: string[]
  before(async () => {
    node = makeLab().nodes[0]!
    kept = await keptBy(node)
  })

  for (const [errno, code, whyNot] of [
    ['ENOMEM', 11, false],
    ['EPERM', 100, skipUnlessWhole],
  ] as const)
    test(`ADD: ${errno} in every request in turn is one error that says so, and nothing is left`, {
      skip: whyNot,
    }, async t => {
      const more = everything(node)
      const it = newPod()
      const failed: string[] = []
      for (let when = 1; when <= REQUESTS_MAX; when++) {
        const { prefix, calls } = trace('sendto', `error=${errno}:when=${when}`)
        const outcome = await node.call('ADD', it, { more, prefix })
        const requests = calls()
        if (requests.length < when) {
          resultOf(outcome)
          resultOf(await node.call('DEL', it, { more }))
          break
        }
        const request = requests[when - 1]!
        // An announcement is a courtesy, no request: the pod works without.
        if (request === 'sendto') {
          if (outcome.code === 0) resultOf(await node.call('DEL', it, { more }))
          else errorOf(outcome)
          assertSameState(node.state(), kept, `after ${errno} in request ${when}, ${request}`)
          continue
        }
        const error = errorOf(outcome)
        assert.equal(error.code, code, `${request}: ${outcome.stdout}`)
        assert.match(error.msg, new RegExp(`^Cannot .+: .*\\(${errno}\\)`), request)
        assertSameState(node.state(), kept, `after ${errno} in request ${when}, ${request}`)
        failed.push(request)
      }
      t.diagnostic(`failed: ${tally(failed)}`)
      assert.ok(failed.length >= 12, `${failed.length}`)
    })

  test('ADD: where undoing fails too, the error is still the first one and says so; DEL leaves nothing', async () => {
    const more = everything(node)
    const it = newPod()
    const add = async (when: string) => {
      const { prefix, calls } = trace('sendto', `error=EPERM:when=${when}`)
      return { outcome: await node.call('ADD', it, { more, prefix }), calls: calls() }
    }
    let undoing = 0
    for (let when = 2; when <= REQUESTS_MAX; when += 3) {
      const { outcome, calls } = await add(`${when}`)
      if (outcome.code === 0) resultOf(await node.call('DEL', it, { more }))
      if (calls.length < when) break
      if (outcome.code === 0) continue
      const { code, msg } = errorOf(outcome)
      const error = errorOf((await add(`${when}+`)).outcome)
      assert.deepEqual([error.code, error.msg], [code, msg], `request ${when}, ${calls[when - 1]}`)
      if (error.details?.includes('undoing what was done failed too: ')) undoing++
      resultOf(await node.call('DEL', it, { more }))
      assertSameState(node.state(), kept, `after EPERM from request ${when} on, ${calls[when - 1]}`)
    }
    assert.ok(undoing >= 2, `${undoing}`)
  })

  test('ADD and DEL: start no process but the one that was called', async () => {
    const it = newPod()
    for (const verb of ['ADD', 'DEL'] as const) {
      const { prefix, calls } = trace('execve,execveat,fork,vfork')
      resultOf(await node.call(verb, it, { prefix, more: everything(node) }))
      // The shim, and Node.js in its place.
      assert.deepEqual(calls(), ['execve', 'execve'], verb)
    }
  })
})

/** One per way to join a pod: the kernel is asked other things for each. */
const types = ['veth-route', 'macvlan', 'ipvlan', 'host-device'] as const
/** Why a type cannot be tested here; false where it can. */
const skippedOf = (type: (typeof types)[number]) => (type === 'host-device' ? skip || withoutStrace : skipped(type))

for (const type of types)
  describe(`a fault in each netlink request, in the agent, ${type}`, { skip: skippedOf(type) }, () => {
    let node: Node
    let kept: string[]
    let agent: RunningAgent
    const call = (verb: Verb, it: Attachment, options: CallOptions = {}) =>
      node.call(verb, { ...it, type, config: { ...node.config(), ...everything(node), device: 'hd0', type } }, options)
    before(async () => {
      node = makeLab({ mode: 'agent' }).nodes[0]!
      agent = await node.startAgent()
      node.ip('link add hd0 type veth peer name hd1')
      const it = newPod()
      for (const verb of ['ADD', 'DEL'] as const) resultOf(await call(verb, it))
      kept = node.state()
    })
    after(() => agent[Symbol.asyncDispose]())

    test('ADD: ENOBUFS in every request in turn is error 11, DEL leaves nothing, and the next ADD succeeds', async t => {
      let failed = 0
      for (let when = 1; when <= REQUESTS_MAX; when++) {
        const it = newPod()
        const tracer = await attach(agent.pid, 'sendto', `error=ENOBUFS:when=${when}`)
        const outcome = await call('ADD', it)
        tracer.stop()
        await tracer.ended
        if (outcome.code === 0) {
          resultOf(await call('DEL', it))
          if (tracer.calls().length < when) break
          continue
        }
        const error = errorOf(outcome)
        assert.equal(error.code, 11, outcome.stdout)
        assert.match(error.msg, /\(ENOBUFS\)/)
        // strace counts for each thread: the one that takes back may have met the fault as well, and left it to DEL.
        resultOf(await call('DEL', it))
        assertSameState(node.state(), kept, `after ENOBUFS in request ${when}`)
        assert.doesNotMatch(linksIn(it), /eth0/, `after ENOBUFS in request ${when}`)
        failed++
      }
      t.diagnostic(`failed: ${failed} requests`)
      // What the node keeps right is looked at once in a while only.
      assert.ok(failed >= 4, `${failed}`)
    })

    test('ADD and DEL: the agent starts no process', async () => {
      const tracer = await attach(agent.pid, 'execve,execveat,fork,vfork')
      const it = newPod()
      for (const verb of ['ADD', 'DEL'] as const) resultOf(await call(verb, it))
      tracer.stop()
      await tracer.ended
      assert.deepEqual(tracer.calls(), [])
      const shim = trace('execve,execveat,fork,vfork,clone,clone3')
      resultOf(await node.call('STATUS', it, { prefix: shim.prefix, more: { cniVersion: '1.1.0' } }))
      assert.deepEqual(shim.calls(), ['execve'])
    })
  })
