// SPDX-License-Identifier: Apache-2.0

// Goal: bridge stands where upstream's plugin of that name stood: it answers the same, makes the same in the pod, takes
// upstream's IPAM plugins and is followed by upstream's chained plugins; and upstream's bridge takes our IPAM plugin.
// Needs root and lab/peers.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import {
  assertSameState,
  cniBin,
  folder,
  makeLab,
  makeNetns,
  type Netns,
  type Node,
  type Outcome,
  peers,
  type RunningAgent,
  resultOf,
  skip,
  start,
  type Verb,
} from './nodelab.ts'
import { removeTuningData } from './tuning-data.ts'

// biome-ignore lint/suspicious/noExplicitAny: the shape of a result is what the tests look at
type Any = any

describe('bridge beside upstream', { skip: skip || (peers === undefined && 'needs PEERS_DIR') }, () => {
  let node: Node
  /** A node where upstream's plugins alone work. */
  let theirs: Node
  let agent: RunningAgent
  let count = 0

  before(async () => {
    const lab = makeLab({ nodes: 2, mode: 'agent' })
    node = lab.nodes[0]!
    theirs = lab.nodes[1]!
    agent = await node.startAgent()
  })
  after(async () => {
    await agent?.[Symbol.asyncDispose]()
    removeTuningData()
  })

  type Pod = { containerId: string; netns: Netns }
  /** Upstream's tuning keeps its data by this name, for all nodes of the machine. */
  const newPod = (): Pod => ({ containerId: `bridge-peers${count++}`, netns: makeNetns('pod') })

  /** Runs upstream's executable on a node as a runtime does. */
  function callUpstream(
    on: Node,
    type: string,
    verb: Verb,
    { containerId, netns }: Pod,
    config: object,
  ): Promise<Outcome> {
    const enter = ['/usr/bin/nsenter', `--net=${on.path}`, join(peers!, type)]
    const env = {
      ...on.env,
      PATH: process.env['PATH'] ?? '',
      CNI_COMMAND: verb,
      CNI_CONTAINERID: containerId,
      CNI_NETNS: netns.path,
      CNI_IFNAME: 'eth0',
      CNI_PATH: `${peers}:${cniBin()}`,
    }
    return start(enter, { env, stdin: JSON.stringify(config) }).outcome
  }
  const callOurs = (verb: Verb, { containerId, netns }: Pod, config: object, env = {}) =>
    node.call(verb, { containerId, netns: netns.path, type: 'bridge', config }, { env })

  const configOf = (on: Node, more: object = {}) => ({
    cniVersion: '1.0.0',
    name: 'brnet',
    type: 'bridge',
    isDefaultGateway: true,
    ipam: {
      type: 'host-local',
      dataDir: on.leases,
      ranges: [[{ subnet: '10.1.0.0/16' }], [{ subnet: 'fd00:1::/64' }]],
    },
    ...more,
  })

  /** What is on a node, but for the carrier of a bridge, which follows its ports. */
  const stateOf = (on: Node) => on.state().map(line => line.replace(/NO-CARRIER,| linkdown/g, '').replace(/ +/g, ' '))
  const otherRange = (on: Node, subnet: string) => ({
    ipam: { type: 'host-local', dataDir: on.leases, ranges: [[{ subnet }]] },
  })

  /** A result without what differs from node to node: names of links, MACs, MTUs, which upstream does not tell. */
  const shapeOf = (result: Any) => ({
    ...result,
    interfaces: result.interfaces?.map(({ name, sandbox }: Any) => ({
      name: name.startsWith('veth') ? 'veth' : name,
      inside: sandbox !== undefined,
    })),
    dns: undefined,
  })
  const inPod = ({ netns }: Pod) =>
    [netns.ip('-o addr show dev eth0 scope global'), netns.ip('route'), netns.ip('-6 route')]
      .join('')
      .replace(/^\d+: |\\|valid_lft \S+|preferred_lft \S+| nodad| (pref|metric) \S+|link-netnsid \d+/gm, '')
      .split('\n')
      .map(line => line.replace(/ +/g, ' ').trim())
      .filter(line => line !== '' && !line.includes('fe80'))
      .sort()

  test('answers what upstream answers, and makes the same in the pod', async () => {
    for (const more of [
      {},
      { cniVersion: '0.3.1' },
      { cniVersion: '0.2.0' },
      { isDefaultGateway: false, isGateway: true },
      { isDefaultGateway: false, bridge: 'br-plain' },
      { isDefaultGateway: false, ipam: {}, bridge: 'br-two' },
      { dns: { nameservers: ['10.0.0.53'] }, hairpinMode: true, mtu: 1400, bridge: 'br-mtu', name: 'mtu' },
    ]) {
      const [pod, other] = [newPod(), newPod()]
      const outcomes = [
        await callOurs('ADD', pod, configOf(node, more)),
        await callUpstream(theirs, 'bridge', 'ADD', other, configOf(theirs, more)),
      ]
      const [ours, upstreams] = outcomes.map(resultOf) as [Any, Any]
      assert.deepEqual(shapeOf(ours), shapeOf(upstreams), JSON.stringify(more))
      assert.deepEqual(inPod(pod), inPod(other), JSON.stringify(more))
      resultOf(await callOurs('DEL', pod, configOf(node, more)))
      resultOf(await callUpstream(theirs, 'bridge', 'DEL', other, configOf(theirs, more)))
    }
  })

  test("upstream's IPAM plugins serve ours", async () => {
    resultOf(await callOurs('ADD', newPod(), configOf(node)))
    const was = stateOf(node)
    const env = { CNI_PATH: peers! }
    for (const ipam of [
      { type: 'host-local', dataDir: node.leases, ranges: [[{ subnet: '10.1.0.0/16', rangeStart: '10.1.7.7' }]] },
      { type: 'static', addresses: [{ address: '10.1.8.8/16', gateway: '10.1.0.1' }], routes: [{ dst: '0.0.0.0/0' }] },
    ]) {
      const pod = newPod()
      const config = configOf(node, { name: 'foreign', ipam })
      const result = resultOf(await callOurs('ADD', pod, config, env))
      pod.netns.run('ping', '-c1', '-W1', '10.1.0.1')
      resultOf(await callOurs('CHECK', pod, { ...config, prevResult: result }, env))
      resultOf(await callOurs('DEL', pod, config, env))
      assertSameState(stateOf(node), was, `by ${ipam.type}`)
    }
  })

  test("ours serve upstream's bridge", async () => {
    const directory = folder('bin')
    // Upstream finds the IPAM plugin on the path: ours, by its own executable.
    writeFileSync(join(directory, 'host-local'), `#!/bin/sh\nexec ${join(cniBin(), 'host-local')}\n`, { mode: 0o755 })
    const pod = newPod()
    const config = configOf(node, { bridge: 'br-theirs', name: 'theirs', ...otherRange(node, '10.2.0.0/16') })
    const call = (verb: Verb, more: object = {}) =>
      start(['/usr/bin/nsenter', `--net=${node.path}`, join(peers!, 'bridge')], {
        env: {
          ...node.env,
          PATH: process.env['PATH'] ?? '',
          CNI_COMMAND: verb,
          CNI_CONTAINERID: pod.containerId,
          CNI_NETNS: pod.netns.path,
          CNI_IFNAME: 'eth0',
          CNI_PATH: directory,
        },
        stdin: JSON.stringify({ ...config, ...more }),
      }).outcome
    const result = resultOf(await call('ADD'))
    resultOf(await call('CHECK', { prevResult: result }))
    resultOf(await call('DEL'))
    assert.ok(!node.state().some(line => line.includes(pod.containerId)))
  })

  test("upstream's chained plugins follow ours", async () => {
    const was = theirChains(node)
    const pod = newPod()
    const config = configOf(node, {
      bridge: 'br-chain',
      name: 'chain',
      ipMasq: true,
      ...otherRange(node, '10.3.0.0/16'),
    })
    const chain = [
      { type: 'tuning', sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' }, mtu: 1400 },
      {
        type: 'portmap',
        capabilities: { portMappings: true },
        runtimeConfig: { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] },
      },
      { type: 'bandwidth', ingressRate: 8_000_000, ingressBurst: 800_000 },
      { type: 'firewall', backend: 'iptables' },
    ].map(each => ({ cniVersion: '1.0.0', name: 'chain', ...each }))
    let prevResult: Any = resultOf(await callOurs('ADD', pod, config))
    const ours = prevResult
    for (const each of chain)
      prevResult = resultOf(await callUpstream(node, each.type, 'ADD', pod, { ...each, prevResult }))
    assert.deepEqual(prevResult.ips, ours.ips)
    pod.netns.run('ping', '-c1', '-W1', '10.3.0.1')
    resultOf(await callOurs('CHECK', pod, { ...config, prevResult }))
    for (const each of chain) resultOf(await callUpstream(node, each.type, 'CHECK', pod, { ...each, prevResult }))
    for (const each of chain.toReversed())
      resultOf(await callUpstream(node, each.type, 'DEL', pod, { ...each, prevResult }))
    resultOf(await callOurs('DEL', pod, { ...config, prevResult }))
    assert.deepEqual(
      theirChains(node).filter(line => !was.includes(line) && line.includes(pod.containerId)),
      [],
    )
    assert.ok(!node.ip('-o link').includes('br-chain state UP'))
  })

  test("removes what upstream's bridge made, before ours took its place", async () => {
    const pod = newPod()
    const config = configOf(node, { bridge: 'br-before', name: 'before', ...otherRange(node, '10.4.0.0/16') })
    const prevResult = resultOf(await callUpstream(node, 'bridge', 'ADD', pod, config))
    const [, host] = prevResult.interfaces
    resultOf(await callOurs('CHECK', pod, { ...config, prevResult }))
    resultOf(await callOurs('DEL', pod, { ...config, prevResult }))
    assert.doesNotMatch(node.ip('-o link'), new RegExp(host.name))
    assert.doesNotMatch(pod.netns.ip('-o link'), /eth0/)
    assert.ok(!node.state().some(line => line.includes(`/before/`)), 'the addresses went back')
  })

  const theirChains = (on: Node) => on.run('iptables-save').split('\n')
})
