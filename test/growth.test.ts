// SPDX-License-Identifier: Apache-2.0

// Promise: an ADD and a DEL ask the kernel about their own pod. What they read does not grow with the pods that are there.
// Needs root and strace.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { attach, withoutStrace } from './crash/strace.ts'
import { type Attachment, makeManyNetns, type Node, resultOf, skip } from './nodelab.ts'
import { suiteNode } from './suite-node.ts'

const MORE_PODS = 30
/** With one more link, neighbour, address or element for each pod, the answers would be larger. */
const BYTES_MAX = 1024
/** A pod of veth-host has two rules, which are all read for the tables that they lead to: the kernel selects none. */
const RULES_BYTES = 2 * 80

type Chain = readonly [type: string, keys: object][]
const chains: { readonly [name: string]: Chain } = {
  'veth-route': [['veth-route', { ipMasq: true }]],
  ptp: [['ptp', { ipMasq: true }]],
  bridge: [['bridge', { isGateway: true, ipMasq: true, macspoofchk: true }]],
  macvlan: [['macvlan', {}]],
  'veth-host': [
    ['macvlan', {}],
    ['veth-host', { serviceCidr: '10.96.0.0/12' }],
  ],
}

describe('what is read of the kernel', { skip: skip || withoutStrace }, () => {
  const at = suiteNode({ mode: 'agent', bringForGood: async () => undefined })

  for (const [name, plugins] of Object.entries({
    ...chains,
    portmap: [...chains['veth-route']!, ['portmap', {}] as [string, object]],
  })) {
    let pods = 0
    const newPods = (count: number): Pod[] =>
      makeManyNetns('pod', count).map(netns => {
        pods++
        const runtimeConfig = { portMappings: [{ hostPort: 8000 + pods, containerPort: 80, protocol: 'tcp' }] }
        return { it: { containerId: `${name}${pods}`, netns }, more: { runtimeConfig } }
      })

    test(`${name}: ADD and DEL read as much with ${MORE_PODS} pods more`, async () => {
      const few = await readBy(at.node, at.agent.pid, plugins, newPods(3))
      const others = newPods(MORE_PODS)
      await Promise.all(others.map(pod => callChain(at.node, 'ADD', plugins, pod)))
      const many = await readBy(at.node, at.agent.pid, plugins, newPods(3))
      await Promise.all(others.map(pod => callChain(at.node, 'DEL', plugins, pod)))
      const rules = plugins.some(([type]) => type === 'veth-host') ? MORE_PODS * RULES_BYTES : 0
      const max = { ADD: BYTES_MAX + rules, DEL: BYTES_MAX }
      for (const verb of ['ADD', 'DEL'] as const)
        assert.ok(many[verb] - few[verb] < max[verb], `${verb}: ${few[verb]} bytes, then ${many[verb]}`)
    })
  }
})

type Pod = { readonly it: Attachment; readonly more: object }

/** What ADD and DEL of a pod make the agent read, when it has just done the same for others. */
async function readBy(node: Node, pid: number, plugins: Chain, pods: readonly Pod[]) {
  const [first, second, last] = pods as [Pod, Pod, Pod]
  await callChain(node, 'ADD', plugins, first)
  await using traced = await tracedAgent(pid)
  await callChain(node, 'ADD', plugins, second)
  const begun = traced.received()
  await callChain(node, 'ADD', plugins, last)
  const added = traced.received()
  await callChain(node, 'DEL', plugins, last)
  const deleted = traced.received()
  for (const pod of [second, first]) await callChain(node, 'DEL', plugins, pod)
  return { ADD: added - begun, DEL: deleted - added }
}

async function tracedAgent(pid: number) {
  const { received, stop, ended } = await attach(pid, 'recvfrom')
  return {
    received,
    async [Symbol.asyncDispose]() {
      stop()
      await ended
    },
  }
}

async function callChain(node: Node, verb: 'ADD' | 'DEL', plugins: Chain, { it, more }: Pod): Promise<void> {
  const ipam = { type: 'host-local', dataDir: node.leases, ranges: [[{ subnet: '10.1.0.0/16' }]] }
  let prevResult: object | undefined
  for (const [type, keys] of verb === 'ADD' ? plugins : plugins.toReversed()) {
    const config = { cniVersion: '1.0.0', name: 'net', type, ipam, ...keys, ...more, ...(prevResult && { prevResult }) }
    prevResult = resultOf(await node.call(verb, { ...it, type, config }))
  }
}
