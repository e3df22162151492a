// SPDX-License-Identifier: Apache-2.0

// Goal: what veth-route promises arrives on the wire. Two nodes on a segment, an agent on each, pods by the installed
// executables, UDP that tells which address it was seen with. No try is repeated: the first packet passes. Needs root.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { Station } from './host/station.ts'
import {
  type Attachment,
  assertSameState,
  cniBin,
  folder,
  makeLab,
  makeNetns,
  type Netns,
  type Node,
  type NodeLab,
  peers,
  type RunningAgent,
  resultOf,
  skip,
} from './nodelab.ts'

const GATEWAY = { v4: '10.10.10.1', v6: 'fd00:10::1' }
const OUTSIDE = { v4: '192.0.2.2', v6: '2001:db8:ff::2' }
const NODES = [
  { v4: '10.10.10.8', v6: 'fd00:10::8' },
  { v4: '10.10.10.9', v6: 'fd00:10::9' },
]
type Pod = { netns: Netns; station: Station; it: Attachment; more: object; v4: string; v6: string; hostLink: string }

describe('packets of veth-route', { skip }, () => {
  let lab: NodeLab
  const agents: RunningAgent[] = []
  let [gateway, outside]: Station[] = []
  let nodeStations: Station[]
  let count = 0

  before(async () => {
    lab = makeLab({ nodes: 2, mode: 'agent' })
    for (const node of lab.nodes) agents.push(await node.startAgent())
    gateway = lab.router.station()
    outside = lab.outside.station()
    nodeStations = lab.nodes.map(node => node.station())
    for (const address of Object.values(GATEWAY)) await gateway.listen(address)
    for (const address of Object.values(OUTSIDE)) await outside.listen(address)
    for (const [index, station] of nodeStations.entries())
      for (const address of Object.values(NODES[index]!)) await station.listen(address)
  })
  after(async () => {
    for (const agent of agents) await agent[Symbol.asyncDispose]()
  })

  const ipamOf = (node: Node) => {
    const last = 20 + lab.nodes.indexOf(node) * 100
    return {
      type: 'host-local',
      dataDir: node.leases,
      ranges: [
        [
          {
            subnet: '10.10.10.0/24',
            rangeStart: `10.10.10.${last}`,
            rangeEnd: `10.10.10.${last + 50}`,
            gateway: GATEWAY.v4,
          },
        ],
        [{ subnet: 'fd00:10::/64', rangeStart: `fd00:10::${last}:1`, gateway: GATEWAY.v6 }],
      ],
      routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
    }
  }
  /** A pod that echoes on both its addresses. */
  async function addPod(node: Node, keys: object = {}): Promise<Pod> {
    const netns = makeNetns('pod')
    const station = netns.station()
    const it = { containerId: `p${count++}`, netns: netns.path }
    const more = { ipam: ipamOf(node), ...keys }
    const { ips, interfaces } = resultOf(await node.call('ADD', it, { more }))
    const [v4, v6] = ips.map(({ address }: { address: string }) => address.split('/')[0])
    await station.listen(v4)
    await station.listen(v6)
    return { netns, station, it, more, v4, v6, hostLink: interfaces[0].name }
  }
  const delPod = async (node: Node, { it, more }: Pod) => void resultOf(await node.call('DEL', it, { more }))

  test('ADD: the first packet passes both ways, in both families, when the call has ended', async () => {
    const [node] = lab.nodes
    for (const version of ['v4', 'v6'] as const) {
      const pod = await addPod(node!)
      const [own, there] = [NODES[0]![version], pod[version]]
      assert.equal(await nodeStations[0]!.ask(own, there), own, 'node to pod')
      await delPod(node!, pod)
      const other = await addPod(node!)
      assert.equal(await other.station.ask(other[version], own), other[version], 'pod to node')
      await delPod(node!, other)
    }
  })

  test('pods reach pods of their node and of another, nodes, gateway and outside, and are reached, with their own address', async () => {
    const [first, second] = lab.nodes as [Node, Node]
    const [a, b, c] = [await addPod(first), await addPod(first), await addPod(second)]
    for (const version of ['v4', 'v6'] as const) {
      const from = a[version]
      const ways: [string, string][] = [
        ['a pod of this node', b[version]],
        ['a pod of the other node', c[version]],
        ['this node', NODES[0]![version]],
        ['the other node', NODES[1]![version]],
        ['the gateway', GATEWAY[version]],
        ['outside', OUTSIDE[version]],
      ]
      for (const [what, to] of ways) assert.equal(await a.station.ask(from, to), from, `${from} to ${what}, ${to}`)
      assert.equal(await c.station.ask(c[version], from), c[version], 'from the other pod')
      assert.equal(await gateway!.ask(GATEWAY[version], from), GATEWAY[version], 'from the gateway')
      assert.equal(await outside!.ask(OUTSIDE[version], from), OUTSIDE[version], 'from outside')
      assert.equal(await nodeStations[1]!.ask(NODES[1]![version], from), NODES[1]![version], 'from the other node')
    }
    // Answered by the node with its own MAC; the pod's is not on the segment.
    const { address } = JSON.parse(first.ip('-j link show eth0'))[0]
    assert.match(lab.router.ip(`neigh show ${a.v4}`), new RegExp(`lladdr ${address}`))
    assert.match(lab.router.ip(`-6 neigh show ${a.v6}`), new RegExp(`lladdr ${address}`))
    await delPod(first, a)
    await delPod(first, b)
    await delPod(second, c)
  })

  test('DEL: nobody answers for the address any more', async () => {
    const [node] = lab.nodes
    const pod = await addPod(node!)
    assert.equal(await gateway!.ask(GATEWAY.v4, pod.v4), GATEWAY.v4)
    await delPod(node!, pod)
    for (const version of ['v4', 'v6'] as const)
      assert.equal(await gateway!.ask(GATEWAY[version], pod[version]), undefined)
  })

  test('an address that moves to another node is found there at once', async () => {
    const [first, second] = lab.nodes as [Node, Node]
    const dataDir = folder('leases')
    const ipam = {
      type: 'host-local',
      dataDir,
      ranges: [
        [{ subnet: '10.10.10.0/24', rangeStart: '10.10.10.250', rangeEnd: '10.10.10.250' }],
        [{ subnet: 'fd00:10::/64', rangeStart: 'fd00:10::250', rangeEnd: 'fd00:10::250' }],
      ],
      routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
    }
    const pod = await addPod(first, { ipam })
    for (const version of ['v4', 'v6'] as const)
      assert.equal(await gateway!.ask(GATEWAY[version], pod[version]), GATEWAY[version])
    await delPod(first, pod)
    const moved = await addPod(second, { ipam })
    assert.equal(moved.v4, pod.v4)
    // The gateway had the first node's MAC: the announcement told it of the second's.
    for (const version of ['v4', 'v6'] as const)
      assert.equal(await gateway!.ask(GATEWAY[version], moved[version]), GATEWAY[version], version)
    await delPod(second, moved)
  })

  test('ipMasq: the outside sees the node, pods of this node and of the subnet see the pod', async () => {
    const [first, second] = lab.nodes as [Node, Node]
    const pod = await addPod(first, { ipMasq: true })
    const [near, far] = [await addPod(first), await addPod(second)]
    for (const version of ['v4', 'v6'] as const) {
      const from = pod[version]
      assert.equal(await pod.station.ask(from, OUTSIDE[version]), NODES[0]![version], 'outside')
      for (const to of [near[version], far[version], GATEWAY[version]])
        assert.equal(await pod.station.ask(from, to), from, to)
    }
    await delPod(first, pod)
    await delPod(first, near)
    await delPod(second, far)
  })

  test('a pod cannot send from an address that is not its own', async () => {
    const [first] = lab.nodes as [Node]
    const [pod, victim] = [await addPod(first), await addPod(first)]
    const spoofed = { v4: '10.10.10.199', v6: 'fd00:10::bad' }
    const before = dropsOf(first)
    for (const version of ['v4', 'v6'] as const) {
      pod.netns.ip(
        `addr add ${spoofed[version]}/${version === 'v4' ? 32 : 128} dev eth0${version === 'v6' ? ' nodad' : ''}`,
      )
      // An answer would not find its way in any case; the packet must not get as far as the node.
      assert.equal(await pod.station.ask(spoofed[version], NODES[0]![version]), undefined)
      assert.equal(await pod.station.ask(pod[version], victim[version]), pod[version])
    }
    assert.ok(dropsOf(first) >= before + 2, 'counted in inet mooring')
    await delPod(first, pod)
    await delPod(first, victim)
  })

  test('the metadata service is out of reach, unless the configuration allows it', async () => {
    const [first] = lab.nodes as [Node]
    lab.router.ip('addr add 169.254.169.254/32 dev br0')
    await gateway!.listen('169.254.169.254')
    first.ip('route add 169.254.169.254/32 via 10.10.10.1')
    const [denied, allowed] = [await addPod(first), await addPod(first, { allowMetadata: true })]
    assert.equal(await denied.station.ask(denied.v4, '169.254.169.254'), undefined)
    assert.equal(await allowed.station.ask(allowed.v4, '169.254.169.254'), allowed.v4)
    await delPod(first, denied)
    await delPod(first, allowed)
    first.ip('route del 169.254.169.254/32')
  })

  test('packets pass with arp_ignore=1, and with rp_filter off, strict and loose (PTP-09)', async () => {
    const [first] = lab.nodes as [Node]
    first.run('sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=1')
    for (const filter of ['1', '2', '0']) {
      first.run('sysctl', '-qw', `net.ipv4.conf.all.rp_filter=${filter}`, `net.ipv4.conf.default.rp_filter=${filter}`)
      const pod = await addPod(first)
      assert.equal(await nodeStations[0]!.ask(NODES[0]!.v4, pod.v4), NODES[0]!.v4)
      for (const to of [NODES[0]!.v4, NODES[1]!.v4, OUTSIDE.v4])
        assert.equal(await pod.station.ask(pod.v4, to), pod.v4, `rp_filter=${filter}, ${to}`)
      await delPod(first, pod)
    }
    first.run('sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=0')
  })

  test('another NIC of the pod may have the default route (PTP-09)', async () => {
    const [first] = lab.nodes as [Node]
    const pod = await addPod(first)
    const other = makeNetns('other')
    other.ip(`link add up0 type veth peer name net1 netns ${pod.netns.name}`)
    other.ip('addr add 10.50.0.1/24 dev up0')
    other.ip('link set up0 up')
    pod.netns.ip('addr add 10.50.0.2/24 dev net1')
    pod.netns.ip('link set net1 up')
    pod.netns.ip('route add 10.10.10.0/24 via 169.254.1.1 dev eth0')
    pod.netns.ip('route replace default via 10.50.0.1 dev net1')
    assert.equal(await nodeStations[0]!.ask(NODES[0]!.v4, pod.v4), NODES[0]!.v4)
    assert.equal(await pod.station.ask(pod.v4, NODES[0]!.v4), pod.v4)
    await delPod(first, pod)
  })

  test('two interfaces of one pod both answer, each in its own subnet', async () => {
    const [first] = lab.nodes as [Node]
    first.ip('addr add 10.20.0.1/32 dev lo')
    const pod = await addPod(first)
    const it = { ...pod.it, ifName: 'net1' }
    const ipam = { type: 'host-local', dataDir: first.leases, ranges: [[{ subnet: '10.20.0.0/24' }]] }
    const { ips } = resultOf(await first.call('ADD', it, { more: { name: 'second', ipam } }))
    const second = ips[0].address.split('/')[0]
    await pod.station.listen(second)
    assert.equal(await nodeStations[0]!.ask('10.20.0.1', second), '10.20.0.1')
    assert.equal(await nodeStations[0]!.ask(NODES[0]!.v4, pod.v4), NODES[0]!.v4)
    resultOf(await first.call('DEL', it, { more: { name: 'second', ipam } }))
    assert.equal(await nodeStations[0]!.ask(NODES[0]!.v4, pod.v4), NODES[0]!.v4)
    await delPod(first, pod)
    first.ip('addr del 10.20.0.1/32 dev lo')
  })

  test('somebody flushes the rule set: the next ADD gives all pods back what they had in it', async () => {
    const [first] = lab.nodes as [Node]
    const pods = [await addPod(first, { ipMasq: true }), await addPod(first)]
    first.run('nft', 'flush', 'ruleset')
    const later = await addPod(first)
    for (const version of ['v4', 'v6'] as const) {
      assert.equal(await pods[0]!.station.ask(pods[0]![version], OUTSIDE[version]), NODES[0]![version])
      assert.equal(await pods[1]!.station.ask(pods[1]![version], OUTSIDE[version]), pods[1]![version])
    }
    pods[1]!.netns.ip('addr add 10.10.10.198/32 dev eth0')
    assert.equal(await pods[1]!.station.ask('10.10.10.198', NODES[0]!.v4), undefined)
    for (const pod of [...pods, later]) await delPod(first, pod)
  })

  test('a host interface that is down: the pod and its node reach each other', async () => {
    const [first] = lab.nodes as [Node]
    first.ip('link set eth0 down')
    const pod = await addPod(first, { hostInterface: 'eth0' })
    first.ip('addr add 10.10.10.7/32 dev lo')
    assert.equal(await nodeStations[0]!.ask('10.10.10.7', pod.v4), '10.10.10.7')
    first.ip('addr del 10.10.10.7/32 dev lo')
    await delPod(first, pod)
    first.ip('link set eth0 up')
    first.ip('-6 addr replace fd00:10::8/64 dev eth0 nodad')
    first.ip('route replace default via 10.10.10.1')
    first.ip('-6 route replace default via fd00:10::1')
  })

  test("upstream's IPAM plugins serve veth-route", {
    skip: skip || (peers === undefined && 'needs lab/peers'),
  }, async () => {
    const [first] = lab.nodes as [Node]
    // Only theirs are on the path: host-local is a process then.
    const env = { CNI_PATH: peers! }
    const ranges = [[{ subnet: '10.10.10.0/24', rangeStart: '10.10.10.90', rangeEnd: '10.10.10.95' }]]
    const routes = [{ dst: '0.0.0.0/0' }]
    const addresses = [{ address: '10.10.10.96/24', gateway: GATEWAY.v4 }]
    for (const ipam of [
      { type: 'host-local', dataDir: first.leases, ranges, routes },
      { type: 'static', addresses, routes },
    ]) {
      const was = first.state()
      const netns = makeNetns('pod')
      const station = netns.station()
      const it = { containerId: `p${count++}`, netns: netns.path }
      const more = { name: 'foreign', ipam }
      const result = resultOf(await first.call('ADD', it, { more, env }))
      const address = result.ips[0].address.split('/')[0]
      await station.listen(address)
      assert.equal(await nodeStations[0]!.ask(NODES[0]!.v4, address), NODES[0]!.v4, ipam.type)
      resultOf(await first.call('CHECK', it, { more: { ...more, prevResult: result }, env }))
      resultOf(await first.call('DEL', it, { more, env }))
      assertSameState(first.state(), was, `by ${ipam.type}`)
    }
    assert.notEqual(peers, cniBin())
  })
})

/** Packets that the table of ours dropped. */
function dropsOf(node: Netns): number {
  const chain = node.run('nft', 'list', 'chain', 'inet', 'mooring', 'prerouting')
  return [...chain.matchAll(/counter packets (\d+)/g)].reduce((sum, match) => sum + Number(match[1]), 0)
}
