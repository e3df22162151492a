// SPDX-License-Identifier: Apache-2.0

// What the tests of veth-route share: a node on which the first pods came and went, pods, and what is left.

import { beforeEach } from 'node:test'
import { fakeIpam } from './fake-ipam.ts'
import { makeNetns, type Node, resultOf, type Verb } from './nodelab.ts'
import { suiteNode } from './suite-node.ts'

export const versions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']
export const RELEASED = { code: 0, stdout: '' }
export const silent = ({ code, stdout }: { code: number | null; stdout: string }) => ({ code, stdout })

export const v4 = [{ subnet: '10.10.10.0/24', rangeStart: '10.10.10.19', rangeEnd: '10.10.10.199' }]
export const v6 = [{ subnet: 'fd00:10::/64', rangeStart: 'fd00:10::19' }]
export const dualStack = (node: Node) => ({
  type: 'host-local',
  dataDir: node.leases,
  ranges: [v4, v6],
  routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
})
/** No second default route. */
export const without0 = (node: Node) => ({ type: 'host-local', dataDir: node.leases, ranges: [v4] })
export const secondSubnet = (node: Node) => ({
  type: 'host-local',
  dataDir: node.leases,
  ranges: [[{ subnet: '10.20.0.0/24' }]],
})

/** See `suiteNode`. */
export function vethRouteLab(mode: Node['mode']) {
  const at = suiteNode({
    mode,
    /** 169.254.1.1, the table, settings. */
    async bringForGood(node) {
      const it = { containerId: 'first', netns: makeNetns('first').path }
      for (const ipMasq of [false, true]) {
        resultOf(await node.call('ADD', it, { more: { ipMasq, ipam: dualStack(node) } }))
        resultOf(await node.call('DEL', it, { more: { ipMasq, ipam: dualStack(node) } }))
      }
    },
  })
  // So that a test that failed does not make the next ones fail.
  beforeEach(async () => {
    if (mode === 'agent' && at.agent === undefined) at.agent = await at.node.startAgent()
  })

  return Object.assign(at, {
    /** A container whose addresses come from a script. */
    withFakeIpam(answer: object | undefined, failing?: Verb) {
      const { more, options, ...fake } = fakeIpam(answer, failing)
      return { ...at.newPod(), ...fake, ipam: { more: { cniVersion: '1.1.0', ...more }, ...options } }
    },
  })
}
