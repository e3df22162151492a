// SPDX-License-Identifier: Apache-2.0

// Goal: packets of pods on a bridge go where upstream's plugin of that name lets them go, and no further. Through an agent.
// Needs root.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { bridgeLab, hostLocal, pings, RELEASED, silent, v4, v6 } from './bridge-lab.ts'
import { errorOf, resultOf, skip } from './nodelab.ts'

/** See host/station.ts. */
const STATION_PORT = 7

describe('bridge, agent, packets', { skip }, () => {
  const at = bridgeLab()
  const { newPod, assertNothingLeft, checkOf } = at

  test('ADD: ipMasq hides pods from the outside, not from their own network (PTP-06)', async () => {
    const ipam = hostLocal(at.node, v4, v6)
    const [one, two] = [newPod({ ipMasq: true, ipMasqBackend: 'iptables', ipam }), newPod({ ipam })]
    const [first, second] = [resultOf(await at.node.call('ADD', one.it)), resultOf(await at.node.call('ADD', two.it))]
    const addressOf = (result: { ips: { address: string }[] }, index: number) =>
      result.ips[index]!.address.split('/')[0]!
    const [outside, neighbour, from, gateway] = [
      at.lab.outside.station(),
      two.pod.station(),
      one.pod.station(),
      at.node.station(),
    ]
    for (const address of ['192.0.2.2', '2001:db8:ff::2']) await outside.listen(address)
    for (const index of [0, 1]) await neighbour.listen(addressOf(second, index))
    await gateway.listen('10.1.0.1')
    assert.equal(await from.ask(addressOf(first, 0), '192.0.2.2'), '10.10.10.8')
    assert.equal(await from.ask(addressOf(first, 1), '2001:db8:ff::2'), 'fd00:10::8')
    for (const index of [0, 1])
      assert.equal(await from.ask(addressOf(first, index), addressOf(second, index)), addressOf(first, index))
    assert.equal(await from.ask(addressOf(first, 0), '10.1.0.1'), addressOf(first, 0))
    const rules = at.node.run('nft', 'list', 'ruleset')
    assert.match(
      rules,
      new RegExp(`"cni0" \\. ${addressOf(first, 0)} \\. 10\\.1\\.0\\.0 comment "mooring bridge brnet`),
    )
    assert.ok(!rules.includes(addressOf(second, 0)))
    assert.deepEqual(silent(await checkOf(one.it, first)), RELEASED)
    one.pod.remove()
    for (const { it } of [one, two]) assert.deepEqual(silent(await at.node.call('DEL', it)), RELEASED)
    assertNothingLeft('although the namespace went first')
  })

  test('our portmap leads a port of the node to a pod on a bridge, from outside, from the node and from the pod itself', async () => {
    const { pod, it } = newPod({ ipMasq: true, hairpinMode: true })
    const prevResult = resultOf(await at.node.call('ADD', it))
    const portMappings = [{ hostPort: STATION_PORT, containerPort: STATION_PORT, protocol: 'udp' }]
    const chained = {
      ...{ ...it, type: 'portmap' },
      config: { cniVersion: '1.1.0', name: 'brnet', type: 'portmap', runtimeConfig: { portMappings }, prevResult },
    }
    resultOf(await at.node.call('ADD', chained))
    const address = prevResult.ips[0].address.split('/')[0]
    const [inside, outside, onNode] = [pod.station(), at.lab.outside.station(), at.node.station()]
    await inside.listen(address)
    assert.equal(await outside.ask('192.0.2.2', '10.10.10.8'), '192.0.2.2')
    assert.notEqual(await onNode.ask('10.10.10.8', '10.10.10.8'), undefined)
    assert.notEqual(await inside.ask(address, '10.10.10.8'), undefined)
    for (const each of [chained, it]) assert.deepEqual(silent(await at.node.call('DEL', each)), RELEASED)
    assert.doesNotMatch(at.node.run('nft', 'list', 'ruleset'), new RegExp(`${address}\\b`))
    const { it: next } = newPod()
    resultOf(await at.node.call('ADD', next))
    await at.node.call('DEL', next)
    at.keep() // with portmap's chains
  })

  test('ADD: with macspoofchk frames from another MAC are dropped (BR-08)', async () => {
    const { pod, it } = newPod({ macspoofchk: true })
    const result = resultOf(await at.node.call('ADD', it))
    assert.ok(pings(pod, '10.1.0.1'))
    pod.ip('link set eth0 address 02:00:00:00:00:99')
    pod.ip('route replace default via 10.1.0.1')
    assert.ok(!pings(pod, '10.1.0.1'), 'a foreign MAC')
    assert.match(at.node.run('nft', 'list', 'table', 'bridge', 'mooring'), /counter packets [1-9]\d* .*drop/)
    assert.match(errorOf(await checkOf(it, result)).msg, /link eth0 in the pod has MAC 02:00:00:00:00:99, not/)
    pod.ip(`link set eth0 address ${result.interfaces[2].mac}`)
    assert.ok(pings(pod, '10.1.0.1'))
    await at.node.call('DEL', it)
    assertNothingLeft()
  })

  test('ADD: isolated pods reach the gateway, not each other', async () => {
    const pods = [newPod({ portIsolation: true }), newPod({ portIsolation: true })]
    const results = []
    for (const { it } of pods) results.push(resultOf(await at.node.call('ADD', it)))
    const address = results[1].ips[0].address.split('/')[0]
    assert.ok(pings(pods[0]!.pod, '10.1.0.1'))
    assert.ok(!pings(pods[0]!.pod, address))
    for (const { it } of pods) await at.node.call('DEL', it)
    assertNothingLeft()
  })

  test('ADD: neighbours that knew the last owner of an address learn the new one at once (COM-12)', async () => {
    const peer = newPod()
    resultOf(await at.node.call('ADD', peer.it))
    const ipam = hostLocal(at.node, [{ subnet: '10.1.0.0/16', rangeStart: '10.1.9.9', rangeEnd: '10.1.9.9' }])
    for (const mac of ['02:00:00:00:00:11', '02:00:00:00:00:22']) {
      const { it } = newPod({ mac, ipam, name: 'again' })
      resultOf(await at.node.call('ADD', it))
      assert.ok(pings(peer.pod, '10.1.9.9'), `a neighbour, ${mac}`)
      assert.ok(pings(at.node, '10.1.9.9'), `the at.node, ${mac}`)
      await at.node.call('DEL', it)
    }
    await at.node.call('DEL', peer.it)
    assertNothingLeft()
  })
})
