// SPDX-License-Identifier: Apache-2.0

// Goal: kill -9 of the plugin in a process of its own at any step of ADD and DEL leaves nothing that one DEL does not remove.
// Method: strace kills it at its Nth netlink request, journal write, file operation; the run prints which steps were hit.
// Needs root and strace.

import assert from 'node:assert/strict'
import { before, describe, test } from 'node:test'
import { type Attachment, assertSameState, errorOf, makeLab, makeNetns, type Node, resultOf, skip } from '../nodelab.ts'
import { eachStep, keptBy, more, newPod } from './steps.ts'
import { tally, trace, withoutStrace } from './strace.ts'

describe('kill -9 of the plugin in a process of its own', { skip: skip || withoutStrace }, () => {
  let node: Node
  let kept: string[]
  let it: Attachment
  before(async () => {
    node = makeLab().nodes[0]!
    kept = await keptBy(node)
    it = newPod()
  })

  test('in ADD: one DEL removes everything (DEL-07)', async t => {
    const hit = await eachStep(async (syscall, when) => {
      const { prefix, calls } = trace(syscall, `signal=SIGKILL:when=${when}`)
      const { signal, code } = await node.call('ADD', it, { more, prefix })
      resultOf(await node.call('DEL', it, { more }))
      assertSameState(node.state(), kept, `after ${syscall} ${when}`)
      if (signal === 'SIGKILL') return calls().at(-1)
      assert.equal(code, 0)
      return undefined
    })
    t.diagnostic(`hit: ${tally(hit)}`)
    assert.ok(hit.length >= 10)
  })

  test('in DEL: one more DEL removes everything', async t => {
    const hit = await eachStep(async (syscall, when) => {
      resultOf(await node.call('ADD', it, { more }))
      const { prefix, calls } = trace(syscall, `signal=SIGKILL:when=${when}`)
      const { signal } = await node.call('DEL', it, { more, prefix })
      resultOf(await node.call('DEL', it, { more }))
      assertSameState(node.state(), kept, `after ${syscall} ${when}`)
      return signal === 'SIGKILL' ? calls().at(-1) : undefined
    })
    t.diagnostic(`hit: ${tally(hit)}`)
    assert.ok(hit.length >= 5)
  })

  test('in ADD of macvlan: one DEL, or the next ADD, removes the link from the container, too (DEL-07)', async t => {
    const pod = makeNetns('pod')
    const macvlan = {
      containerId: 'm',
      netns: pod.path,
      type: 'macvlan',
      config: { ...node.config(), type: 'macvlan' },
    }
    const hit = await eachStep(async (syscall, when) => {
      const { prefix, calls } = trace(syscall, `signal=SIGKILL:when=${when}`)
      const { signal } = await node.call('ADD', macvlan, { prefix })
      if (signal === 'SIGKILL' && when % 2 === 0) {
        const again = await node.call('ADD', macvlan)
        // It was killed when all was done.
        if (again.code !== 0) assert.equal(errorOf(again).code, 104)
      }
      resultOf(await node.call('DEL', macvlan))
      assertSameState(node.state(), kept, `after ${syscall} ${when}`)
      assert.doesNotMatch(pod.ip('-o link'), /eth0/, `after ${syscall} ${when}`)
      return signal === 'SIGKILL' ? calls().at(-1) : undefined
    })
    t.diagnostic(`hit: ${tally(hit)}`)
    assert.ok(hit.length >= 5)
  })
})
