// SPDX-License-Identifier: Apache-2.0

// What the tests of bridge share.

import { spawnSync } from 'node:child_process'
import { afterEach, beforeEach } from 'node:test'
import { fakeIpam } from './fake-ipam.ts'
import { type Attachment, eventually, makeNetns, type Netns, type Node, resultOf, type Verb } from './nodelab.ts'
import { suiteNode } from './suite-node.ts'

export const RELEASED = { code: 0, stdout: '' }
export const silent = ({ code, stdout }: { code: number | null; stdout: string }) => ({ code, stdout })
/** The pods' network; node and pods outside of it are 10.10.10.0/24. */
export const v4 = [{ subnet: '10.1.0.0/16' }]
export const v6 = [{ subnet: 'fd00:1::/64' }]
export const hostLocal = (node: Node, ...ranges: object[][]) => ({ type: 'host-local', dataDir: node.leases, ranges })
export const bridgeConfig = (node: Node, more: object = {}) => ({
  cniVersion: '1.1.0',
  name: 'brnet',
  type: 'bridge',
  isDefaultGateway: true,
  ipam: hostLocal(node, v4),
  ...more,
})
/** What is on a node and in pods, but for the carrier of a bridge, which follows its ports. */
export const stateOf = (node: Node, ...pods: Netns[]): string[] =>
  node.state(...pods).map(line => line.replace(/NO-CARRIER,| linkdown/g, '').replace(/ +/g, ' '))
export const pings = (from: Netns, address: string, ...options: string[]) =>
  spawnSync('ip', ['netns', 'exec', from.name, 'ping', '-c1', '-W1', ...options, address]).status === 0

let knowsVlans: boolean | undefined
/** Whether this kernel filters VLANs (CONFIG_BRIDGE_VLAN_FILTERING). */
export function kernelKnowsVlans(): boolean {
  knowsVlans ??=
    spawnSync('ip', ['-n', makeNetns('probe').name, 'link', 'add', 'br0', 'type', 'bridge', 'vlan_filtering', '1'])
      .status === 0
  return knowsVlans
}

/** The kernel gives the bridge a link-local address, checks it, and drops its carrier with the last port. */
const settled = (node: Node) =>
  eventually('the bridge is settled', () => !/tentative/.test(node.ip('-6 addr show dev cni0')))

/** See `suiteNode`. */
export function bridgeLab() {
  const at = suiteNode({
    mode: 'agent',
    stateOf,
    /** Bridge, gateway, tables, settings. */
    async bringForGood(node) {
      const config = bridgeConfig(node, { ipMasq: true, macspoofchk: true, ipam: hostLocal(node, v4, v6) })
      const it = { containerId: 'first', netns: makeNetns('first').path, type: 'bridge', config }
      resultOf(await node.call('ADD', it))
      resultOf(await node.call('DEL', it))
      await settled(node)
    },
  })

  const spare: string[] = []
  afterEach(context => {
    if ('passed' in context && context.passed) return
    for (const link of spare.splice(0)) spawnSync('ip', ['-n', at.node.name, 'link', 'del', link])
  })
  beforeEach(() => void spare.splice(0))

  const { newPod: newContainer } = at
  const newPod = (more: object = {}) => {
    const config = bridgeConfig(at.node, more)
    const { pod, it } = newContainer({ type: 'bridge', config })
    return { pod, it: { ...it, config } }
  }
  return Object.assign(at as Omit<typeof at, 'newPod'>, {
    newPod,
    settled: () => settled(at.node),
    checkOf: (it: Attachment, prevResult: object, more: object = {}) =>
      at.node.call('CHECK', it, { more: { ...more, prevResult } }),
    shown: (netns: Netns, link: string) => JSON.parse(netns.ip(`-j -d link show ${link}`))[0],
    /** Another bridge for this test alone. */
    spareBridge(name: string): string {
      spare.push(name)
      return name
    },
    removeSpares() {
      for (const link of spare.splice(0)) at.node.ip(`link del ${link}`)
    },
    /** A container whose addresses come from a script. */
    withFakeIpam(answer: object | undefined, failing?: Verb) {
      const { more, options, ...fake } = fakeIpam(answer, failing)
      return { ...newPod(more), ...options, ...fake }
    },
  })
}
