// SPDX-License-Identifier: Apache-2.0

// Goal: bridge keeps pods of different VLANs apart, and joins those of one. Needs root, and a kernel that filters VLANs on
// bridges (CONFIG_BRIDGE_VLAN_FILTERING): elsewhere it runs below lab/vmlab.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { kernelKnowsVlans, pings, RELEASED, silent } from './bridge-lab.ts'
import { errorOf, makeLab, makeNetns, type Netns, type Node, type RunningAgent, resultOf, skip } from './nodelab.ts'

const unable = skip || (kernelKnowsVlans() ? false : 'this kernel does not filter VLANs on bridges: see lab/vmlab')

describe('bridge, VLANs', { skip: unable }, () => {
  let node: Node
  let agent: RunningAgent
  let containers = 0
  before(async () => {
    node = makeLab({ mode: 'agent' }).nodes[0]!
    agent = await node.startAgent()
  })
  after(() => agent?.[Symbol.asyncDispose]())

  const hostLocal = (subnet: string) => ({ type: 'host-local', dataDir: node.leases, ranges: [[{ subnet }]] })
  const newPod = (more: object) => {
    const pod = makeNetns('pod')
    const ipam = hostLocal('10.1.0.0/16')
    const config = { cniVersion: '1.1.0', name: 'brnet', type: 'bridge', bridge: 'br-vlan', ipam, ...more }
    return { pod, it: { containerId: `c${containers++}`, netns: pod.path, type: 'bridge', config } }
  }
  /** `100 PVID Egress Untagged, 10-12`: what `bridge vlan` shows of a port. */
  const vlansOf = (link: string): string => {
    const [port] = JSON.parse(node.run('bridge', '-j', 'vlan', 'show', 'dev', link))
    return port.vlans
      .map(({ vlan, vlanEnd, flags = [] }: { vlan: number; vlanEnd?: number; flags?: string[] }) =>
        [vlanEnd === undefined ? vlan : `${vlan}-${vlanEnd}`, ...flags].join(' '),
      )
      .join(', ')
  }

  test('ADD: vlan is untagged on the port, the trunk tagged, the default VLAN left (BR-03)', async () => {
    for (const [more, wanted] of [
      [{ vlan: 100 }, '100 PVID Egress Untagged'],
      [{ vlan: 100, preserveDefaultVlan: true }, '1 Egress Untagged, 100 PVID Egress Untagged'],
      [{ vlanTrunk: [{ minID: 10, maxID: 12 }, { id: 20 }] }, '1 PVID Egress Untagged, 10, 11, 12, 20'],
      [{ vlan: 11, vlanTrunk: [{ minID: 10, maxID: 12 }] }, '10, 11 PVID Egress Untagged, 12'],
      [{ vlan: 1 }, '1 PVID Egress Untagged'],
    ] as const) {
      const { it } = newPod(more)
      const result = resultOf(await node.call('ADD', it))
      const host = result.interfaces[1].name
      assert.equal(vlansOf(host), wanted, JSON.stringify(more))
      assert.deepEqual(silent(await node.call('CHECK', it, { more: { prevResult: result } })), RELEASED)
      const [first] = wanted.split(/[ ,]/)
      node.run('bridge', 'vlan', 'del', 'dev', host, 'vid', first!)
      if (!('preserveDefaultVlan' in more))
        assert.match(
          errorOf(await node.call('CHECK', it, { more: { prevResult: result } })).msg,
          new RegExp(`bridge port ${host} is not in VLANs? `),
        )
      await node.call('DEL', it)
    }
  })

  test('ADD: pods of one VLAN reach each other and their gateway, those of another do not', async () => {
    const pods = [100, 100, 200].map(vlan =>
      newPod({ vlan, name: `vlan${vlan}`, isDefaultGateway: true, ipam: hostLocal(`10.${vlan}.0.0/16`) }),
    )
    // biome-ignore lint/suspicious/noExplicitAny: as resultOf has it
    const results: any[] = []
    for (const { it } of pods) results.push(resultOf(await node.call('ADD', it)))
    const [one, two, three] = pods.map(({ pod }) => pod) as [Netns, Netns, Netns]
    const addressOf = (index: number) => results[index].ips[0].address.split('/')[0]
    assert.deepEqual(results[0].interfaces.map(({ name }: { name: string }) => name).slice(2), ['eth0', 'br-vlan.100'])
    assert.equal(results[0].ips[0].interface, 2)
    assert.ok(pings(one, addressOf(1)) && pings(one, '10.100.0.1') && pings(three, '10.200.0.1'))
    one.ip(`addr add 10.200.77.77/16 dev eth0`)
    assert.ok(!pings(one, addressOf(2), '-I', '10.200.77.77') && pings(two, addressOf(0)))
    assert.match(node.ip('-o -4 addr show br-vlan.100'), / 10\.100\.0\.1\/16 /)
    for (const [index, { it }] of pods.entries()) {
      assert.deepEqual(silent(await node.call('CHECK', it, { more: { prevResult: results[index] } })), RELEASED)
      assert.deepEqual(silent(await node.call('DEL', it)), RELEASED)
    }
  })

  test('CHECK: finds a port in a VLAN more, and whatever differs of the gateway of a VLAN', async () => {
    const { it } = newPod({ vlan: 400, name: 'vlan400', isDefaultGateway: true, ipam: hostLocal('10.40.0.0/16') })
    const prevResult = resultOf(await node.call('ADD', it))
    const host = prevResult.interfaces[1].name
    const gateway = 'br-vlan.400'
    const [{ link: port, address }] = JSON.parse(node.ip(`-j link show ${gateway}`))
    const vlan = (action: string, link: string, vid: string) => `bridge vlan ${action} dev ${link} vid ${vid}`
    const join = `ip link set ${port} master br-vlan; ${vlan('add', port, '400 pvid untagged')}; ${vlan('del', port, '1')}`
    const damages = [
      [vlan('add', host, '1'), vlan('del', host, '1'), `bridge port ${host} is in VLAN 1 as well`],
      [vlan('add', host, '401'), vlan('del', host, '401'), `bridge port ${host} is in VLAN 401 as well`],
      [
        `ip addr del 10.40.0.1/16 dev ${gateway}`,
        `ip addr add 10.40.0.1/16 brd + dev ${gateway}`,
        `address 10.40.0.1/16 is missing on ${gateway}`,
      ],
      [`ip link set ${gateway} down`, `ip link set ${gateway} up`, `link ${gateway} on the node is down`],
      [
        `ip link set ${gateway} address 02:00:00:00:00:95`,
        `ip link set ${gateway} address ${address}`,
        `link ${gateway} on the node has MAC 02:00:00:00:00:95, not ${address}`,
      ],
      [`ip link set ${port} down`, `ip link set ${port} up`, `link ${port} on the node is down`],
      [`ip link set ${port} nomaster`, join, `link ${port} is no port of br-vlan`],
      [
        vlan('del', port, '400'),
        vlan('add', port, '400 pvid untagged'),
        `bridge port ${port} is not in VLAN 400 untagged`,
      ],
      [vlan('add', port, '401'), vlan('del', port, '401'), `bridge port ${port} is in VLAN 401 as well`],
      [
        `bridge link set dev ${port} state 0`,
        `bridge link set dev ${port} state 3`,
        `bridge port ${port} does not forward`,
      ],
      [
        `ip link set ${port} alias other`,
        `ip link set ${port} alias 'mooring gateway of br-vlan, VLAN 400'`,
        `link ${port} on the node is not of this attachment: its alias is "other"`,
      ],
    ] as const
    for (const [damage, repair, fault] of damages) {
      node.run('sh', '-c', damage)
      const { code, msg, details = '' } = errorOf(await node.call('CHECK', it, { more: { prevResult } }))
      assert.equal(code, 103)
      assert.ok(`${msg}; ${details}`.includes(fault), `${damage}: ${msg}; ${details}`)
      node.run('sh', '-c', repair)
      assert.deepEqual(silent(await node.call('CHECK', it, { more: { prevResult } })), RELEASED, repair)
    }
    node.ip(`link del ${port}`)
    assert.match(
      errorOf(await node.call('CHECK', it, { more: { prevResult } })).msg,
      new RegExp(`link ${gateway} on the node is missing`),
    )
    await node.call('DEL', it)
  })

  test('ADD: ipMasq knows packets that come in by the gateway of a VLAN', async () => {
    const { pod, it } = newPod({
      vlan: 300,
      isDefaultGateway: true,
      ipMasq: true,
      name: 'masq',
      ipam: hostLocal('10.30.0.0/24'),
    })
    resultOf(await node.call('ADD', it))
    assert.match(node.run('nft', 'list', 'set', 'inet', 'mooring', 'masquerade_v4'), /"br-vlan\.300" \. 10\.30\.0\.2/)
    assert.ok(pings(pod, '10.10.10.1'), 'the router knows no way back to 10.30.0.0/24')
    await node.call('DEL', it)
  })
})
