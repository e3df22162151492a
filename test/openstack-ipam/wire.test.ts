// SPDX-License-Identifier: Apache-2.0

// What tcnp-ipam gives in both IP versions passes on the wire of the simulated cloud, from when ADD answers until DEL. Needs root.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { startSimulator } from '#simulator'
import { openStation, type Station } from '../contract/station.ts'
import { adminCloud, limits } from './cloud.ts'
import { nodeDirectory, nodeWithNic, startNode, until } from './node.ts'

const reason = process.getuid?.() === 0 ? false : 'needs root, for network namespaces'
const prefix = `mri${process.pid}`
const WIRE_MS = 100

async function stationIn(t: TestContext, name: string): Promise<Station> {
  const station = await openStation(`${prefix}-${name}`)
  t.after(() => station.close())
  return station
}

test('dual-stack in mix: both addresses pass port security from ADD until DEL, others do not', {
  skip: reason,
}, async t => {
  const simulator = await startSimulator({ dataplane: prefix, wireDelayMs: WIRE_MS })
  t.after(() => simulator.close())
  const { neutron } = adminCloud(t, simulator)
  const { network_id, subnet_id, servers } = simulator.demo()
  const six = await neutron.subnets.create({ network_id, name: 'six', cidr: 'fd00:10::/64', ip_version: 6 }, limits())
  const [one, two] = [servers['worker-1']!.ports[0]!, servers['worker-2']!.ports[0]!]
  for (const [port, end] of [
    [one, 11],
    [two, 12],
  ] as const) {
    const fixed_ips = [
      { subnet_id, ip_address: port.ips[0]! },
      { subnet_id: six.id, ip_address: `fd00:10::${end}` },
    ]
    await neutron.ports.update(port.id, { fixed_ips }, limits())
  }
  const [pod, peer] = [await stationIn(t, 'vm-worker-1'), await stationIn(t, 'vm-worker-2')]
  await peer.addAddress('fd00:10::12/64')
  const node = startNode({
    directory: nodeDirectory(t),
    host: nodeWithNic(`${one.ips[0]}/24`, one.mac),
    longLived: true,
  })
  t.after(() => node[Symbol.asyncDispose]())
  const config = {
    openstackConf: { ...simulator.accounts.admin, domain: 'default', authUrl: simulator.authUrl },
    neutronConf: { networks: [network_id], usableAfterMs: WIRE_MS * 4, reserve: 0, coolDownMs: 0, allow: ['address'] },
  }
  const reply = await node.call('ADD', 'c1', config, { args: 'IP=fd00:10::77' })
  assert.equal(reply.exitCode, 0, reply.stdout)
  const [v4, v6] = reply.json.ips!.map(each => each.address)
  assert.equal(v6, 'fd00:10::77/64')
  for (const address of [v4!, v6!, 'fd00:10::99/64']) await pod.addAddress(address)
  const seenAs = (address: string) => peer.ask(address.replace(/\/.*/, ''))
  await until(async () => (await seenAs(v4!)) === two.ips[0], `an answer from ${v4}`)
  await until(async () => (await seenAs(v6!)) === 'fd00:10::12', `an answer from ${v6}`)
  assert.equal(await seenAs('fd00:10::99'), undefined)
  assert.equal((await node.call('DEL', 'c1', config)).exitCode, 0)
  await until(async () => (await neutron.ports.get(one.id, limits()))!.fixed_ips.length === 2, 'the removal')
  await sleep(WIRE_MS * 4)
  assert.equal(await seenAs(v6!), undefined)
})
