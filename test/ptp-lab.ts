// SPDX-License-Identifier: Apache-2.0

// What the tests of ptp share.

import assert from 'node:assert/strict'
import { fakeIpam } from './fake-ipam.ts'
import {
  type Attachment,
  type CallOptions,
  makeNetns,
  type Node,
  type Outcome,
  resultOf,
  type Verb,
} from './nodelab.ts'
import { suiteNode } from './suite-node.ts'

export const DONE = { code: 0, stdout: '' }
export const silent = ({ code, stdout }: Outcome) => ({ code, stdout })
export const V4 = [{ subnet: '10.6.0.0/24' }]
export const V6 = [{ subnet: 'fd00:6::/64' }]
export const DEFAULTS = [{ dst: '0.0.0.0/0' }, { dst: '::/0' }]

const ptpConfig = (node: Node, ipam: object = {}, more: object = {}) => ({
  cniVersion: '1.1.0',
  name: 'ptpnet',
  type: 'ptp',
  ipam: { type: 'host-local', dataDir: node.leases, ranges: [V4, V6], routes: DEFAULTS, ...ipam },
  ...more,
})

/** See `suiteNode`. */
export function ptpLab(mode: Node['mode']) {
  const at = suiteNode({
    mode,
    async bringForGood(node) {
      const config = ptpConfig(node, {}, { ipMasq: true })
      const it = { containerId: 'first', netns: makeNetns('first').path, type: 'ptp', config }
      resultOf(await node.call('ADD', it))
      resultOf(await node.call('DEL', it))
    },
  })
  const config = (ipam: object = {}, more: object = {}) => ptpConfig(at.node, ipam, more)
  const { newPod: newContainer } = at
  const newPod = (of: object = config(), more: Partial<Attachment> = {}) =>
    newContainer({ type: 'ptp', config: of, ...more })
  return Object.assign(at as Omit<typeof at, 'newPod'>, {
    ...{ config, newPod },
    staticIps: (addresses: object[], more: object = {}) => config({ type: 'static', addresses, ...more }),
    add: async (it: Attachment, options?: CallOptions) => resultOf(await at.node.call('ADD', it, options)),
    del: async (it: Attachment, options?: CallOptions) =>
      assert.deepEqual(silent(await at.node.call('DEL', it, options)), DONE),
    /** A container whose addresses come from a script. */
    withFakeIpam(answer: object | undefined, failing?: Verb) {
      const fake = fakeIpam(answer, failing)
      return { ...newPod(config(fake.more.ipam)), ...fake }
    },
  })
}
