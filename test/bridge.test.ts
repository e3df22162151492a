// SPDX-License-Identifier: Apache-2.0

// Goal: ADD and DEL of bridge do what upstream's plugin of that name does, and are right where that one is wrong, seen from
// outside by the installed executables, through an agent. Needs root.

import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { describe, test } from 'node:test'
import { bridgeConfig, bridgeLab, hostLocal, pings, RELEASED, silent, stateOf, v4, v6 } from './bridge-lab.ts'
import { delTests } from './dels.ts'
import { assertSameState, errorOf, resultOf, skip } from './nodelab.ts'

describe('bridge, agent, ADD and DEL', { skip }, () => {
  const at = bridgeLab()
  const { newPod, assertNothingLeft, checkOf, shown, spareBridge, removeSpares, withFakeIpam } = at

  test('ADD: bridge, port and pod are as upstream makes them (BR-01, BR-04, BR-05, COM-01, COM-03, RES-15)', async () => {
    const { pod, it } = newPod()
    const result = resultOf(await at.node.call('ADD', it))
    const [bridge, host, inside] = result.interfaces
    assert.deepEqual([bridge.name, inside.name, inside.sandbox], ['cni0', 'eth0', it.netns])
    assert.match(host.name, /^veth[0-9a-f]{8}$/)
    assert.ok(!('sandbox' in bridge) && !('sandbox' in host))
    const { address, gateway } = result.ips[0]
    assert.match(address, /^10\.1\.\d+\.\d+\/16$/)
    assert.deepEqual([gateway, result.ips[0].interface, result.ips.length], ['10.1.0.1', 2, 1])
    assert.deepEqual(result.routes, [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }])
    for (const [netns, { name, mac, mtu }] of [
      [at.node, bridge],
      [at.node, host],
      [pod, inside],
    ] as const) {
      const link = shown(netns, name)
      assert.deepEqual([link.address, link.mtu, link.operstate], [mac, mtu, 'UP'])
    }
    const port = shown(at.node, host.name)
    assert.deepEqual([port.master, port.linkinfo.info_slave_data.state], ['cni0', 'forwarding'])
    assert.match(
      pod.ip('-o -4 addr show eth0'),
      new RegExp(` inet ${address} brd 10\\.1\\.255\\.255 scope global eth0`),
    )
    assert.equal(
      pod.ip('route').replaceAll(' \n', '\n'),
      `default via 10.1.0.1 dev eth0\n10.1.0.0/16 dev eth0 proto kernel scope link src ${address.split('/')[0]}\n`,
    )
    assert.match(at.node.ip('-o -4 addr show cni0'), / inet 10\.1\.0\.1\/16 brd 10\.1\.255\.255 scope global cni0/)
    assert.ok(pings(pod, '10.1.0.1'))
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    assert.deepEqual(silent(await at.node.call('DEL', it)), RELEASED)
    assertNothingLeft()
  })

  test('ADD: answers in the version that it was asked in, all seven (RES-01, RES-02, RES-03)', async () => {
    for (const cniVersion of ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
      const { it } = newPod({ cniVersion })
      const result = resultOf(await at.node.call('ADD', it))
      assert.equal(result.cniVersion, cniVersion)
      if (cniVersion < '0.3') assert.deepEqual(result.ip4.routes, [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }])
      else assert.deepEqual([result.interfaces.length, result.ips[0].interface], [3, 2])
      assert.deepEqual(silent(await at.node.call('DEL', it)), RELEASED)
    }
    assertNothingLeft()
  })

  test('ADD: without isGateway the bridge has no address, and without routes the pod no default (COM-07)', async () => {
    const { pod, it } = newPod({ isDefaultGateway: false, bridge: spareBridge('br-plain') })
    const result = resultOf(await at.node.call('ADD', it))
    assert.equal(at.node.ip('-4 addr show br-plain'), '')
    assert.equal(pod.ip('route show default'), '')
    assert.equal(result.ips[0].gateway, '10.1.0.1') // what host-local says
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    await at.node.call('DEL', it)
    assert.match(at.node.ip('-o link show br-plain'), /br-plain/, 'the bridge stays')
    removeSpares()
    assertNothingLeft()
  })

  test('ADD: hairpin mode, isolation and MTU are on the port, promiscuous mode on the bridge (BR-02)', async () => {
    const bridge = spareBridge('br-opt')
    const { pod, it } = newPod({ isDefaultGateway: false, bridge, hairpinMode: true, portIsolation: true, mtu: 1400 })
    const result = resultOf(await at.node.call('ADD', it))
    const port = shown(at.node, result.interfaces[1].name).linkinfo.info_slave_data
    assert.deepEqual([port.hairpin, port.isolated], [true, true])
    assert.deepEqual([shown(pod, 'eth0').mtu, shown(at.node, bridge).mtu], [1400, 1400])
    const { it: other } = newPod({ isDefaultGateway: false, bridge, promiscMode: true })
    const plain = resultOf(await at.node.call('ADD', other))
    assert.ok(shown(at.node, bridge).flags.includes('PROMISC'))
    assert.deepEqual(
      [plain.interfaces[2].mtu, plain.interfaces[0].mtu],
      [1400, 1400],
      "the bridge's MTU is the default",
    )
    for (const each of [it, other]) await at.node.call('DEL', each)
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
      const result = resultOf(await at.node.call('ADD', it, { env: given }))
      assert.deepEqual([result.interfaces[2].mac, shown(pod, 'eth0').address], [wanted, wanted])
      assert.deepEqual(silent(await at.node.call('DEL', it, { env: given })), RELEASED)
    }
    for (const mac of ['no mac', '03:00:00:00:00:01'])
      assert.equal(errorOf(await at.node.call('ADD', newPod({ mac }).it)).code, 7)
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
      const error = errorOf(await at.node.call('ADD', newPod({ bridge: 'br-never', ...more }).it))
      assert.deepEqual([error.code, error.msg, error.cniVersion], [7, message, '1.1.0'])
    }
    assertNothingLeft()
  })

  test('ADD: what has the name of the bridge and is none stays as it is (BR-01)', async () => {
    at.node.ip(`link add ${spareBridge('br-none')} type veth peer name br-peer`)
    const was = at.node.ip('-o link show br-none')
    const { it } = newPod({ bridge: 'br-none' })
    const error = errorOf(await at.node.call('ADD', it))
    assert.deepEqual([error.code, error.msg], [7, '"br-none" already exists but is not a bridge'])
    const status = errorOf(await at.node.call('STATUS', it))
    assert.deepEqual([status.code, status.msg], [50, '"br-none" already exists but is not a bridge'])
    assert.deepEqual(silent(await at.node.call('DEL', it)), RELEASED)
    assert.equal(at.node.ip('-o link show br-none'), was)
    removeSpares()
    assertNothingLeft()
  })

  test("ADD: an operator's bridge is taken as it is, brought up, and keeps its other settings (COM-15)", async () => {
    at.node.ip(`link add ${spareBridge('br-theirs')} mtu 1442 type bridge ageing_time 12300`)
    const settings = () => at.node.run('cat', '/proc/sys/net/ipv6/conf/br-theirs/accept_ra')
    const was = settings()
    const { it } = newPod({ bridge: 'br-theirs', isDefaultGateway: false })
    const result = resultOf(await at.node.call('ADD', it))
    assert.deepEqual(
      result.interfaces.map(({ mtu }: { mtu: number }) => mtu),
      [1442, 1442, 1442],
    )
    assert.equal(shown(at.node, 'br-theirs').linkinfo.info_data.ageing_time, 12300)
    assert.equal(settings(), was)
    await at.node.call('DEL', it)
    removeSpares()
    assertNothingLeft()
  })

  test('ADD: an alternative name of a bridge is as good as its own, also for what is kept by the name', async () => {
    const bridge = spareBridge('br-own')
    at.node.ip(`link add ${bridge} type bridge`)
    at.node.ip(`link property add dev ${bridge} altname br-other`)
    const { pod, it } = newPod({
      bridge: 'br-other',
      ipMasq: true,
      ipam: hostLocal(at.node, [{ subnet: '10.8.0.0/16' }]),
    })
    const result = resultOf(await at.node.call('ADD', it))
    assert.equal(result.interfaces[0].name, bridge)
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    assert.ok(pings(pod, '192.0.2.2'), 'the outside answers the address of the node')
    resultOf(await at.node.call('DEL', it))
    removeSpares()
    assertNothingLeft()
  })

  test('ADD: the bridge keeps its MAC while ports come and go', async () => {
    const mac = () => shown(at.node, 'cni0').address
    const was = mac()
    const { it } = newPod({ mac: '02:00:00:00:00:01' })
    assert.equal(resultOf(await at.node.call('ADD', it)).interfaces[0].mac, was)
    assert.equal(mac(), was)
    await at.node.call('DEL', it)
    assert.equal(mac(), was)
  })

  test("ADD: an operator's bridge keeps the MAC that it has of its NIC, and the result says what it is (RES-16)", async () => {
    const bridge = spareBridge('br-nic')
    at.node.ip(`link add ${bridge} type bridge`)
    at.node.ip('link add nic0 address 52:54:00:00:00:01 type veth peer name nic1')
    for (const master of [undefined, bridge]) {
      if (master !== undefined) at.node.ip(`link set nic0 master ${bridge}`)
      const { it } = newPod({ bridge, isDefaultGateway: false })
      const result = resultOf(await at.node.call('ADD', it))
      assert.equal(result.interfaces[0].mac, shown(at.node, bridge).address)
      if (master !== undefined) assert.equal(result.interfaces[0].mac, '52:54:00:00:00:01')
      await at.node.call('DEL', it)
    }
    at.node.ip('link del nic0')
    removeSpares()
    assertNothingLeft()
  })

  test('ADD: dual stack with a gateway of each family works at once, without waiting (COM-08, COM-13)', async () => {
    const ipam = hostLocal(at.node, v4, v6)
    const { pod, it } = newPod({ ipam })
    pod.run('sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.default.disable_ipv6=1')
    const result = resultOf(await at.node.call('ADD', it))
    assert.ok(pings(pod, 'fd00:1::1') && pings(pod, '10.1.0.1'))
    assert.deepEqual(result.routes, [
      { dst: '0.0.0.0/0', gw: '10.1.0.1' },
      { dst: '::/0', gw: 'fd00:1::1' },
    ])
    assert.match(pod.ip('-6 route show default'), /^default via fd00:1::1 dev eth0/)
    assert.equal(at.node.run('cat', '/proc/sys/net/ipv6/conf/cni0/accept_ra').trim(), '0')
    assert.ok(pings(pod, '10.10.10.8') && pings(pod, 'fd00:10::8'), 'the node forwards')
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    await at.node.call('DEL', it)
    assertNothingLeft()
  })

  test('ADD: a port adds no address and no route to those that the kernel walks through for the next', async () => {
    const { it } = newPod({ ipam: hostLocal(at.node, v4, v6) })
    const { name } = resultOf(await at.node.call('ADD', it)).interfaces[1]
    assert.equal(at.node.ip(`address show dev ${name}`).match(/inet6?/g), null)
    for (const family of ['-4', '-6'])
      assert.equal(at.node.ip(`${family} route show table all dev ${name}`), '', `IP${family}`)
    await at.node.call('DEL', it)
    assertNothingLeft()
  })

  test('ADD: several ranges of a family give the bridge a gateway each', async () => {
    const bridge = spareBridge('br-many')
    const ipam = hostLocal(at.node, [{ subnet: '10.2.0.0/24' }], [{ subnet: '10.3.0.0/24' }])
    const { it } = newPod({ bridge, ipam, name: 'many' })
    const result = resultOf(await at.node.call('ADD', it))
    assert.deepEqual(
      result.ips.map(({ gateway }: { gateway: string }) => gateway),
      ['10.2.0.1', '10.3.0.1'],
    )
    const addresses = at.node.ip(`-o -4 addr show ${bridge}`)
    assert.ok(addresses.includes(' 10.2.0.1/24 ') && addresses.includes(' 10.3.0.1/24 '), addresses)
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    await at.node.call('DEL', it)
    removeSpares()
    assertNothingLeft()
  })

  test('ADD: an address that is in the way is error 7, unless forceAddress lets it go', async () => {
    const bridge = spareBridge('br-force')
    at.node.ip(`link add ${bridge} type bridge`)
    at.node.ip(`addr add 10.9.9.9/24 dev ${bridge}`)
    at.node.ip(`addr add fd00:9::9/64 dev ${bridge} nodad`)
    const { it } = newPod({ bridge, ipam: hostLocal(at.node, v4, v6) })
    const error = errorOf(await at.node.call('ADD', it))
    assert.deepEqual(
      [error.code, error.msg],
      [7, 'failed to set bridge addr: "br-force" already has an IP address different from 10.1.0.1/16'],
    )
    assert.match(at.node.ip(`-o -4 addr show ${bridge}`), / 10\.9\.9\.9\/24 /)
    assert.ok(!at.node.state().some(line => line.startsWith(at.node.leases)), 'the address went back')
    const forced = { ...it, config: { ...it.config, forceAddress: true } }
    resultOf(await at.node.call('ADD', forced))
    const addresses = at.node.ip(`-o addr show ${bridge}`)
    assert.ok(!addresses.includes('10.9.9.9') && addresses.includes(' 10.1.0.1/16 '), addresses)
    assert.ok(addresses.includes(' fd00:9::9/64 ') && addresses.includes(' fd00:1::1/64 '), 'no overlap, no obstacle')
    await at.node.call('DEL', forced)
    removeSpares()
    assertNothingLeft()
  })

  test('ADD: a default route of the IPAM is enough, with isDefaultGateway too', async () => {
    const ipam = { ...hostLocal(at.node, v4), routes: [{ dst: '0.0.0.0/0' }, { dst: '10.200.0.0/16', gw: '10.1.0.9' }] }
    const { pod, it } = newPod({ ipam })
    const result = resultOf(await at.node.call('ADD', it))
    assert.deepEqual(result.routes, [
      { dst: '0.0.0.0/0', gw: '10.1.0.1' },
      { dst: '10.200.0.0/16', gw: '10.1.0.9' },
    ])
    assert.match(pod.ip('route show 10.200.0.0/16'), /via 10\.1\.0\.9 dev eth0/)
    await at.node.call('DEL', it)
    assertNothingLeft()
  })

  test("ADD: the gateway's address for a pod is error 7, and goes back to the IPAM", async () => {
    const { it, env, calls } = withFakeIpam({ ips: [{ address: '10.1.0.1/16' }] })
    const error = errorOf(await at.node.call('ADD', it, { env }))
    assert.deepEqual([error.code, error.msg], [7, "Cannot attach: the IPAM gave 10.1.0.1, which is the gateway's"])
    assert.deepEqual(calls(), ['ADD', 'DEL'])
    assertNothingLeft()
  })

  test('ADD: layer 2 without IPAM is up and has no address; disableContainerInterface leaves it down', async () => {
    const { pod, it } = newPod({ ipam: {}, isDefaultGateway: false })
    const result = resultOf(await at.node.call('ADD', it))
    assert.deepEqual(['ips' in result, 'routes' in result], [false, false])
    assert.equal(shown(pod, 'eth0').operstate, 'UP')
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    await at.node.call('DEL', it)
    const { pod: left, it: its } = newPod({ ipam: {}, isDefaultGateway: false, disableContainerInterface: true })
    const other = resultOf(await at.node.call('ADD', its))
    assert.equal(shown(left, 'eth0').operstate, 'DOWN')
    assert.equal(shown(at.node, other.interfaces[1].name).master, 'cni0')
    assert.deepEqual(silent(await checkOf(its, other)), RELEASED)
    await at.node.call('DEL', its)
    const { it: old } = newPod({ ipam: {}, cniVersion: '0.2.0' })
    assert.match(errorOf(await at.node.call('ADD', old)).msg, /cannot convert: no valid IP addresses/)
    assertNothingLeft()
  })

  test('ADD: with enabledad a duplicate IPv6 address is error 102, another works (COM-09, COM-11)', async () => {
    const ipam = hostLocal(at.node, [{ subnet: 'fd00:1::/64', rangeStart: 'fd00:1::77', rangeEnd: 'fd00:1::77' }])
    const other = { type: 'host-local', dataDir: `${at.node.leases}-other`, ranges: ipam.ranges }
    const { pod, it } = newPod({ enabledad: true, ipam })
    resultOf(await at.node.call('ADD', it))
    assert.doesNotMatch(pod.ip('-6 addr show eth0'), /tentative|dadfailed/)
    const { it: second } = newPod({ enabledad: true, ipam: other, name: 'other' })
    const error = errorOf(await at.node.call('ADD', second))
    assert.deepEqual(
      [error.code, error.msg],
      [102, 'Cannot attach eth0: somebody else on the segment has fd00:1::77/64'],
    )
    await at.node.call('DEL', it)
    rmSync(`${at.node.leases}-other`, { recursive: true })
    assertNothingLeft()
  })

  test('ADD: an interface of that name stays, and the address goes back (COM-02)', async () => {
    const { pod, it } = newPod()
    pod.ip('link add eth0 type bridge')
    const was = pod.ip('-o link')
    const error = errorOf(await at.node.call('ADD', it))
    assert.deepEqual([error.code, error.msg], [104, 'Cannot attach eth0: the container has an interface of that name'])
    assert.equal(pod.ip('-o link'), was)
    assertNothingLeft()
  })

  test('ADD: twice is an error, and the first attachment stays as it is (COM-18)', async () => {
    const { pod, it } = newPod({ ipMasq: true, macspoofchk: true })
    const result = resultOf(await at.node.call('ADD', it))
    const was = stateOf(at.node, pod)
    assert.equal(errorOf(await at.node.call('ADD', it)).code, 104)
    assertSameState(stateOf(at.node, pod), was)
    assert.deepEqual(silent(await checkOf(it, result)), RELEASED)
    await at.node.call('DEL', it)
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
      errorOf(await at.node.call('ADD', it, { env }))
      assert.doesNotMatch(pod.ip('-o link'), /eth0/)
      assert.deepEqual(calls(), ['ADD', 'DEL'], JSON.stringify(answer))
      assertNothingLeft(JSON.stringify(answer))
    }
    const { it, env } = withFakeIpam(undefined)
    const error = errorOf(await at.node.call('ADD', it, { env }))
    assert.deepEqual([error.code, error.msg, error.details], [11, 'no', 'later'])
    assertNothingLeft()
  })

  // DEL

  delTests({
    test,
    newPod: () => newPod({ ipMasq: true, macspoofchk: true }),
    add: async it => resultOf(await at.node.call('ADD', it)),
    del: (it, more) => at.node.call('DEL', it, { more }),
    assertNothingLeft: () => assertNothingLeft(),
    invalid: { vlan: 9999, bridge: 5, hairpinMode: 'x' },
    forget: at.forgetEverything,
  })

  test('DEL: of one interface leaves the other (DEL-11)', async () => {
    const { pod, it } = newPod()
    resultOf(await at.node.call('ADD', it))
    const net1 = { ...it, ifName: 'net1', config: bridgeConfig(at.node, { isDefaultGateway: false }) }
    resultOf(await at.node.call('ADD', net1))
    assert.deepEqual(silent(await at.node.call('DEL', net1)), RELEASED)
    assert.ok(pings(pod, '10.1.0.1'))
    assert.deepEqual(silent(await at.node.call('DEL', it)), RELEASED)
    assertNothingLeft()
  })

  test('DEL: works when the bridge was taken away', async () => {
    const bridge = spareBridge('br-gone')
    const { it } = newPod({ bridge, ipMasq: true, macspoofchk: true })
    resultOf(await at.node.call('ADD', it))
    removeSpares()
    assert.deepEqual(silent(await at.node.call('DEL', it)), RELEASED)
    assertNothingLeft()
  })
})
