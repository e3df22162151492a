// SPDX-License-Identifier: Apache-2.0

// Goal: upstream's current plugins and ours work in one chain, as IPAM of one another, and on a node that changes from one
// to the other with pods running. Method: the executables of both, called one after another as a runtime does. Needs root
// and lab/peers.

import assert from 'node:assert/strict'
import { copyFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import {
  addChain,
  call,
  checkChain,
  DEFAULTS,
  delChain,
  type Link,
  newPod,
  noPeers,
  type Pod,
  THEIRS,
} from './chain-lab.ts'
import {
  assertSameState,
  cniBin,
  errorOf,
  folder,
  makeLab,
  type Netns,
  type Node,
  type NodeLab,
  type RunningAgent,
  resultOf,
  root,
  run,
  stateOfKernel,
} from './nodelab.ts'
import { removeTuningData } from './tuning-data.ts'

describe('with upstream’s plugins', { skip: noPeers }, () => {
  let lab: NodeLab
  let node: Node
  let agent: RunningAgent
  let kept: string[]

  before(async () => {
    lab = makeLab({ mode: 'agent' })
    node = lab.nodes[0]!
    agent = await node.startAgent()
    await bringForGood()
    kept = node.state()
  })
  after(async () => {
    await agent?.[Symbol.asyncDispose]()
    removeTuningData()
  })

  const ranges = [[{ subnet: '10.6.0.0/24' }], [{ subnet: 'fd00:6::/64' }]]
  const hostLocal = (more: object = {}) => ({
    type: 'host-local',
    dataDir: node.leases,
    ranges,
    routes: DEFAULTS,
    ...more,
  })
  const addresses = [
    { address: '10.6.0.77/24', gateway: '10.6.0.1' },
    { address: 'fd00:6::77/64', gateway: 'fd00:6::1' },
  ]
  const fixed = () => ({ type: 'static', addresses, routes: DEFAULTS })
  const ptp = (more: object = {}): Link => ({ type: 'ptp', ipam: hostLocal(), ...more })

  const mainOf = (type: string): Link => ({
    ...{ type, ipam: hostLocal(), ipMasq: true },
    ...(type === 'bridge' ? { bridge: 'cni9', isGateway: true } : {}),
    ...(type === 'macvlan' ? { master: 'eth0' } : {}),
  })

  /** Leads to what a station listens on. */
  const ourPortmap = (): Link => ({
    type: 'portmap',
    runtimeConfig: { portMappings: [{ hostPort: 7, containerPort: 7, protocol: 'udp' }] },
  })

  /** What the first pods bring for good: table and settings. */
  async function bringForGood(): Promise<void> {
    const chains = [
      [ptp({ ipMasq: true }), ourPortmap()],
      [mainOf('bridge')],
      [ptp({ theirs: true })],
      [{ type: 'veth-route', ipam: hostLocal() }],
    ]
    for (const chain of chains) {
      const pod = newPod()
      await delChain(node, pod, chain, await addChain(node, pod, chain))
    }
    node.ip('link del cni9')
  }
  const assertNothingLeft = (when = '') => assertSameState(node.state(), kept, when)

  test('ptp: pod and node have the same of both, but for names, MACs and what ours knows better', async () => {
    const seen = await Promise.all(
      [true, false].map(async theirs => {
        // At the same time on two nodes, because they have the same addresses.
        const own = makeLab({ mode: 'standalone' }).nodes[0]!
        const pod = newPod()
        const link = { ...ptp({ theirs }), ipam: fixed() }
        const { interfaces, ...result } = await addChain(own, pod, [link])
        const names = interfaces.map(({ name, sandbox }: { name: string; sandbox?: string }) => [
          name.replace(/^veth.*/, 'veth'),
          sandbox?.replace(pod.netns.name, 'pod'),
        ])
        const text = (of: Netns) =>
          stateOfKernel(of)
            .map(line => line.replaceAll(own.name, 'node').replaceAll(pod.netns.name, 'pod'))
            .map(line => line.replaceAll(interfaces[0].name, 'veth'))
            .filter(
              line =>
                /\b(inet6?|via|default|src|dev)\b/.test(line) &&
                !/link\/ether|fe80::|proto kernel|table local|PERMANENT/.test(line),
            )
            .map(line =>
              line
                .replace(/^(\w+): \d+:/, '$1:')
                .replace(/ (noprefixroute|nodad|onlink)\b/g, '')
                .replace(/ +/g, ' '),
            )
            .sort()
        const state = { pod: text(pod.netns), node: text(own).filter(line => /10\.6|fd00:6/.test(line)) }
        await delChain(own, pod, [link], { ...result, interfaces })
        return { names, result, state }
      }),
    )
    // Upstream's host route has scope host, which is no matter; ours are known by their number.
    const known = (lines: string[]) => lines.map(line => line.replace(/ scope host| proto 98/g, '').trim())
    const [upstreams, ours] = seen as [(typeof seen)[0], (typeof seen)[0]]
    assert.deepEqual([ours.names, ours.result], [upstreams.names, upstreams.result])
    assert.deepEqual(ours.state.pod, upstreams.state.pod)
    assert.deepEqual(known(ours.state.node), known(upstreams.state.node))
  })

  // One as the IPAM of the other

  for (const [ipam, of] of [
    ['host-local', () => hostLocal()],
    ['static', fixed],
  ] as const) {
    for (const type of ['ptp', 'veth-route'])
      test(`upstream's ${ipam} gives addresses to our ${type}`, async () => {
        const pod = newPod()
        const link: Link = { type, ipam: of(), ipMasq: true, path: [THEIRS] }
        const result = await addChain(node, pod, [link])
        assert.match(result.ips[0].address, /^10\.6\.0\.\d+\/24$/)
        assert.equal(result.ips.length, 2)
        await checkChain(node, pod, [link], result)
        resultOf(await call(node, 'STATUS', pod, link, { cniVersion: '1.1.0' }))
        await delChain(node, pod, [link], result)
        assertNothingLeft()
      })
    for (const type of ['ptp', 'bridge', 'macvlan'])
      test(`our ${ipam} gives addresses to upstream's ${type}`, async () => {
        const pod = newPod()
        const link: Link = { theirs: true, type, ipam: of(), path: [cniBin()], master: 'eth0', bridge: 'cni9' }
        const result = await addChain(node, pod, [link])
        assert.match(result.ips[0].address, /^10\.6\.0\.\d+\/24$/)
        await checkChain(node, pod, [link], result)
        resultOf(await call(node, 'STATUS', pod, link, { cniVersion: '1.1.0' }))
        await delChain(node, pod, [link], result)
        if (type === 'bridge') node.ip('link del cni9')
        assertNothingLeft()
      })
  }

  // Chains

  const mains = ['ptp', 'veth-route', 'bridge', 'macvlan']
  /** A new MAC takes the pod's neighbour entries away, which veth-route cannot do without. */
  const tuning = (type: string): Link => ({
    ...{ theirs: true, type: 'tuning', mtu: 1400 },
    ...(type === 'veth-route' ? {} : { mac: '02:11:22:33:44:55' }),
    sysctl: { 'net.ipv4.conf.IFNAME.log_martians': '1' },
  })
  const portmap = (backend: string): Link => ({
    ...{ theirs: true, type: 'portmap', backend, snat: true },
    runtimeConfig: { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] },
  })
  const bandwidth = (): Link => ({
    ...{ theirs: true, type: 'bandwidth' },
    ...{ ingressRate: 8_000_000, ingressBurst: 800_000, egressRate: 8_000_000, egressBurst: 800_000 },
  })
  /** It takes veths alone. */
  const shaped = (type: string) => (type === 'macvlan' ? [] : [bandwidth()])
  const firewall = (): Link => ({ theirs: true, type: 'firewall', backend: 'iptables' })
  const sbr = (): Link => ({ theirs: true, type: 'sbr' })

  /** Upstream's tables stay for good, with their chains; what they say of a pod has to be gone. */
  const assertNothingOf = (pod: Pod, when = '') => {
    const ruleset = node.run('nft', 'list', 'ruleset')
    assert.doesNotMatch(ruleset, new RegExp(`\\b${pod.containerId}\\b|10\\.6\\.0\\.|fd00:6:`), when)
    for (const [, family, name] of ruleset.matchAll(/^table (\w+) (\w+)/gm))
      if (name !== 'mooring') node.run('nft', 'delete', 'table', family!, name!)
    assertNothingLeft(when)
  }

  for (const [what, chain] of [
    ['tuning', (type: string) => [tuning(type)]],
    ['portmap with iptables', () => [portmap('iptables')]],
    ['portmap with nftables', () => [portmap('nftables')]],
    ['bandwidth', () => [bandwidth()]],
    ['firewall', () => [firewall()]],
    ['all of them', (type: string) => [tuning(type), portmap('iptables'), ...shaped(type), firewall()]],
  ] as const)
    for (const type of what === 'all of them' ? mains : ['ptp', 'veth-route'])
      test(`${what} of upstream works behind our ${type}: ADD, CHECK, DEL, DEL`, async () => {
        const pod = newPod()
        const links: Link[] = [mainOf(type), ...chain(type)]
        const result = await addChain(node, pod, links)
        const ours = resultOf(await call(node, 'CHECK', pod, links[0]!, { prevResult: result }))
        assert.equal(ours, undefined)
        // Through macvlan the pod is on the segment, where nobody knows its network.
        if (type !== 'macvlan') pod.netns.run('ping', '-qc1', '-W1', '192.0.2.2')
        await checkChain(node, pod, links, result)
        for (const _ of [1, 2]) await delChain(node, pod, links, result)
        if (type === 'bridge') node.ip('link del cni9')
        assertNothingOf(pod, what)
      })

  // Not veth-route: sbr leads packets to the gateway that the IPAM names.
  for (const type of ['ptp', 'bridge', 'macvlan'])
    test(`sbr of upstream works behind our ${type}, whose CHECK finds the routes in their own table`, async () => {
      const pod = newPod()
      const links = [mainOf(type), sbr()]
      const result = await addChain(node, pod, links)
      assert.match(pod.netns.ip('route show table 100'), /default via \S+ dev eth0/)
      // Upstream's own fail here: they look for the gateway in the main table.
      await checkChain(node, pod, links, result)
      pod.netns.ip('route del default table 100')
      assert.match(
        errorOf(await call(node, 'CHECK', pod, links[0]!, { prevResult: result })).msg,
        /route 0\.0\.0\.0\/0 /,
      )
      await delChain(node, pod, links, result)
      if (type === 'bridge') node.ip('link del cni9')
      assertNothingOf(pod)
    })

  for (const type of ['ptp', 'bridge'])
    test(`our portmap works behind upstream's ${type}, and between upstream's plugins`, async () => {
      const pod = newPod()
      const main: Link = { theirs: true, type, ipam: hostLocal(), bridge: 'cni9', isGateway: true }
      const links = [main, tuning(type), ourPortmap(), bandwidth(), firewall()]
      const result = await addChain(node, pod, links)
      const [outside, inside] = [lab.outside.station(), pod.netns.station()]
      await inside.listen(result.ips[0].address.split('/')[0])
      assert.equal(await outside.ask('192.0.2.2', '10.10.10.8'), '192.0.2.2', 'the mapped port answers')
      await checkChain(node, pod, links, result)
      for (const _ of [1, 2]) await delChain(node, pod, links, result)
      if (type === 'bridge') node.ip('link del cni9')
      assertNothingOf(pod)
    })

  test('our loopback hands on what upstream’s ptp made, and upstream’s what ours made', async () => {
    for (const theirs of [true, false]) {
      const pod = newPod()
      const links: Link[] = [ptp({ theirs }), { theirs: !theirs, type: 'loopback' }]
      const first = resultOf(await call(node, 'ADD', pod, links[0]!))
      const second = resultOf(await call(node, 'ADD', pod, links[1]!, { prevResult: first }))
      assert.deepEqual(second, first)
      await checkChain(node, pod, links, second)
      await delChain(node, pod, links, second)
      assertNothingOf(pod)
    }
  })

  // A node that changes

  const rename = (link: Link, theirs: boolean): Link => ({ ...link, theirs })
  const movable = ['ptp', 'bridge', 'macvlan']
  for (const type of movable)
    test(`a pod that upstream's ${type} made is checked and removed by ours`, async () => {
      for (const ipam of [hostLocal(), fixed()]) {
        const pod = newPod()
        const theirs = rename({ ...mainOf(type), ipam, ipMasq: false }, true)
        const result = await addChain(node, pod, [theirs])
        const ours = rename(theirs, false)
        assert.equal(errorOf(await call(node, 'ADD', pod, ours)).code, 104)
        resultOf(await call(node, 'CHECK', pod, ours, { prevResult: result }))
        pod.netns.ip('route del default')
        assert.match(errorOf(await call(node, 'CHECK', pod, ours, { prevResult: result })).msg, /route 0\.0\.0\.0\/0 /)
        await delChain(node, pod, [ours], result)
        assert.doesNotMatch(pod.netns.ip('-o link'), /eth0/)
        if (type === 'bridge') node.ip('link del cni9')
        assertNothingOf(pod)
      }
    })

  for (const type of ['ptp', 'bridge'])
    for (const ipMasqBackend of ['iptables', 'nftables'])
      test(`masquerade of upstream's ${type} by ${ipMasqBackend} goes with our DEL, with and without the namespace`, async () => {
        const [pod, gone, other] = [newPod(), newPod(), newPod()]
        const only4 = hostLocal({ ranges: ranges.slice(0, 1), routes: DEFAULTS.slice(0, 1) })
        const theirs: Link = {
          ...mainOf(type),
          theirs: true,
          ipMasqBackend,
          ipam: type === 'ptp' ? hostLocal() : only4,
        }
        const results = []
        for (const each of [pod, gone, other]) results.push(await addChain(node, each, [theirs]))
        // As upstream's DEL would leave it: the pair is gone, its rules are not.
        gone.netns.remove()
        const ours = rename(theirs, false)
        resultOf(await call(node, 'DEL', pod, ours, { prevResult: results[0] }))
        resultOf(await call(node, 'DEL', gone, ours))
        const ruleset = node.run('nft', 'list', 'ruleset')
        const addresses = results.map(({ ips }) => ips[0].address.split('/')[0])
        for (const address of addresses.slice(0, 2)) assert.doesNotMatch(ruleset, new RegExp(`${address}\\b`))
        assert.ok(ruleset.includes(addresses[2]), 'the other pod keeps its rules')
        other.netns.run('ping', '-qc1', '-W1', '192.0.2.2')
        for (const _ of [1, 2]) resultOf(await call(node, 'DEL', other, ours, { prevResult: results[2] }))
        if (type === 'bridge') node.ip('link del cni9')
        assertNothingOf(other)
      })

  for (const type of movable)
    test(`a pod that our ${type} made is checked and removed by upstream's`, async () => {
      for (const ipam of [hostLocal(), fixed()]) {
        const pod = newPod()
        const ours = { ...mainOf(type), ipam }
        const result = await addChain(node, pod, [ours])
        const theirs = rename(ours, true)
        resultOf(await call(node, 'CHECK', pod, theirs, { prevResult: result }))
        await delChain(node, pod, [theirs], result)
        assert.doesNotMatch(pod.netns.ip('-o link'), /eth0/)
        // The record stays for whoever looks after the node next: ours removes it, and finds nothing else.
        await delChain(node, pod, [ours], result)
        if (type === 'bridge') node.ip('link del cni9')
        assertNothingOf(pod)
      }
    })

  test('a node changes over by install --replace, and back by uninstall, with pods running', async () => {
    const directory = folder('opt-cni-bin')
    for (const type of ['ptp', 'bridge', 'macvlan', 'host-local', 'static', 'loopback'])
      copyFileSync(join(THEIRS, type), join(directory, type))
    const mooring = (verb: string, ...more: string[]) =>
      run(join(root, 'mooring'), [
        verb,
        '--cni-bin',
        directory,
        '--config',
        join(directory, '..', 'other-mode'),
        ...more,
      ])
    const at = (link: Link): Link => ({ ...link, directory, path: [directory] })
    // One of each kind made by upstream's, and its addresses by upstream's.
    const made = []
    for (const type of movable) {
      const link = at(mainOf(type))
      const pod = newPod()
      made.push({ type, pod, link, result: await addChain(node, pod, [{ ...link, theirs: true }]) })
    }
    mooring('install', '--replace')
    for (const { pod, link, result } of made) {
      await checkChain(node, pod, [link], result)
      await delChain(node, pod, [link], result)
    }
    const [own, link] = [newPod(), at(ptp())]
    const result = await addChain(node, own, [link])
    mooring('uninstall')
    await checkChain(node, own, [{ ...link, theirs: true }], result)
    await delChain(node, own, [{ ...link, theirs: true }], result)
    for (const type of ['ptp', 'host-local'])
      assert.ok(readFileSync(join(directory, type)).equals(readFileSync(join(THEIRS, type))), type)
    // What our record says is gone already.
    await delChain(node, own, [ptp()], result)
    node.ip('link del cni9')
    assertNothingOf(own)
  })
})
