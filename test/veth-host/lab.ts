// SPDX-License-Identifier: Apache-2.0

// What the tests of veth-host share.

import { afterEach } from 'node:test'
import { type CallOptions, type Node, resultOf, stateOfKernel, type Verb } from '../nodelab.ts'
import { suiteNode } from '../suite-node.ts'
import { configOf, makePod, type Pod, type Version } from './pods.ts'

export const released = { code: 0, stdout: '' }
export const silent = ({ code, stdout }: { code: number | null; stdout: string }) => ({ code, stdout })
export const BY_NODE = { isDefaultGateway: true }
/** Without the space that `ip` ends its lines with. */
export const lines = (text: string) =>
  text
    .split('\n')
    .map(line => line.trim())
    .filter(line => line !== '')

/** The anycast address that a forwarding machine has follows from the setting, which stays. */
export const inPod = ({ netns }: Pod) => stateOfKernel(netns).filter(line => !line.includes(': anycast '))

/** See `suiteNode`. Each pod has the NIC that an earlier plugin of the chain gave it. */
export function vethHostLab(mode: Node['mode']) {
  const callOn = (node: Node, verb: Verb, pod: Pod, keys: object = {}, options: CallOptions = {}) =>
    node.call(verb, pod.it, { ...options, more: configOf({ prevResult: pod.prevResult, ...keys }) })
  const made: Pod[] = []
  const makePodOn = (node: Node, families?: readonly Version[]): Pod => {
    const pod = makePod(node, families)
    made.push(pod)
    return pod
  }
  const at = suiteNode({
    mode,
    /** The table of nf_tables, settings. */
    async bringForGood(node) {
      const pod = makePodOn(node)
      resultOf(await callOn(node, 'ADD', pod))
      resultOf(await callOn(node, 'DEL', pod))
    },
  })
  // So that a test that failed does not make the next ones fail.
  afterEach(async context => {
    for (const pod of made.splice(0)) {
      if (!('passed' in context && context.passed)) await callOn(at.node, 'DEL', pod)
      pod.netns.remove()
    }
  })
  return Object.assign(at as Omit<typeof at, 'newPod'>, {
    newPod: (families?: readonly Version[]) => makePodOn(at.node, families),
    call: (verb: 'ADD' | 'DEL' | 'CHECK', pod: Pod, keys?: object, options?: CallOptions) =>
      callOn(at.node, verb, pod, keys, options),
  })
}
