// SPDX-License-Identifier: Apache-2.0

// What the tests of bridge share: a node with an agent on which the first pods came and went, pods, and what is left.

import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach } from 'node:test'
import {
  type Attachment,
  assertSameState,
  type CallOptions,
  cniBin,
  eventually,
  folder,
  makeLab,
  makeNetns,
  type Netns,
  type Node,
  type NodeLab,
  type RunningAgent,
  resultOf,
} from './nodelab.ts'

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

/** A node with an agent, from before the tests of the calling suite until after them; each test cleans up behind itself. */
export function bridgeLab() {
  let lab: NodeLab
  let node: Node
  let agent: RunningAgent
  let kept: string[]
  let containers = 0

  before(async () => {
    lab = makeLab({ mode: 'agent' })
    node = lab.nodes[0]!
    agent = await node.startAgent()
    // What the first pods bring for good: bridge, gateway, tables, settings.
    const it = { containerId: 'first', netns: makeNetns('first').path, type: 'bridge' }
    const more = { ipMasq: true, macspoofchk: true, ipam: hostLocal(node, v4, v6) }
    resultOf(await node.call('ADD', { ...it, config: bridgeConfig(node, more) }))
    resultOf(await node.call('DEL', { ...it, config: bridgeConfig(node, more) }))
    await settled()
    kept = stateOf(node)
  })
  after(() => agent?.[Symbol.asyncDispose]())

  const made: [Attachment, CallOptions?][] = []
  const spare: string[] = []
  afterEach(async context => {
    const mine = made.splice(0)
    if ('passed' in context && context.passed) return
    for (const [it, options] of mine) await node.call('DEL', it, options)
    for (const link of spare.splice(0)) spawnSync('ip', ['-n', node.name, 'link', 'del', link])
  })
  beforeEach(() => void spare.splice(0))

  /** The kernel gives the bridge a link-local address, checks it, and drops its carrier with the last port. */
  const settled = () => eventually('the bridge is settled', () => !/tentative/.test(node.ip('-6 addr show dev cni0')))

  /** A container that does not exist yet, with a namespace of its own. */
  function newPod(more: object = {}) {
    const pod = makeNetns('pod')
    const attachment = {
      ...{ containerId: `c${containers++}`, netns: pod.path, type: 'bridge' },
      config: bridgeConfig(node, more),
    }
    made.push([attachment])
    return { pod, it: attachment }
  }
  const assertNothingLeft = (when = '') => assertSameState(stateOf(node), kept, when)
  const checkOf = (it: Attachment, prevResult: object, more: object = {}) =>
    node.call('CHECK', it, { more: { ...more, prevResult } })
  const shown = (netns: Netns, link: string) => JSON.parse(netns.ip(`-j -d link show ${link}`))[0]
  /** Another bridge for this test alone. */
  function spareBridge(name: string): string {
    spare.push(name)
    return name
  }
  const removeSpares = () => {
    for (const link of spare.splice(0)) node.ip(`link del ${link}`)
  }

  /** An IPAM plugin that answers so, or fails where there is no answer; `failing`: the verb that fails. */
  function withFakeIpam(answer: object | undefined, failing = '') {
    const directory = folder('fake')
    const log = join(directory, 'calls')
    const fail = `echo '{"code": 11, "msg": "no", "details": "later"}'; exit 1`
    const add = answer === undefined ? fail : `echo '${JSON.stringify({ cniVersion: '1.1.0', ...answer })}'`
    const script = `#!/bin/sh\necho $CNI_COMMAND >> ${log}\ncase $CNI_COMMAND in ADD) ${add};; ${failing || 'NONE'}) ${fail};; esac\n`
    writeFileSync(join(directory, 'fake-ipam'), script, { mode: 0o755 })
    return {
      ...newPod({ ipam: { type: 'fake-ipam' } }),
      env: { CNI_PATH: `${directory}:${cniBin()}` },
      calls: () => readFileSync(log, 'utf8').trim().split('\n'),
    }
  }

  return {
    get lab() {
      return lab
    },
    get node() {
      return node
    },
    get agent() {
      return agent
    },
    set agent(started) {
      agent = started
    },
    /** What is there now is no trace of a test. */
    keep() {
      kept = stateOf(node)
    },
    ...{ settled, newPod, assertNothingLeft, checkOf, shown, spareBridge, removeSpares, withFakeIpam },
  }
}
