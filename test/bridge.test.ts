// SPDX-License-Identifier: Apache-2.0

// Goal: bridge does what upstream's plugin of that name does, and is right where that one is wrong, seen from outside by the
// installed executables: most of it through an agent, the rest in one process per call. Needs root.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, describe, test } from 'node:test'
import { attach, withoutStrace } from './crash/strace.ts'
import {
  type Attachment,
  assertSameState,
  type CallOptions,
  cniBin,
  errorOf,
  eventually,
  folder,
  makeLab,
  makeManyNetns,
  makeNetns,
  type Netns,
  type Node,
  type NodeLab,
  type RunningAgent,
  resultOf,
  skip,
} from './nodelab.ts'

/** See host/station.ts. */
const STATION_PORT = 7
const RELEASED = { code: 0, stdout: '' }
const silent = ({ code, stdout }: { code: number | null; stdout: string }) => ({ code, stdout })
/** The pods' network; node and pods outside of it are 10.10.10.0/24. */
const v4 = [{ subnet: '10.1.0.0/16' }]
const v6 = [{ subnet: 'fd00:1::/64' }]
const hostLocal = (node: Node, ...ranges: object[][]) => ({ type: 'host-local', dataDir: node.leases, ranges })
const bridgeConfig = (node: Node, more: object = {}) => ({
  cniVersion: '1.1.0',
  name: 'brnet',
  type: 'bridge',
  isDefaultGateway: true,
  ipam: hostLocal(node, v4),
  ...more,
})
/** What is on a node and in pods, but for the carrier of a bridge, which follows its ports. */
const stateOf = (node: Node, ...pods: Netns[]): string[] =>
  node.state(...pods).map(line => line.replace(/NO-CARRIER,| linkdown/g, '').replace(/ +/g, ' '))
const pings = (from: Netns, address: string, ...options: string[]) =>
  spawnSync('ip', ['netns', 'exec', from.name, 'ping', '-c1', '-W1', ...options, address]).status === 0

let knowsVlans: boolean | undefined
/** Whether this kernel filters VLANs (CONFIG_BRIDGE_VLAN_FILTERING). */
function kernelKnowsVlans(): boolean {
  knowsVlans ??=
    spawnSync('ip', ['-n', makeNetns('probe').name, 'link', 'add', 'br0', 'type', 'bridge', 'vlan_filtering', '1'])
      .status === 0
  return knowsVlans
}

describe('bridge, agent', { skip }, () => {
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

  test('ADD: bridge, port and pod are as upstream makes them (BR-01, BR-04, BR-05, COM-01, COM-03, RES-15)', async () => {
    const { pod, it } = newPod()
    const result = resultOf(await node.call('ADD', it))
    const [bridge, host, inside] = result.interfaces
    assert.deepEqual([bridge.name, inside.name, inside.sandbox], ['cni0', 'eth0', it.netns])
    assert.match(host.name, /^veth[0-9a-f]{8}$/)
    assert.ok(!('sandbox' in bridge) && !('sandbox' in host))
    const { address, gateway } = result.ips[0]
    assert.match(address, /^10\.1\.\d+\.\d+\/16$/)
    assert.deepEqual([gateway, result.ips[0].interface, result.ips.length], ['10.1.0.1', 2, 1])
    assert.deepEqual(result.routes, [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }])
    for (const [netns, { name, mac, mtu }] of [
      [node, bridge],
      [node, host],
      [pod, inside],
    ] as const) {
      const link = shown(netns, name)
      assert.deepEqual([link.address, link.mtu, link.operstate], [mac, mtu, 'UP'])
    }
    const port = shown(node, host.name)
    assert.deepEqual([port.master, port.linkinfo.info_slave_data.state], ['cni0', 'forwarding'])
    assert.match(
      pod.ip('-o -4 addr show eth0'),
      new RegExp(` inet ${address} brd 10\\.1\\.255\\.255 scope global eth0`),
    )
    assert.equal(
      pod.ip('route').replaceAll(' \n', '\n'),
      `default via 10.1.0.1 dev eth0\n10.1.0.0/16 dev eth0 proto kernel scope link src ${address.split('/')[0]}\n`,
    )
    assert.match(node.ip('-o -4 addr show cni0'), / inet 10\.1\.0\.1\/16 brd 10\.1\.255\.255 scope global cni0/)
    assert.ok(pings(pod, '10.1.0.1'))
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    assert.deepEqual(silent(await node.call('DEL', it)), RELEASED)
    assertNothingLeft()
  })

  test('ADD: answers in the version that it was asked in, all seven (RES-01, RES-02, RES-03)', async () => {
    for (const cniVersion of ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
      const { it } = newPod({ cniVersion })
      const result = resultOf(await node.call('ADD', it))
      assert.equal(result.cniVersion, cniVersion)
      if (cniVersion < '0.3') assert.deepEqual(result.ip4.routes, [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }])
      else assert.deepEqual([result.interfaces.length, result.ips[0].interface], [3, 2])
      assert.deepEqual(silent(await node.call('DEL', it)), RELEASED)
    }
    assertNothingLeft()
  })

  test('ADD: without isGateway the bridge has no address, and without routes the pod no default (COM-07)', async () => {
    const { pod, it } = newPod({ isDefaultGateway: false, bridge: spareBridge('br-plain') })
    const result = resultOf(await node.call('ADD', it))
    assert.equal(node.ip('-4 addr show br-plain'), '')
    assert.equal(pod.ip('route show default'), '')
    assert.equal(result.ips[0].gateway, '10.1.0.1') // what host-local says
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    await node.call('DEL', it)
    assert.match(node.ip('-o link show br-plain'), /br-plain/, 'the bridge stays')
    removeSpares()
    assertNothingLeft()
  })

  test('ADD: hairpin mode, isolation and MTU are on the port, promiscuous mode on the bridge (BR-02)', async () => {
    const bridge = spareBridge('br-opt')
    const { pod, it } = newPod({ isDefaultGateway: false, bridge, hairpinMode: true, portIsolation: true, mtu: 1400 })
    const result = resultOf(await node.call('ADD', it))
    const port = shown(node, result.interfaces[1].name).linkinfo.info_slave_data
    assert.deepEqual([port.hairpin, port.isolated], [true, true])
    assert.deepEqual([shown(pod, 'eth0').mtu, shown(node, bridge).mtu], [1400, 1400])
    const { it: other } = newPod({ isDefaultGateway: false, bridge, promiscMode: true })
    const plain = resultOf(await node.call('ADD', other))
    assert.ok(shown(node, bridge).flags.includes('PROMISC'))
    assert.deepEqual(
      [plain.interfaces[2].mtu, plain.interfaces[0].mtu],
      [1400, 1400],
      "the bridge's MTU is the default",
    )
    for (const each of [it, other]) await node.call('DEL', each)
    removeSpares()
    assertNothingLeft()
  })

  test('ADD: runtimeConfig says the MAC before args, CNI_ARGS and the key mac (BR-06, CAP-10)', async () => {
    const [lowest, envArgs, args, runtime] = [
      '02:00:00:00:00:01',
      '02:00:00:00:00:02',
      '02:00:00:00:00:03',
      '02:00:00:00:00:04',
    ]
    const all = { mac: lowest, args: { cni: { mac: args } }, runtimeConfig: { mac: runtime } }
    const env = { CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAME=p;MAC=${envArgs}` }
    for (const [more, given, wanted] of [
      [all, env, runtime],
      [{ ...all, runtimeConfig: {} }, env, args],
      [{ mac: lowest }, env, envArgs],
      [{ mac: lowest }, {}, lowest],
    ] as const) {
      const { pod, it } = newPod(more)
      const result = resultOf(await node.call('ADD', it, { env: given }))
      assert.deepEqual([result.interfaces[2].mac, shown(pod, 'eth0').address], [wanted, wanted])
      assert.deepEqual(silent(await node.call('DEL', it, { env: given })), RELEASED)
    }
    for (const mac of ['no mac', '03:00:00:00:00:01'])
      assert.equal(errorOf(await node.call('ADD', newPod({ mac }).it)).code, 7)
    assertNothingLeft()
  })

  test('ADD: a configuration that cannot be is error 7, and makes nothing (BR-02, BR-03)', async () => {
    const ids = { minID: 10, maxID: 20 }
    for (const [more, message] of [
      [{ hairpinMode: true, promiscMode: true }, 'cannot set hairpin mode and promiscuous mode at the same time'],
      [{ disableContainerInterface: true }, 'cannot use IPAM when DisableContainerInterface flag is set'],
      [{ vlan: 4095 }, 'invalid VLAN ID 4095 (must be between 0 and 4094)'],
      [{ vlan: -1 }, 'invalid VLAN ID -1 (must be between 0 and 4094)'],
      [{ vlanTrunk: [{ ...ids, minID: 0 }] }, 'incorrect trunk minID parameter'],
      [{ vlanTrunk: [{ ...ids, maxID: 4095 }] }, 'incorrect trunk maxID parameter'],
      [{ vlanTrunk: [{ ...ids, minID: 21 }] }, 'minID is greater than maxID in trunk parameter'],
      [{ vlanTrunk: [{ maxID: 20 }] }, 'minID and maxID should be configured simultaneously, minID is missing'],
      [{ vlanTrunk: [{ minID: 10 }] }, 'minID and maxID should be configured simultaneously, maxID is missing'],
      [{ vlanTrunk: [{ id: 0 }] }, 'incorrect trunk id parameter'],
      [{ ipMasq: true, ipMasqBackend: 'ebpf' }, 'unknown ipmasq backend "ebpf"'],
      [{ bridge: 'a bridge' }, 'Cannot read network configuration: "bridge" is "a bridge", which is no name of a link'],
      [{ mtu: '1500' }, 'Cannot read network configuration: "mtu" is a string, want a number'],
    ] as const) {
      const error = errorOf(await node.call('ADD', newPod({ bridge: 'br-never', ...more }).it))
      assert.deepEqual([error.code, error.msg, error.cniVersion], [7, message, '1.1.0'])
    }
    assertNothingLeft()
  })

  test('ADD: what has the name of the bridge and is none stays as it is (BR-01)', async () => {
    node.ip(`link add ${spareBridge('br-none')} type veth peer name br-peer`)
    const was = node.ip('-o link show br-none')
    const { it } = newPod({ bridge: 'br-none' })
    const error = errorOf(await node.call('ADD', it))
    assert.deepEqual([error.code, error.msg], [7, '"br-none" already exists but is not a bridge'])
    const status = errorOf(await node.call('STATUS', it))
    assert.deepEqual([status.code, status.msg], [50, '"br-none" already exists but is not a bridge'])
    assert.deepEqual(silent(await node.call('DEL', it)), RELEASED)
    assert.equal(node.ip('-o link show br-none'), was)
    removeSpares()
    assertNothingLeft()
  })

  test("ADD: an operator's bridge is taken as it is, brought up, and keeps its other settings (COM-15)", async () => {
    node.ip(`link add ${spareBridge('br-theirs')} mtu 1442 type bridge ageing_time 12300`)
    const settings = () => node.run('cat', '/proc/sys/net/ipv6/conf/br-theirs/accept_ra')
    const was = settings()
    const { it } = newPod({ bridge: 'br-theirs', isDefaultGateway: false })
    const result = resultOf(await node.call('ADD', it))
    assert.deepEqual(
      result.interfaces.map(({ mtu }: { mtu: number }) => mtu),
      [1442, 1442, 1442],
    )
    assert.equal(shown(node, 'br-theirs').linkinfo.info_data.ageing_time, 12300)
    assert.equal(settings(), was)
    await node.call('DEL', it)
    removeSpares()
    assertNothingLeft()
  })

  test('ADD: an alternative name of a bridge is as good as its own, also for what is kept by the name', async () => {
    const bridge = spareBridge('br-own')
    node.ip(`link add ${bridge} type bridge`)
    node.ip(`link property add dev ${bridge} altname br-other`)
    const { pod, it } = newPod({ bridge: 'br-other', ipMasq: true, ipam: hostLocal(node, [{ subnet: '10.8.0.0/16' }]) })
    const result = resultOf(await node.call('ADD', it))
    assert.equal(result.interfaces[0].name, bridge)
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    assert.ok(pings(pod, '192.0.2.2'), 'the outside answers the address of the node')
    resultOf(await node.call('DEL', it))
    removeSpares()
    assertNothingLeft()
  })

  test('ADD: the bridge keeps its MAC while ports come and go', async () => {
    const mac = () => shown(node, 'cni0').address
    const was = mac()
    const { it } = newPod({ mac: '02:00:00:00:00:01' })
    assert.equal(resultOf(await node.call('ADD', it)).interfaces[0].mac, was)
    assert.equal(mac(), was)
    await node.call('DEL', it)
    assert.equal(mac(), was)
  })

  test("ADD: an operator's bridge keeps the MAC that it has of its NIC, and the result says what it is (RES-16)", async () => {
    const bridge = spareBridge('br-nic')
    node.ip(`link add ${bridge} type bridge`)
    node.ip('link add nic0 address 52:54:00:00:00:01 type veth peer name nic1')
    for (const master of [undefined, bridge]) {
      if (master !== undefined) node.ip(`link set nic0 master ${bridge}`)
      const { it } = newPod({ bridge, isDefaultGateway: false })
      const result = resultOf(await node.call('ADD', it))
      assert.equal(result.interfaces[0].mac, shown(node, bridge).address)
      if (master !== undefined) assert.equal(result.interfaces[0].mac, '52:54:00:00:00:01')
      await node.call('DEL', it)
    }
    node.ip('link del nic0')
    removeSpares()
    assertNothingLeft()
  })

  test('ADD: dual stack with a gateway of each family works at once, without waiting (COM-08, COM-13)', async () => {
    const ipam = hostLocal(node, v4, v6)
    const { pod, it } = newPod({ ipam })
    pod.run('sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.default.disable_ipv6=1')
    const result = resultOf(await node.call('ADD', it))
    assert.ok(pings(pod, 'fd00:1::1') && pings(pod, '10.1.0.1'))
    assert.deepEqual(result.routes, [
      { dst: '0.0.0.0/0', gw: '10.1.0.1' },
      { dst: '::/0', gw: 'fd00:1::1' },
    ])
    assert.match(pod.ip('-6 route show default'), /^default via fd00:1::1 dev eth0/)
    assert.equal(node.run('cat', '/proc/sys/net/ipv6/conf/cni0/accept_ra').trim(), '0')
    assert.ok(pings(pod, '10.10.10.8') && pings(pod, 'fd00:10::8'), 'the node forwards')
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    await node.call('DEL', it)
    assertNothingLeft()
  })

  test('ADD: several ranges of a family give the bridge a gateway each', async () => {
    const bridge = spareBridge('br-many')
    const ipam = hostLocal(node, [{ subnet: '10.2.0.0/24' }], [{ subnet: '10.3.0.0/24' }])
    const { it } = newPod({ bridge, ipam, name: 'many' })
    const result = resultOf(await node.call('ADD', it))
    assert.deepEqual(
      result.ips.map(({ gateway }: { gateway: string }) => gateway),
      ['10.2.0.1', '10.3.0.1'],
    )
    const addresses = node.ip(`-o -4 addr show ${bridge}`)
    assert.ok(addresses.includes(' 10.2.0.1/24 ') && addresses.includes(' 10.3.0.1/24 '), addresses)
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    await node.call('DEL', it)
    removeSpares()
    assertNothingLeft()
  })

  test('ADD: an address that is in the way is error 7, unless forceAddress lets it go', async () => {
    const bridge = spareBridge('br-force')
    node.ip(`link add ${bridge} type bridge`)
    node.ip(`addr add 10.9.9.9/24 dev ${bridge}`)
    node.ip(`addr add fd00:9::9/64 dev ${bridge} nodad`)
    const { it } = newPod({ bridge, ipam: hostLocal(node, v4, v6) })
    const error = errorOf(await node.call('ADD', it))
    assert.deepEqual(
      [error.code, error.msg],
      [7, 'failed to set bridge addr: "br-force" already has an IP address different from 10.1.0.1/16'],
    )
    assert.match(node.ip(`-o -4 addr show ${bridge}`), / 10\.9\.9\.9\/24 /)
    assert.ok(!node.state().some(line => line.startsWith(node.leases)), 'the address went back')
    const forced = { ...it, config: { ...it.config, forceAddress: true } }
    resultOf(await node.call('ADD', forced))
    const addresses = node.ip(`-o addr show ${bridge}`)
    assert.ok(!addresses.includes('10.9.9.9') && addresses.includes(' 10.1.0.1/16 '), addresses)
    assert.ok(addresses.includes(' fd00:9::9/64 ') && addresses.includes(' fd00:1::1/64 '), 'no overlap, no obstacle')
    await node.call('DEL', forced)
    removeSpares()
    assertNothingLeft()
  })

  test('ADD: a default route of the IPAM is enough, with isDefaultGateway too', async () => {
    const ipam = { ...hostLocal(node, v4), routes: [{ dst: '0.0.0.0/0' }, { dst: '10.200.0.0/16', gw: '10.1.0.9' }] }
    const { pod, it } = newPod({ ipam })
    const result = resultOf(await node.call('ADD', it))
    assert.deepEqual(result.routes, [
      { dst: '0.0.0.0/0', gw: '10.1.0.1' },
      { dst: '10.200.0.0/16', gw: '10.1.0.9' },
    ])
    assert.match(pod.ip('route show 10.200.0.0/16'), /via 10\.1\.0\.9 dev eth0/)
    await node.call('DEL', it)
    assertNothingLeft()
  })

  test("ADD: the gateway's address for a pod is error 7, and goes back to the IPAM", async () => {
    const { it, env, calls } = withFakeIpam({ ips: [{ address: '10.1.0.1/16' }] })
    const error = errorOf(await node.call('ADD', it, { env }))
    assert.deepEqual([error.code, error.msg], [7, "Cannot attach: the IPAM gave 10.1.0.1, which is the gateway's"])
    assert.deepEqual(calls(), ['ADD', 'DEL'])
    assertNothingLeft()
  })

  test('ADD: layer 2 without IPAM is up and has no address; disableContainerInterface leaves it down', async () => {
    const { pod, it } = newPod({ ipam: {}, isDefaultGateway: false })
    const result = resultOf(await node.call('ADD', it))
    assert.deepEqual(['ips' in result, 'routes' in result], [false, false])
    assert.equal(shown(pod, 'eth0').operstate, 'UP')
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    await node.call('DEL', it)
    const { pod: left, it: its } = newPod({ ipam: {}, isDefaultGateway: false, disableContainerInterface: true })
    const other = resultOf(await node.call('ADD', its))
    assert.equal(shown(left, 'eth0').operstate, 'DOWN')
    assert.equal(shown(node, other.interfaces[1].name).master, 'cni0')
    assert.deepEqual(silent(await checkOf(its, other)), RELEASED)
    await node.call('DEL', its)
    const { it: old } = newPod({ ipam: {}, cniVersion: '0.2.0' })
    assert.match(errorOf(await node.call('ADD', old)).msg, /cannot convert: no valid IP addresses/)
    assertNothingLeft()
  })

  test('ADD: ipMasq hides pods from the outside, not from their own network (PTP-06)', async () => {
    const ipam = hostLocal(node, v4, v6)
    const [one, two] = [newPod({ ipMasq: true, ipMasqBackend: 'iptables', ipam }), newPod({ ipam })]
    const [first, second] = [resultOf(await node.call('ADD', one.it)), resultOf(await node.call('ADD', two.it))]
    const addressOf = (result: { ips: { address: string }[] }, index: number) =>
      result.ips[index]!.address.split('/')[0]!
    const [outside, neighbour, from, gateway] = [
      lab.outside.station(),
      two.pod.station(),
      one.pod.station(),
      node.station(),
    ]
    for (const address of ['192.0.2.2', '2001:db8:ff::2']) await outside.listen(address)
    for (const index of [0, 1]) await neighbour.listen(addressOf(second, index))
    await gateway.listen('10.1.0.1')
    assert.equal(await from.ask(addressOf(first, 0), '192.0.2.2'), '10.10.10.8')
    assert.equal(await from.ask(addressOf(first, 1), '2001:db8:ff::2'), 'fd00:10::8')
    for (const index of [0, 1])
      assert.equal(await from.ask(addressOf(first, index), addressOf(second, index)), addressOf(first, index))
    assert.equal(await from.ask(addressOf(first, 0), '10.1.0.1'), addressOf(first, 0))
    const rules = node.run('nft', 'list', 'ruleset')
    assert.match(
      rules,
      new RegExp(`"cni0" \\. ${addressOf(first, 0)} \\. 10\\.1\\.0\\.0 comment "mooring bridge brnet`),
    )
    assert.ok(!rules.includes(addressOf(second, 0)))
    assert.deepEqual(silent(await checkOf(one.it, first)), RELEASED)
    one.pod.remove()
    for (const { it } of [one, two]) assert.deepEqual(silent(await node.call('DEL', it)), RELEASED)
    assertNothingLeft('although the namespace went first')
  })

  test('our portmap leads a port of the node to a pod on a bridge, from outside, from the node and from the pod itself', async () => {
    const { pod, it } = newPod({ ipMasq: true, hairpinMode: true })
    const prevResult = resultOf(await node.call('ADD', it))
    const portMappings = [{ hostPort: STATION_PORT, containerPort: STATION_PORT, protocol: 'udp' }]
    const chained = {
      ...{ ...it, type: 'portmap' },
      config: { cniVersion: '1.1.0', name: 'brnet', type: 'portmap', runtimeConfig: { portMappings }, prevResult },
    }
    resultOf(await node.call('ADD', chained))
    const address = prevResult.ips[0].address.split('/')[0]
    const [inside, outside, onNode] = [pod.station(), lab.outside.station(), node.station()]
    await inside.listen(address)
    assert.equal(await outside.ask('192.0.2.2', '10.10.10.8'), '192.0.2.2')
    assert.notEqual(await onNode.ask('10.10.10.8', '10.10.10.8'), undefined)
    assert.notEqual(await inside.ask(address, '10.10.10.8'), undefined)
    for (const each of [chained, it]) assert.deepEqual(silent(await node.call('DEL', each)), RELEASED)
    assert.doesNotMatch(node.run('nft', 'list', 'ruleset'), new RegExp(`${address}\\b`))
    const { it: next } = newPod()
    resultOf(await node.call('ADD', next))
    await node.call('DEL', next)
    kept = stateOf(node) // with portmap's chains
  })

  test('ADD: with macspoofchk frames from another MAC are dropped (BR-08)', async () => {
    const { pod, it } = newPod({ macspoofchk: true })
    const result = resultOf(await node.call('ADD', it))
    assert.ok(pings(pod, '10.1.0.1'))
    pod.ip('link set eth0 address 02:00:00:00:00:99')
    pod.ip('route replace default via 10.1.0.1')
    assert.ok(!pings(pod, '10.1.0.1'), 'a foreign MAC')
    assert.match(node.run('nft', 'list', 'table', 'bridge', 'mooring'), /counter packets [1-9]\d* .*drop/)
    assert.match(errorOf(await checkOf(it, result)).msg, /link eth0 has MAC 02:00:00:00:00:99, not/)
    pod.ip(`link set eth0 address ${result.interfaces[2].mac}`)
    assert.ok(pings(pod, '10.1.0.1'))
    await node.call('DEL', it)
    assertNothingLeft()
  })

  test('ADD: isolated pods reach the gateway, not each other', async () => {
    const pods = [newPod({ portIsolation: true }), newPod({ portIsolation: true })]
    const results = []
    for (const { it } of pods) results.push(resultOf(await node.call('ADD', it)))
    const address = results[1].ips[0].address.split('/')[0]
    assert.ok(pings(pods[0]!.pod, '10.1.0.1'))
    assert.ok(!pings(pods[0]!.pod, address))
    for (const { it } of pods) await node.call('DEL', it)
    assertNothingLeft()
  })

  test('ADD: neighbours that knew the last owner of an address learn the new one at once (COM-12)', async () => {
    const peer = newPod()
    resultOf(await node.call('ADD', peer.it))
    const ipam = hostLocal(node, [{ subnet: '10.1.0.0/16', rangeStart: '10.1.9.9', rangeEnd: '10.1.9.9' }])
    for (const mac of ['02:00:00:00:00:11', '02:00:00:00:00:22']) {
      const { it } = newPod({ mac, ipam, name: 'again' })
      resultOf(await node.call('ADD', it))
      assert.ok(pings(peer.pod, '10.1.9.9'), `a neighbour, ${mac}`)
      assert.ok(pings(node, '10.1.9.9'), `the node, ${mac}`)
      await node.call('DEL', it)
    }
    await node.call('DEL', peer.it)
    assertNothingLeft()
  })

  test('ADD: with enabledad a duplicate IPv6 address is error 102, another works (COM-09, COM-11)', async () => {
    const ipam = hostLocal(node, [{ subnet: 'fd00:1::/64', rangeStart: 'fd00:1::77', rangeEnd: 'fd00:1::77' }])
    const other = { type: 'host-local', dataDir: `${node.leases}-other`, ranges: ipam.ranges }
    const { pod, it } = newPod({ enabledad: true, ipam })
    resultOf(await node.call('ADD', it))
    assert.doesNotMatch(pod.ip('-6 addr show eth0'), /tentative|dadfailed/)
    const { it: second } = newPod({ enabledad: true, ipam: other, name: 'other' })
    const error = errorOf(await node.call('ADD', second))
    assert.deepEqual(
      [error.code, error.msg],
      [102, 'Cannot attach eth0: somebody else on the segment has fd00:1::77/64'],
    )
    await node.call('DEL', it)
    rmSync(`${node.leases}-other`, { recursive: true })
    assertNothingLeft()
  })

  test('ADD: an interface of that name stays, and the address goes back (COM-02)', async () => {
    const { pod, it } = newPod()
    pod.ip('link add eth0 type bridge')
    const was = pod.ip('-o link')
    const error = errorOf(await node.call('ADD', it))
    assert.deepEqual([error.code, error.msg], [104, 'Cannot attach eth0: the container has an interface of that name'])
    assert.equal(pod.ip('-o link'), was)
    assertNothingLeft()
  })

  test('ADD: twice is an error, and the first attachment stays as it is (COM-18)', async () => {
    const { pod, it } = newPod({ ipMasq: true, macspoofchk: true })
    const result = resultOf(await node.call('ADD', it))
    const was = stateOf(node, pod)
    assert.equal(errorOf(await node.call('ADD', it)).code, 104)
    assertSameState(stateOf(node, pod), was)
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    await node.call('DEL', it)
    assertNothingLeft()
  })

  test('ADD: what fails after the IPAM is undone, and the IPAM is told (BR-07, DLG-03, DLG-05)', async () => {
    for (const answer of [
      { ips: [] },
      {},
      // No way there: the kernel refuses the route, when link and address are there already.
      { ips: [{ address: '10.1.0.77/16' }], routes: [{ dst: '10.50.0.0/16', gw: '172.31.0.1' }] },
      { ips: [{ address: '10.1.0.77/32' }] },
    ]) {
      const { pod, it, env, calls } = withFakeIpam(answer)
      errorOf(await node.call('ADD', it, { env }))
      assert.doesNotMatch(pod.ip('-o link'), /eth0/)
      assert.deepEqual(calls(), ['ADD', 'DEL'], JSON.stringify(answer))
      assertNothingLeft(JSON.stringify(answer))
    }
    const { it, env } = withFakeIpam(undefined)
    const error = errorOf(await node.call('ADD', it, { env }))
    assert.deepEqual([error.code, error.msg, error.details], [11, 'no', 'later'])
    assertNothingLeft()
  })

  // DEL

  test('DEL: twice, before any ADD, with another interface (DEL-01, DEL-02, DEL-11)', async () => {
    const { pod, it } = newPod()
    assert.deepEqual(silent(await node.call('DEL', it)), RELEASED)
    resultOf(await node.call('ADD', it))
    const net1 = { ...it, ifName: 'net1', config: bridgeConfig(node, { isDefaultGateway: false }) }
    resultOf(await node.call('ADD', net1))
    for (const _ of [1, 2]) assert.deepEqual(silent(await node.call('DEL', net1)), RELEASED)
    assert.ok(pings(pod, '10.1.0.1'))
    for (const _ of [1, 2]) assert.deepEqual(silent(await node.call('DEL', it)), RELEASED)
    assertNothingLeft()
  })

  for (const [what, netns, change] of [
    ['an empty CNI_NETNS (DEL-03)', () => '', {}],
    ['a path that is gone (DEL-04)', () => '/run/netns/none', {}],
    ['a plain file where the namespace was (DEL-05)', () => fileAt(), {}],
    ['a configuration that is not valid any more (DEL-08)', () => '', { vlan: 9999, bridge: 5, hairpinMode: 'x' }],
  ] as const)
    test(`DEL: releases everything with ${what}`, async () => {
      const { pod, it } = newPod({ ipMasq: true, macspoofchk: true })
      resultOf(await node.call('ADD', it))
      pod.remove()
      const config = { ...it.config, ...change }
      assert.deepEqual(silent(await node.call('DEL', { ...it, netns: netns(), config })), RELEASED)
      assertNothingLeft()
    })

  test('DEL: finds everything without the journal, also when the namespace went first (DEL-06)', async () => {
    const [living, gone] = [newPod({ ipMasq: true, macspoofchk: true }), newPod({ ipMasq: true, macspoofchk: true })]
    for (const { it } of [living, gone]) resultOf(await node.call('ADD', it))
    gone.pod.remove()
    await agent.kill('SIGTERM')
    for (const suffix of ['', '-wal', '-shm']) rmSync(join(node.dataDir, `journal.db${suffix}`), { force: true })
    agent = await node.startAgent()
    for (const { it } of [living, gone]) assert.deepEqual(silent(await node.call('DEL', it)), RELEASED)
    assertNothingLeft()
  })

  test('DEL: works when the bridge was taken away', async () => {
    const bridge = spareBridge('br-gone')
    const { it } = newPod({ bridge, ipMasq: true, macspoofchk: true })
    resultOf(await node.call('ADD', it))
    removeSpares()
    assert.deepEqual(silent(await node.call('DEL', it)), RELEASED)
    assertNothingLeft()
  })

  // CHECK, STATUS, GC

  test('CHECK: names whatever differs (BR-09, CHK-04 to CHK-07, CHK-11, CHK-12)', async () => {
    const ipam = { ...hostLocal(node, v4, v6), routes: [{ dst: '10.200.0.0/16' }] }
    const bridge = spareBridge('br-check')
    const options = { bridge, ipam, ipMasq: true, macspoofchk: true, hairpinMode: true, portIsolation: true }
    const { pod, it } = newPod({ ...options, name: 'checked' })
    const result = resultOf(await node.call('ADD', it))
    const host = result.interfaces[1].name
    const [mine, mine6] = result.ips.map(({ address }: { address: string }) => address)
    const own = mine.split('/')[0]
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    const port = `ip link set ${host} master ${bridge}; ip link set ${host} type bridge_slave hairpin on isolated on`
    const element = (set: string, key: string) =>
      [`nft 'delete element ${set} { ${key} }'`, `nft 'add element ${set} { ${key} }'`] as const
    const masked = element('inet mooring masquerade_v4', `"${bridge}" . ${own}`)
    const checked = element('bridge mooring checked_links', `"${host}"`)
    // Where a link is down its routes and IPv6 gateway go with it.
    const back = `ip link set eth0 up; ip route replace default via 10.1.0.1; ip route replace 10.200.0.0/16 via 10.1.0.1; ip -6 route replace default via fd00:1::1`
    const damages: readonly (readonly [Netns, damage: string, repair: string, fault: string])[] = [
      [node, `ip link set ${bridge} down`, `ip link set ${bridge} up`, `bridge ${bridge} is down`],
      [node, `ip link set ${host} down`, `ip link set ${host} up`, `link ${host} on the node is down`],
      [node, `ip link set ${host} nomaster`, port, `link ${host} is no port of ${bridge}`],
      [node, `ip link set ${host} master cni0`, port, `link ${host} is no port of ${bridge}`],
      [node, `ip link set ${host} type bridge_slave hairpin off`, port, `bridge port ${host} has hairpin mode off`],
      [node, `ip link set ${host} type bridge_slave isolated off`, port, `bridge port ${host} is not isolated`],
      [
        node,
        `ip link set ${host} address 02:00:00:00:00:98`,
        `ip link set ${host} address ${result.interfaces[1].mac}`,
        `link ${host} has MAC 02:00:00:00:00:98`,
      ],
      [
        node,
        `ip addr del 10.1.0.1/16 dev ${bridge}`,
        `ip addr add 10.1.0.1/16 dev ${bridge}`,
        `address 10.1.0.1/16 is missing on ${bridge}`,
      ],
      [
        node,
        `ip addr flush dev ${bridge} scope global`,
        `ip addr add 10.1.0.1/16 dev ${bridge}; ip addr add fd00:1::1/64 dev ${bridge} nodad`,
        `address fd00:1::1/64 is missing on ${bridge}`,
      ],
      [node, ...masked, `element ${bridge} . ${own} of set inet mooring masquerade_v4 is missing`],
      [node, ...checked, `element ${host} of set bridge mooring checked_links is missing`],
      [pod, 'ip link set eth0 down', back, 'link eth0 in the pod is down'],
      [
        pod,
        'ip link set eth0 address 02:00:00:00:00:97',
        `ip link set eth0 address ${result.interfaces[2].mac}; ${back}`,
        'link eth0 has MAC 02:00:00:00:00:97',
      ],
      [
        pod,
        `ip addr del ${mine} dev eth0`,
        `ip addr add ${mine} dev eth0; ${back}`,
        `address ${mine} is missing on eth0`,
      ],
      [
        pod,
        `ip addr del ${mine6} dev eth0`,
        `ip addr add ${mine6} dev eth0 nodad; ${back}`,
        `address ${mine6} is missing on eth0`,
      ],
      [pod, 'ip route del 10.200.0.0/16', back, 'route 10.200.0.0/16 via 10.1.0.1 dev eth0 is missing in the pod'],
      [
        pod,
        'ip route del 10.1.0.0/16',
        `ip route add 10.1.0.0/16 dev eth0 src ${own}`,
        'route 10.1.0.0/16 dev eth0 is missing in the pod',
      ],
      [
        pod,
        'ip route replace default via 10.1.0.9',
        back,
        'route 0.0.0.0/0 via 10.1.0.1 dev eth0 is missing in the pod',
      ],
      [
        pod,
        'ip link set eth0 down; ip link set eth0 name eth9',
        `ip link set eth9 name eth0; ${back}`,
        'link eth0 in the pod is missing',
      ],
    ]
    for (const [netns, damage, repair, fault] of damages) {
      netns.run('sh', '-c', damage)
      const { code, msg, details = '' } = errorOf(await checkOf(it, result))
      assert.equal(code, 103)
      assert.ok(`${msg}; ${details}`.includes(fault), `${damage}: ${msg}; ${details}`)
      netns.run('sh', '-c', repair)
    }
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    // What others added is no fault.
    pod.ip('addr add 10.1.200.200/16 dev eth0')
    node.ip(`addr add 10.77.0.1/24 dev ${bridge}`)
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    assert.match(
      errorOf(await checkOf(it, result, { promiscMode: true, hairpinMode: false })).msg,
      /is not promiscuous/,
    )
    const elsewhere = structuredClone(result)
    elsewhere.interfaces[2].sandbox = '/run/netns/other'
    assert.match(errorOf(await checkOf(it, elsewhere)).msg, /^Sandbox in prevResult .* doesn't match configured netns/)
    assert.equal(errorOf(await node.call('CHECK', it)).msg, 'Required prevResult missing')
    node.ip(`link del ${host}`)
    assert.match(errorOf(await checkOf(it, result)).msg, new RegExp(`link ${host} on the node is missing`))
    await node.call('DEL', it)
    removeSpares()
    assertNothingLeft()
  })

  test('STATUS: silent where pods can be attached; 50 where this kernel does not filter VLANs (STA-01, STA-03)', async () => {
    const { it } = newPod()
    assert.deepEqual(silent(await node.call('STATUS', it)), RELEASED)
    assert.deepEqual(silent(await node.call('STATUS', newPod({ bridge: 'br-later', macspoofchk: true }).it)), RELEASED)
    const filtering = newPod({ bridge: 'br-later', vlan: 100 }).it
    if (kernelKnowsVlans()) assert.deepEqual(silent(await node.call('STATUS', filtering)), RELEASED)
    else {
      const { code, msg } = errorOf(await node.call('STATUS', filtering))
      assert.deepEqual([code, msg], [50, 'Cannot attach pods to br-later: this kernel lacks VLAN filtering of bridges'])
    }
    const { code, msg } = errorOf(await node.call('STATUS', newPod({ vlan: 100 }).it))
    assert.deepEqual([code, msg], [50, 'Cannot use VLANs on bridge cni0: it does not filter them'])
    const { it: its, env } = withFakeIpam({}, 'STATUS')
    assert.deepEqual([errorOf(await node.call('STATUS', its, { env })).code], [11])
    assertNothingLeft()
  })

  test('GC: removes what no valid attachment owns, of this network alone (GC-02, GC-03, GC-07)', async () => {
    const pods = [newPod({ ipMasq: true }), newPod({ ipMasq: true, macspoofchk: true })]
    const other = newPod({ name: 'other', bridge: spareBridge('br-other') })
    for (const { it } of [...pods, other]) resultOf(await node.call('ADD', it))
    await new Promise(resolve => setTimeout(resolve, 150)) // GC spares what has just been attached
    const valid = [{ containerID: pods[0]!.it.containerId, ifname: 'eth0' }]
    const more = { 'cni.dev/valid-attachments': valid }
    const gc = { ...pods[0]!.it, containerId: '', netns: '', ifName: '' }
    assert.deepEqual(silent(await node.call('GC', gc, { more })), RELEASED)
    assert.ok(pings(pods[0]!.pod, '10.1.0.1'))
    assert.doesNotMatch(pods[1]!.pod.ip('-o link'), /eth0/)
    assert.match(other.pod.ip('-o link'), /eth0/)
    for (const { it } of [...pods, other]) await node.call('DEL', it)
    removeSpares()
    assertNothingLeft()
  })

  test('a rule set that somebody flushed is there again with the next pod, for the others too', async () => {
    const options = { ipMasq: true, macspoofchk: true }
    const [one, two] = [newPod(options), newPod(options)]
    const result = resultOf(await node.call('ADD', one.it))
    node.run('nft', 'flush', 'ruleset')
    assert.equal(errorOf(await checkOf(one.it, result)).code, 103)
    resultOf(await node.call('ADD', two.it))
    assert.deepEqual(silent(await checkOf(one.it, result)), RELEASED)
    for (const { it } of [one, two]) await node.call('DEL', it)
    // Sets of prefix lengths that nobody needs now are not made again.
    const { it } = newPod({ ...options, ipam: hostLocal(node, v4, v6) })
    resultOf(await node.call('ADD', it))
    await node.call('DEL', it)
    kept = stateOf(node)
  })

  /** After a flush: what of the tables an earlier pod had brought, for the tests that follow. */
  async function bringTheTable(): Promise<void> {
    const { it } = newPod({ ipMasq: true, macspoofchk: true, ipam: hostLocal(node, v4, v6) })
    resultOf(await node.call('ADD', it))
    await node.call('DEL', it)
    kept = stateOf(node)
  }

  test('a rule set that somebody flushed is there again after a while, and nothing that no pod needs', async () => {
    await agent.kill('SIGTERM')
    agent = await node.startAgent({ reconcile: 1 })
    const { it } = newPod({ ipMasq: true, macspoofchk: true })
    const result = resultOf(await node.call('ADD', it))
    node.run('nft', 'flush', 'ruleset')
    const rules = () => node.run('nft', 'list', 'ruleset')
    await eventually(
      'the elements are back',
      () => /masquerade_v4[^}]*comment/.test(rules()) && /link_macs/.test(rules()),
    )
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    assert.doesNotMatch(rules(), /pod_addresses/)
    await node.call('DEL', it)
    await bringTheTable()
  })

  test('a rule set that an ADD made again is filled again although that ADD failed', async () => {
    await agent.kill('SIGTERM')
    agent = await node.startAgent({ reconcile: 1 })
    const { it } = newPod({ ipMasq: true })
    const result = resultOf(await node.call('ADD', it))
    const refused = { ...hostLocal(node, v4), routes: [{ dst: '198.51.100.0/24', gw: '203.0.113.1' }] }
    const { it: failing } = newPod({ ipMasq: true, ipam: refused })
    node.run('nft', 'flush', 'ruleset')
    assert.match(errorOf(await node.call('ADD', failing)).msg, /198\.51\.100\.0\/24/)
    await eventually('the elements are back', () =>
      /masquerade_v4[^}]*comment/.test(node.run('nft', 'list', 'ruleset')),
    )
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    await node.call('DEL', it)
    await node.call('DEL', failing)
    await bringTheTable()
  })

  // At once, and when something fails

  test('64 ADDs at once stand, as many DELs leave nothing', async t => {
    const all = makeManyNetns('pod', 64).map((netns, index) => ({
      ...{ containerId: `p${index}`, netns, type: 'bridge' },
      config: bridgeConfig(node, { ipMasq: true, macspoofchk: true }),
    }))
    const begin = performance.now()
    const results = (await Promise.all(all.map(it => node.call('ADD', it)))).map(resultOf)
    t.diagnostic(`64 ADDs in ${Math.round(performance.now() - begin)} ms`)
    assert.equal(new Set(results.map(({ ips }) => ips[0].address)).size, 64)
    assert.equal(node.ip('-o link show master cni0').trim().split('\n').length, 64)
    for (const index of [0, 31, 63]) assert.deepEqual(silent(await checkOf(all[index]!, results[index])), RELEASED)
    const ended = performance.now()
    for (const outcome of await Promise.all(all.map(it => node.call('DEL', it))))
      assert.deepEqual(silent(outcome), RELEASED)
    t.diagnostic(`64 DELs in ${Math.round(performance.now() - ended)} ms`)
    assertNothingLeft()
  })

  test('a fault in each netlink request is an error that names it, and nothing is left', {
    skip: withoutStrace,
  }, async t => {
    const more = { ipMasq: true, macspoofchk: true, hairpinMode: true, ipam: hostLocal(node, v4, v6) }
    let failed = 0
    for (let when = 1; when <= 40; when++) {
      const { it } = newPod(more)
      const tracer = await attach(agent.pid, 'sendto', `error=ENOBUFS:when=${when}`)
      const outcome = await node.call('ADD', it)
      tracer.stop()
      await tracer.ended
      if (outcome.code === 0) {
        resultOf(await node.call('DEL', it))
        if (tracer.calls().length < when) break
        continue
      }
      const error = errorOf(outcome)
      assert.deepEqual([error.code, /\(ENOBUFS\)/.test(error.msg)], [11, true], outcome.stdout)
      // strace counts for each thread: the one that takes back may have met the fault as well, and left it to DEL.
      resultOf(await node.call('DEL', it))
      assertNothingLeft(`after ENOBUFS in request ${when}`)
      failed++
    }
    t.diagnostic(`failed: ${failed} requests`)
    assert.ok(failed >= 6, `${failed}`)
  })

  test('ADD and DEL start no process', { skip: withoutStrace }, async () => {
    const tracer = await attach(agent.pid, 'execve,execveat,fork,vfork,clone,clone3')
    const { it } = newPod({ ipMasq: true, macspoofchk: true })
    for (const verb of ['ADD', 'DEL'] as const) resultOf(await node.call(verb, it))
    tracer.stop()
    await tracer.ended
    assert.deepEqual(tracer.calls(), [])
  })

  // VLANs

  test('ADD: a bridge that does not filter VLANs is refused for a network with one (BR-03)', async () => {
    const error = errorOf(await node.call('ADD', newPod({ vlan: 100 }).it))
    assert.deepEqual([error.code, error.msg], [7, 'Cannot use VLANs on bridge cni0: it does not filter them'])
    assertNothingLeft()
  })

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
})

describe('bridge, standalone', { skip }, () => {
  test('the first ADDs at once make one bridge with one gateway, and DEL leaves just those', async () => {
    const node = makeLab({ mode: 'standalone' }).nodes[0]!
    const all = makeManyNetns('pod', 8).map((netns, index) => ({
      ...{ containerId: `p${index}`, netns, type: 'bridge' },
      config: bridgeConfig(node, { ipMasq: true, macspoofchk: true, ipam: hostLocal(node, v4, v6) }),
    }))
    const results = (await Promise.all(all.map(it => node.call('ADD', it)))).map(resultOf)
    assert.equal(new Set(results.map(({ interfaces }) => interfaces[0].mac)).size, 1)
    assert.equal(node.ip('-o -4 addr show cni0').trim().split('\n').length, 1)
    assert.deepEqual(silent(await node.call('CHECK', all[0]!, { more: { prevResult: results[0] } })), RELEASED)
    for (const outcome of await Promise.all(all.map(it => node.call('DEL', it))))
      assert.deepEqual(silent(outcome), RELEASED)
    assert.doesNotMatch(node.ip('-o link'), /veth/)
    assert.doesNotMatch(node.run('nft', 'list', 'ruleset'), /elements/)
    assert.match(node.ip('-o -4 addr show cni0'), / 10\.1\.0\.1\/16 /)
  })
})

function fileAt(): string {
  const file = join(folder('files'), 'file')
  writeFileSync(file, '')
  return file
}
