// SPDX-License-Identifier: Apache-2.0

// Goal: kill -9 of a plugin at any step of ADD and DEL leaves nothing that one DEL, or the next agent, does not remove: ptp,
// bridge, portmap and veth-host (veth-route and macvlan are in plugin.test.ts).
// Method: strace kills the plugin, a process of its own, at its Nth netlink request or journal write; every other ADD gets
// no DEL, and an agent is started in the end. Needs root and strace.

import assert from 'node:assert/strict'
import { before, describe, test } from 'node:test'
import {
  type Attachment,
  assertSameState,
  eventually,
  makeLab,
  makeNetns,
  type Node,
  resultOf,
  skip,
} from '../nodelab.ts'
import { configOf, makePod } from '../veth-host/pods.ts'
import { eachStep } from './steps.ts'
import { tally, trace, withoutStrace } from './strace.ts'

let containers = 0
/** A container and its configuration, as the chain of that type would have it. */
const kinds: Readonly<Record<string, (node: Node) => Attachment>> = {
  ptp: node => ({ ...newPod(), config: node.config({ type: 'ptp', ipMasq: true }) }),
  bridge: node => ({
    ...newPod(),
    config: node.config({ type: 'bridge', isDefaultGateway: true, ipMasq: true, macspoofchk: true }),
  }),
  portmap() {
    const pod = newPod()
    const { pid } = process
    const prevResult = {
      cniVersion: '1.0.0',
      interfaces: [{ name: 'eth0', sandbox: pod.netns }],
      ips: [{ address: `10.20.${containers >> 8}.${containers & 255}/24`, interface: 0 }],
    }
    const portMappings = [{ hostPort: 8000 + containers, containerPort: 80, protocol: 'tcp' }]
    return {
      ...pod,
      config: {
        cniVersion: '1.0.0',
        name: `ports${pid}`,
        type: 'portmap',
        prevResult,
        runtimeConfig: { portMappings },
      },
    }
  },
  'veth-host'(node) {
    const { it, prevResult } = makePod(node, ['v4'])
    return { ...it, config: configOf({ prevResult, serviceCidr: ['10.96.0.0/12'] }) }
  },
}
const newPod = () => ({ containerId: `k${containers++}`, netns: makeNetns('pod').path })
const STEPS = ['sendto', 'pwrite64']
const REQUESTS = ['sendto']

describe('kill -9 of the plugin in a process of its own, by type', { skip: skip || withoutStrace }, () => {
  let node: Node
  let kept: string[]
  before(async () => {
    node = makeLab().nodes[0]!
    for (const [type, make] of Object.entries(kinds)) {
      const it = { ...make(node), type }
      for (const verb of ['ADD', 'DEL'] as const) resultOf(await node.call(verb, it))
    }
    kept = state()
  })
  /**
   * A bridge has no carrier without ports; sets and rules of the ports stay, empty. Of host-local the directory counts, not
   * the index of it, which one process and an agent have each their own of.
   */
  const state = () =>
    node
      .state()
      .filter(line => !/portmap_\w+ \{$|^reservation /.test(line))
      .map(line => line.replace(/NO-CARRIER,| linkdown/g, '').replace(/ +/g, ' '))
  const assertNothingLeft = (when: string) => assertSameState(state(), kept, when)
  let left = 0

  for (const [type, make] of Object.entries(kinds)) {
    test(`in ADD of ${type}: one DEL removes everything (DEL-07)`, async t => {
      let isEven = false
      const hit = await eachStep(
        async (syscall, when) => {
          const it = { ...make(node), type }
          const { prefix, calls } = trace(syscall, `signal=SIGKILL:when=${when}`)
          const { signal } = await node.call('ADD', it, { prefix })
          isEven = !isEven
          if (signal === 'SIGKILL' && isEven) left++
          else resultOf(await node.call('DEL', it))
          if (left === 0) assertNothingLeft(`after ${syscall} ${when}`)
          return signal === 'SIGKILL' ? calls().at(-1) : undefined
        },
        { steps: STEPS, isThorough: false },
      )
      t.diagnostic(`hit: ${tally(hit)}`)
      assert.ok(hit.length >= 3, `${hit.length}`)
    })
  }

  test('and where no DEL came, the next agent removes everything', async () => {
    assert.ok(left >= 4, `${left}`)
    await using _ = await node.startAgent({ reconcile: 1 })
    await eventually('all is undone', () => state().length <= kept.length, 15_000)
    assertNothingLeft('after the agent came')
  })

  for (const [type, make] of Object.entries(kinds))
    test(`in DEL of ${type}: one more DEL removes everything`, async t => {
      const hit = await eachStep(
        async (syscall, when) => {
          const it = { ...make(node), type }
          resultOf(await node.call('ADD', it))
          const { prefix, calls } = trace(syscall, `signal=SIGKILL:when=${when}`)
          const { signal } = await node.call('DEL', it, { prefix })
          resultOf(await node.call('DEL', it))
          assertNothingLeft(`after ${syscall} ${when}`)
          return signal === 'SIGKILL' ? calls().at(-1) : undefined
        },
        { steps: REQUESTS, isThorough: false },
      )
      t.diagnostic(`hit: ${tally(hit)}`)
      assert.ok(hit.length >= 1, `${hit.length}`)
    })
})
