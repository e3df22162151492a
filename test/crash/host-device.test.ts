// SPDX-License-Identifier: Apache-2.0

// Goal: kill -9 of host-device at any step of ADD and DEL: one DEL more, and the NIC is on the node with all that it had.
// Method: as in plugin.test.ts. Needs root and strace.

import assert from 'node:assert/strict'
import { before, describe, test } from 'node:test'
import { type Attachment, assertSameState, eventually, makeLab, type Node, resultOf, run, skip } from '../nodelab.ts'
import { eachStep, newPod } from './steps.ts'
import { tally, trace, withoutStrace } from './strace.ts'

describe('kill -9 of host-device in a process of its own', { skip: skip || withoutStrace }, () => {
  let node: Node
  let kept: string[]
  let it: Attachment
  /** What is done to the journal is the same for every plugin. */
  const steps = ['sendto', 'setns']
  const more = {
    ...{ type: 'host-device', device: 'dev23' },
    ipam: { type: 'static', addresses: [{ address: '10.50.0.9/24' }], routes: [{ dst: '10.60.0.0/16' }] },
  }
  before(async () => {
    node = makeLab().nodes[0]!
    const lines = [
      'link add dev23 type veth peer name peer23',
      'link set peer23 up',
      'link set dev23 mtu 1400 alias storage up',
      'link property add dev dev23 altname eth0p1',
      'addr add 10.99.0.5/24 brd + dev dev23',
      'route add 10.98.0.0/16 via 10.99.0.1',
    ]
    run('ip', ['-n', node.name, '-batch', '-'], lines.join('\n'))
    await eventually('carrier', () => (node.ip('-o link').match(/LOWER_UP/g) ?? []).length === 4)
    // A name that the NIC has already makes one step more.
    it = { ...newPod(), type: 'host-device', ifName: 'eth0p1' }
    kept = stateOf()
  })

  /** Without what follows from a carrier, which comes a moment after the link is up. */
  const stateOf = () => node.state().map(line => line.replace(/ linkdown|<\S+>/g, ''))

  test('in ADD: one DEL brings it back (DEL-07)', async t => {
    const hit = await eachStep(
      async (syscall, when) => {
        const { prefix, calls } = trace(syscall, `signal=SIGKILL:when=${when}`)
        const { signal, code } = await node.call('ADD', it, { more, prefix })
        resultOf(await node.call('DEL', it, { more }))
        assertSameState(stateOf(), kept, `after ${syscall} ${when}`)
        if (signal === 'SIGKILL') return calls().at(-1)
        assert.equal(code, 0)
        return undefined
      },
      { steps },
    )
    t.diagnostic(`hit: ${tally(hit)}`)
    assert.ok(hit.length >= 3)
  })

  test('in DEL: one more brings it back', async t => {
    const hit = await eachStep(
      async (syscall, when) => {
        resultOf(await node.call('ADD', it, { more }))
        const { prefix, calls } = trace(syscall, `signal=SIGKILL:when=${when}`)
        const { signal } = await node.call('DEL', it, { more, prefix })
        resultOf(await node.call('DEL', it, { more }))
        assertSameState(stateOf(), kept, `after ${syscall} ${when}`)
        return signal === 'SIGKILL' ? calls().at(-1) : undefined
      },
      { steps },
    )
    t.diagnostic(`hit: ${tally(hit)}`)
    assert.ok(hit.length >= 3)
  })
})
