// SPDX-License-Identifier: Apache-2.0

// Goal: ipvlan does what the CNI specification and the reference's conformance list say, seen from outside, by the
// installed executables; and in mode l3, too, a container can be reached at any time. Needs root, and a kernel with ipvlan.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { childLab, dualStack, RELEASED, silent, skipWithout } from './child-link/lab.ts'
import { childChainTests, childTests, childTestsStandalone } from './child-link.ts'
import { errorOf, type Netns } from './nodelab.ts'

childTestsStandalone('ipvlan')
childTests('ipvlan')
childChainTests('ipvlan')

describe('ipvlan', { skip: skipWithout('ipvlan') }, () => {
  const lab = childLab('ipvlan', 'agent')
  const { newPod, add, del, call } = lab
  before(() => lab.start())
  after(() => lab.stop())
  const table = () => lab.node.run('nft', 'list', 'ruleset')
  const reaches = (from: Netns, to: string) => {
    try {
      from.run('ping', '-c1', '-W1', to)
      return true
    } catch {
      return false
    }
  }

  test('mode l2, l3, l3s; l2 without one: the link shares the MAC of its master and reaches the gateway (IPV-03, IPV-07, IPV-12)', async () => {
    for (const mode of ['l2', 'l3', 'l3s', undefined]) {
      const { pod, it } = newPod()
      const { interfaces } = await add(it, { mode })
      const [{ linkinfo, address }] = JSON.parse(pod.ip('-d -j link show eth0'))
      const [{ address: masters }] = JSON.parse(lab.node.ip('-j link show eth0'))
      assert.deepEqual([linkinfo.info_data.mode, interfaces[0].mac, address], [mode ?? 'l2', masters, masters])
      pod.run('ping', '-c1', '-W2', '10.10.10.1')
      assert.equal(reaches(pod, '10.10.10.8'), false, 'the node itself is out of reach by its own NIC')
      await del(it, { mode })
    }
  })

  test('flag: private keeps two links of a master apart, bridge does not', async () => {
    for (const [flag, expected] of [
      ['private', false],
      ['bridge', true],
    ] as const) {
      const [first, second] = [newPod(), newPod()]
      await add(first.it, { flag })
      const { ips } = await add(second.it, { flag })
      assert.equal(reaches(first.pod, ips[0].address.split('/')[0]), expected, flag)
      for (const { it } of [first, second]) await del(it, { flag })
    }
    assert.equal(errorOf(await call('ADD', newPod().it, { flag: 'x' })).msg, 'unknown ipvlan flag: "x"')
  })

  test('mode l3: the gateway reaches a container for 40 lifetimes of its neighbour entry (shortened from 30 s to 0.1 s), and after it forgot it', async () => {
    for (const family of ['ipv4', 'ipv6'])
      lab.router.run(
        'sysctl',
        '-qw',
        `net.${family}.neigh.br0.base_reachable_time_ms=100`,
        `net.${family}.neigh.br0.retrans_time_ms=100`,
        `net.${family}.neigh.br0.delay_first_probe_time=0`,
      )
    const more = { mode: 'l3', ipam: dualStack(lab.node) }
    const { pod, it } = newPod()
    const { ips } = await add(it, more)
    for (const { address } of ips) {
      const ip = address.split('/')[0]
      assert.match(lab.router.run('ping', '-c20', '-i0.2', '-W1', ip), / 0% packet loss/, ip)
      lab.router.ip('neigh flush dev br0')
      assert.match(lab.router.run('ping', '-c2', '-i0.2', '-W1', ip), / 0% packet loss/, ip)
      assert.match(
        pod.run('ping', '-c2', '-i0.2', '-W1', ip.includes(':') ? 'fd00:10::1' : '10.10.10.1'),
        / 0% packet loss/,
      )
    }
    await del(it, more)
    assert.doesNotMatch(table(), /elements/)
  })

  test('mode l3: who answers for a container is looked at by CHECK, put back with the next ADD, taken away by DEL', async () => {
    const { pod, it } = newPod()
    const prevResult = await add(it, { mode: 'l3' })
    const ip = prevResult.ips[0].address.split('/')[0]
    assert.match(
      table(),
      new RegExp(`"eth0" \\. ${ip.replaceAll('.', '\\.')} comment "mooring ipvlan podnet ${it.containerId} eth0"`),
    )
    lab.node.run('nft', 'delete', 'table', 'netdev', 'mooring')
    const error = errorOf(await call('CHECK', it, { mode: 'l3', prevResult }))
    assert.match(error.msg, /chain netdev mooring answer_eth0/)
    const second = newPod()
    await add(second.it, { mode: 'l3' })
    assert.deepEqual(silent(await call('CHECK', it, { mode: 'l3', prevResult })), RELEASED)
    await del(second.it, { mode: 'l3' })
    pod.remove()
    await del(it, { mode: 'l3' })
    assert.doesNotMatch(table(), /elements/)
  })

  test('mode l3: with proxyNeighbour false nothing is answered', async () => {
    const { it } = newPod()
    const more = { mode: 'l3', proxyNeighbour: false }
    await add(it, more)
    assert.doesNotMatch(table(), /elements/)
    await del(it, more)
  })

  test('a master has one mode: another is error 7 while a container has a link there (IPV-11)', async () => {
    const [first, second] = [newPod(), newPod()]
    const prevResult = await add(first.it)
    const error = errorOf(await call('ADD', second.it, { mode: 'l3' }))
    assert.equal(error.code, 7)
    assert.match(
      error.msg,
      /^Cannot attach eth0 in mode l3 bridge: eth0 has links in mode l2 bridge, container c\d+ of/,
    )
    assert.deepEqual(silent(await call('CHECK', first.it, { prevResult })), RELEASED)
    await del(first.it)
    await add(second.it, { mode: 'l3' })
    await del(second.it)
  })

  test('a master with a macvlan link is error 100 (IPV-11)', async () => {
    const { it } = newPod()
    lab.node.ip('link add under type veth peer name underp')
    lab.node.ip('link add link under name mv0 type macvlan')
    const error = errorOf(await call('ADD', it, { master: 'under' }))
    assert.deepEqual(
      [error.code, error.msg],
      [
        100,
        'Cannot add ipvlan link eth0 on master under: it has macvlan links, or another user that takes all its packets (EBUSY)',
      ],
    )
    lab.node.ip('link del under')
    assert.doesNotMatch(lab.node.state().join('\n'), /attachment|\/podnet\//)
  })

  test('chained: without "master" on the one link of the chain, with its addresses where there is no "ipam" (CHN-11, IPV-06)', async () => {
    const { pod, it } = newPod({ ifName: 'net1' })
    pod.ip('link add under0 type veth peer name under1')
    pod.ip('link set under0 up')
    pod.ip('link set under1 up')
    const prevResult = {
      cniVersion: '1.1.0',
      interfaces: [{ name: 'under0', sandbox: it.netns }],
      ips: [{ address: '10.50.0.5/24', interface: 0 }],
      routes: [{ dst: '10.51.0.0/16', gw: '10.50.0.1' }],
    }
    const chained = { ipam: undefined, prevResult }
    const outcome = await call('ADD', it, chained)
    const result = JSON.parse(outcome.stdout)
    assert.equal(outcome.code, 0, outcome.stdout)
    assert.deepEqual(result.ips, [{ address: '10.50.0.5/24', interface: 0 }])
    assert.deepEqual(
      result.interfaces.map(({ name }: { name: string }) => name),
      ['net1'],
    )
    assert.match(pod.ip('-o link'), /net1@under0/)
    assert.match(pod.ip('-o -4 addr show net1'), / 10\.50\.0\.5\/24 /)
    assert.deepEqual(silent(await call('CHECK', it, { ipam: undefined, prevResult: result })), RELEASED)
    await del(it, { ipam: undefined, prevResult: result })
    for (const [interfaces, ips] of [
      [[...prevResult.interfaces, { name: 'x' }], prevResult.ips],
      [[], []],
    ]) {
      const error = errorOf(await call('ADD', it, { ipam: undefined, prevResult: { ...prevResult, interfaces, ips } }))
      assert.match(error.msg, /chained master failure. PrevResult lacks a single named interface/)
    }
    const none = errorOf(await call('ADD', it, { ipam: {} }))
    assert.equal(none.msg, 'IPAM plugin returned missing IP config')
  })

  test('nothing is left of all this but the table, empty', () => {
    assert.doesNotMatch(lab.node.state().join('\n'), /attachment|reservation|ipvlan|elements|\/podnet\//)
  })
})
