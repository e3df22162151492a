// SPDX-License-Identifier: Apache-2.0

// Goal: what veth-host promises arrives on the wire, in both shapes and both families. Two nodes on a segment, pods with a
// macvlan or ipvlan of the node's NIC (which cannot speak with their own node), services by rules like kube-proxy's, UDP and TCP that
// tell which address they were seen with. No try is repeated: the first packet passes. Needs root.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { Station } from './host/station.ts'
import { makeLab, type Netns, type Node, type NodeLab, type RunningAgent, resultOf, skip } from './nodelab.ts'
import {
  configOf,
  GATEWAY,
  hasIpvlan,
  type Joined,
  makePod,
  NODES,
  OUTSIDE,
  setServices,
  versions,
} from './veth-host/pods.ts'

/** As hardened systems are, and nodes of kube-proxy with strictARP. */
const beStrict = (netns: Netns) =>
  netns.run('sysctl', '-qw', 'net.ipv4.conf.all.rp_filter=1', 'net.ipv4.conf.all.arp_ignore=1')
const VIP = { v4: '10.96.0.10', v6: 'fd00:96::10' }

for (const kind of ['macvlan', 'ipvlan'] as const)
  describe(`packets of veth-host behind ${kind}`, {
    skip: skip || (kind === 'ipvlan' && !hasIpvlan && 'this kernel has no ipvlan'),
  }, () => {
    let lab: NodeLab
    const agents: RunningAgent[] = []
    let [gateway, outside]: Station[] = []
    let nodeStations: Station[]
    let first: Node
    /** Of each shape one pod on the first node and one on the second. */
    let [byNic, byNode, far, farByNode]: Joined[] = []

    before(async () => {
      lab = makeLab({ nodes: 2, mode: 'agent' })
      first = lab.nodes[0]!
      for (const node of lab.nodes) beStrict(node)
      agents.push(...(await Promise.all(lab.nodes.map(node => node.startAgent()))))
      gateway = lab.router.station()
      outside = lab.outside.station()
      nodeStations = lab.nodes.map(node => node.station())
      for (const address of Object.values(GATEWAY)) await gateway.listen(address)
      for (const address of Object.values(OUTSIDE)) await outside.listen(address)
      for (const [index, station] of nodeStations.entries())
        for (const address of Object.values(NODES[index]!)) await station.listen(address)
      ;[byNic, far] = [await addPod(first), await addPod(lab.nodes[1]!)]
      const keys = { isDefaultGateway: true }
      ;[byNode, farByNode] = [await addPod(first, keys), await addPod(lab.nodes[1]!, keys)]
    })
    after(async () => {
      for (const agent of agents) await agent[Symbol.asyncDispose]()
    })

    async function addPod(node: Node, keys: object = {}): Promise<Joined> {
      const pod = makePod(node, versions, kind)
      beStrict(pod.netns)
      const more = configOf({ ...keys, prevResult: pod.prevResult })
      const result = resultOf(await node.call('ADD', pod.it, { more }))
      const station = pod.netns.station()
      for (const version of versions) await station.listen(pod[version])
      return { ...pod, result, station }
    }

    /** Asks by UDP and by TCP, with as much as a packet takes. @returns the address that was seen, when it was one */
    async function askAll(from: Station, source: string, to: string, port = 7) {
      const bytes = source.includes(':') ? 1452 : 1472
      const answers = await Promise.all([
        from.ask(source, to, { port }),
        from.ask(source, to, { port, bytes }),
        from.ask(source, to, { port, protocol: 'tcp', bytes: 3 * bytes }),
      ])
      return [...new Set(answers)].join(' and ')
    }

    for (const version of versions) {
      const [own, other] = [NODES[0][version], NODES[1][version]]
      const address = VIP[version]

      for (const [shape, isDefault] of [
        ['default route by the NIC', false],
        ['default route by the node', true],
      ] as const) {
        const pods = () =>
          isDefault ? { pod: byNode!, near: byNic!, far: far! } : { pod: byNic!, near: byNode!, far: farByNode! }

        test(`${version}, ${shape}: pod and node reach one another, with their own addresses`, async () => {
          const { pod } = pods()
          assert.equal(await askAll(pod.station, pod[version], own), pod[version], 'pod to node')
          assert.equal(await askAll(nodeStations[0]!, own, pod[version]), own, 'node to pod')
        })

        test(`${version}, ${shape}: a pod reaches pods, other nodes, gateway and outside, and is reached`, async () => {
          const { pod, near, far } = pods()
          const from = pod[version]
          for (const to of [near[version], far[version], other, GATEWAY[version]])
            assert.equal(await askAll(pod.station, from, to), from, `to ${to}`)
          assert.equal(await askAll(pod.station, from, OUTSIDE[version]), isDefault ? own : from, 'to the outside')
          for (const [station, source] of [
            [outside!, OUTSIDE[version]],
            [gateway!, GATEWAY[version]],
            [nodeStations[1]!, other],
            [far.station, far[version]],
          ] as const)
            assert.equal(await askAll(station, source, from), source, `from ${source}`)
        })

        test(`${version}, ${shape}: a service is reached from a pod, wherever its backend is`, async () => {
          const { pod, near, far } = pods()
          for (const [what, backend, seen] of [
            ['a pod of this node', near[version], pod[version]],
            ['a pod of the other node', far[version], pod[version]],
            ['the pod itself', pod[version], own],
            ['the node', own, pod[version]],
            ['the other node', other, pod[version]],
            ['outside', OUTSIDE[version], pod[version]],
          ] as const) {
            setServices(first, [{ address, backend }])
            assert.equal(await askAll(pod.station, pod[version], address, 80), seen, what)
          }
        })

        test(`${version}, ${shape}: a NodePort is reached from outside and from the segment, with and without Local`, async () => {
          const { pod, far } = pods()
          for (const [backend, local] of [
            [pod[version], true],
            [pod[version], false],
            [far[version], false],
          ] as const) {
            setServices(first, [{ address, backend, nodePort: 30007, local }])
            for (const [station, client] of [
              [outside!, OUTSIDE[version]],
              [gateway!, GATEWAY[version]],
              [nodeStations[1]!, other],
              [far.station, far[version]],
            ] as const) {
              const seen = await askAll(station, client, own, 30007)
              assert.equal(seen, local ? client : own, `${client} to ${backend}, local ${local}`)
            }
          }
        })

        test(`${version}, ${shape}: a NodePort of its own node is reached from a pod`, async () => {
          const { pod, near, far } = pods()
          for (const backend of [pod, near, far].map(each => each[version])) {
            setServices(first, [{ address, backend, nodePort: 30007 }])
            const seen = backend === pod[version] ? own : pod[version]
            assert.equal(await askAll(pod.station, pod[version], own, 30007), seen, backend)
          }
        })
      }

      test(`${version}: a service is reached from the node`, async () => {
        for (const backend of [byNic![version], byNode![version], far![version], own]) {
          setServices(first, [{ address, backend }])
          assert.equal(await askAll(nodeStations[0]!, own, address, 80), own, backend)
        }
      })
    }

    test('ipMasq false: the outside sees the pod, which its default route leads by the node; services work', async () => {
      const pod = await addPod(first, { isDefaultGateway: true, ipMasq: false })
      for (const version of versions) {
        setServices(first, [{ address: VIP[version], backend: far![version] }])
        assert.equal(await askAll(pod.station, pod[version], VIP[version], 80), pod[version], 'service')
        assert.equal(await pod.station.ask(pod[version], OUTSIDE[version]), pod[version], 'outside, by UDP')
      }
      resultOf(await first.call('DEL', pod.it, { more: configOf({ prevResult: pod.prevResult }) }))
    })

    test('a pod cannot send by its node from an address that is not its own', async () => {
      const spoofed = { v4: '10.10.10.199', v6: 'fd00:10::bad' }
      const before = dropsOf(first)
      for (const version of versions) {
        byNode!.netns.ip(`addr add ${spoofed[version]}/${version === 'v4' ? 32 : '128 nodad'} dev lo`)
        for (const to of [NODES[0][version], OUTSIDE[version]])
          assert.equal(await byNode!.station.ask(spoofed[version], to), undefined, `${spoofed[version]} to ${to}`)
        assert.equal(await byNode!.station.ask(byNode![version], NODES[0][version]), byNode![version])
      }
      assert.ok(dropsOf(first) >= before + 4, 'counted in inet mooring')
    })

    test('the metadata service is out of reach by the node, unless the configuration allows it', async () => {
      const metadata = '169.254.169.254'
      lab.router.ip(`addr add ${metadata}/32 dev br0`)
      await gateway!.listen(metadata)
      assert.equal(await byNode!.station.ask(byNode!.v4, metadata), undefined)
      const allowed = await addPod(first, { isDefaultGateway: true, allowMetadata: true })
      assert.equal(await allowed.station.ask(allowed.v4, metadata), NODES[0].v4)
      resultOf(await first.call('DEL', allowed.it, { more: configOf({ prevResult: allowed.prevResult }) }))
    })

    test("other bits of a packet's mark stay, and no pod is told of a better way", async () => {
      const counted = `
      table inet marks {
        chain early { type filter hook prerouting priority -95; meta mark set meta mark or 0x40; }
        chain late {
          type filter hook prerouting priority -80
          ip saddr ${byNode!.v4} ip daddr ${OUTSIDE.v4} meta mark & 0x2040 == 0x2040 counter
        }
      }`
      first.run('sh', '-c', `nft -f - <<'END'\n${counted}\nEND`)
      setServices(first, [{ address: VIP.v4, backend: far!.v4 }])
      assert.equal(await byNode!.station.ask(byNode!.v4, OUTSIDE.v4), NODES[0].v4)
      for (const pod of [byNic!, byNode!]) assert.equal(await askAll(pod.station, pod.v4, VIP.v4, 80), pod.v4)
      assert.match(first.run('nft', 'list', 'chain', 'inet', 'marks', 'late'), /counter packets [1-9]/)
      first.run('nft', 'delete', 'table', 'inet', 'marks')
      for (const pod of [byNic!, byNode!]) {
        const [names, values] = pod.netns
          .run('grep', '^Icmp:', '/proc/net/snmp')
          .split('\n')
          .map(line => line.split(' '))
        assert.equal(values![names!.indexOf('InRedirects')], '0')
      }
    })

    test('rp_filter off and loose, and with marks: all the same (PTP-09)', async () => {
      const [own, client] = [NODES[0].v4, OUTSIDE.v4]
      for (const pod of [byNic!, byNode!])
        for (const [filter, mark] of [
          [0, 0],
          [2, 0],
          [1, 1],
        ])
          for (const backend of [pod.v4, far!.v4]) {
            const settings = [`rp_filter=${filter}`, `src_valid_mark=${mark}`]
            for (const netns of [first, pod.netns])
              netns.run('sysctl', '-qw', ...settings.map(each => `net.ipv4.conf.all.${each}`))
            setServices(first, [{ address: VIP.v4, backend, nodePort: 30007, local: backend === pod.v4 }])
            const when = `${settings.join(' ')}, backend ${backend}`
            assert.ok(await askAll(pod.station, pod.v4, VIP.v4, 80), when)
            const seen = backend === pod.v4 ? client : own
            assert.equal(await askAll(outside!, client, own, 30007), seen, when)
            assert.equal(await askAll(nodeStations[0]!, own, pod.v4), own, when)
            assert.equal(await askAll(outside!, client, pod.v4), client, when)
          }
    })
  })

/** Packets that the rules of ours dropped. */
function dropsOf(node: Netns): number {
  const chain = node.run('nft', 'list', 'chain', 'inet', 'mooring', 'veth_host_steer')
  return [...chain.matchAll(/counter packets (\d+)/g)].reduce((sum, match) => sum + Number(match[1]), 0)
}
