// SPDX-License-Identifier: Apache-2.0

// Goal: packets of pods of ptp pass, and by whose address, seen from outside as in ptp.test.ts. Needs root.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { pings } from './bridge-lab.ts'
import { eventually, skip } from './nodelab.ts'
import { DONE, ptpLab, silent } from './ptp-lab.ts'

describe('ptp, packets', { skip }, () => {
  const at = ptpLab('agent')
  const { config, newPod, assertNothingLeft, add, del } = at

  test('packets: behind the node with ipMasq, towards the outside alone; as they are without (PTP-06, PTP-09)', async () => {
    const [outside, gateway] = [at.lab.outside.station(), at.lab.router.station()]
    for (const [station, addresses] of [
      [outside, ['192.0.2.2', '2001:db8:ff::2']],
      [gateway, ['10.10.10.1', 'fd00:10::1']],
    ] as const)
      for (const address of addresses) await station.listen(address)
    at.lab.router.ip('route add 10.6.0.0/24 via 10.10.10.8')
    at.lab.router.ip('route add fd00:6::/64 via fd00:10::8')
    // The way there is looked for once; of the pod's first packet none of that is told.
    for (const address of ['192.0.2.2', '2001:db8:ff::2'])
      await eventually('the node reaches the outside', () => pings(at.node, address))
    const join = async (of: object) => {
      const { pod, it } = newPod(of)
      const station = pod.station()
      const { ips } = await add(it)
      const addresses: string[] = ips.map(({ address }: { address: string }) => address.split('/')[0])
      for (const address of addresses) await station.listen(address)
      return { it, station, addresses }
    }
    const other = {
      name: 'othernet',
      ipam: { ...config().ipam, ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd00:7::/64' }]] },
    }
    for (const filter of ['1', '2']) {
      at.node.run('sysctl', '-qw', `net.ipv4.conf.all.rp_filter=${filter}`, `net.ipv4.conf.default.rp_filter=${filter}`)
      const [hidden, open, third] = [
        await join({ ...config(), ipMasq: true }),
        await join(config()),
        await join({ ...config(), ...other }),
      ]
      const ways = [
        { own: 0, node: '10.10.10.8', wide: '192.0.2.2', near: '10.10.10.1', otherEnd: '10.7.0.1' },
        { own: 1, node: 'fd00:10::8', wide: '2001:db8:ff::2', near: 'fd00:10::1', otherEnd: 'fd00:7::1' },
      ]
      for (const { own, node: nodes, wide, near, otherEnd } of ways) {
        const [h, o, t] = [hidden.addresses[own]!, open.addresses[own]!, third.addresses[own]!]
        assert.equal(await hidden.station.ask(h, wide), nodes, 'the first packet passes, hidden')
        assert.equal(await hidden.station.ask(h, near), nodes)
        assert.equal(await hidden.station.ask(h, o), h, 'within the network')
        assert.equal(await hidden.station.ask(h, t), otherEnd, 'another network of the node, as upstream does')
        assert.equal(await open.station.ask(o, wide), o)
        assert.equal(await open.station.ask(o, h), o)
        assert.equal(await outside.ask(wide, o), wide, 'from outside')
      }
      for (const { it } of [hidden, open]) await del(it)
      await del(third.it)
    }
    assertNothingLeft()
  })

  test('two interfaces of one container in one network work, and go one by one (DEL-11)', async () => {
    const { pod, it } = newPod()
    const second = { ...it, ifName: 'net1', config: config({ routes: [] }) }
    await add(it)
    const prevResult = await add(second)
    assert.equal(linesOf(pod.ip('route show 10.6.0.1')).length, 2)
    assert.deepEqual(silent(await at.node.call('CHECK', second, { more: { prevResult } })), DONE, 'both there')
    await del(it)
    assert.doesNotMatch(pod.ip('-o link'), /eth0/)
    assert.deepEqual(silent(await at.node.call('CHECK', second, { more: { prevResult } })), DONE)
    pod.run('ping', '-qc1', '-W1', '10.6.0.1')
    await del(second)
    assertNothingLeft()
  })
})

const linesOf = (text: string): string[] =>
  text
    .split('\n')
    .map(line => line.trim().replace(/ +/g, ' '))
    .filter(line => line !== '')
    .sort()
