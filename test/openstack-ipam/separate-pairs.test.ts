// SPDX-License-Identifier: Apache-2.0

// Mode separate where addresses pass at the node's port by address pairs, against the simulated OpenStack. Needs no root.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp, parsePrefix, prefixContains } from '#base'
import type { Port } from '#openstack'
import { limits, portOf } from './cloud.ts'
import { addressOf, until } from './node.ts'
import { addressesOf, setUp } from './separate-cloud.ts'

test('by address pairs the addresses pass at the node’s port: with the ports they come, are found again, and go', async t => {
  const conf = { binding: 'allowed_address_pairs', usableAfterMs: 0, idleMs: 0, maxAddressPairs: 4, reserve: 1 }
  const { node, simulator, ipam, cloud, ports } = await setUp(t, true, conf)
  const pairs = async () => {
    const port = await cloud.neutron.ports.get(portOf(simulator).id, limits())
    return port!.allowed_address_pairs!.map(each => each.ip_address)
  }
  // Neighbours share a pair, a prefix: what passes are exactly our addresses, however few pairs say so.
  const passing = async () =>
    (await pairs()).map(each => 2 ** (32 - Number(each.split('/')[1] ?? 32))).reduce((sum, size) => sum + size, 0)
  const isWhole = async () => {
    const prefixes = (await pairs()).map(each => parsePrefix(each.includes('/') ? each : `${each}/32`))
    const addresses = addressesOf(await ports())
    const covered = addresses.filter(each => prefixes.some(prefix => prefixContains(prefix, parseIp(each))))
    return covered.length === addresses.length && (await passing()) === addresses.length
  }
  await node.call('STATUS', '', ipam)
  await until(async () => (await ports()).length === 1, 'the reserve')
  assert.equal((await node.call('ADD', 'c0', ipam)).exitCode, 0)
  const ids = Array.from({ length: 12 }, (_, id) => id + 1)
  const replies = await Promise.all(ids.map(id => node.call('ADD', `c${id}`, ipam)))
  const served = replies.filter(each => each.exitCode === 0).length
  assert.ok(served >= 3 && served < 12, `${served} served`)
  for (const { exitCode, json } of replies) if (exitCode !== 0) assert.match(json.msg!, /address pairs of port .* 4/)
  await until(async () => (await ports()).length === served + 1, 'what was made in vain is gone')
  await until(isWhole, 'the pairs of those that are served')
  assert.ok((await pairs()).length <= 4)
  for (const id of [0, ...ids]) await node.call('DEL', `c${id}`, ipam)
  await until(async () => (await ports()).length === 1, 'the removal')
  await until(isWhole, 'the pairs of the reserve')
})

for (const longLived of [true, false])
  test(`by address pairs a port that exists passes at the node’s port, too, and those of other nodes do not (${longLived ? 'agent' : 'one process per call'})`, async t => {
    const conf = { binding: 'allowed_address_pairs', usableAfterMs: 0, maxAddressPairs: 1, allow: ['port'] }
    const { node, simulator, ipam, cloud } = await setUp(t, longLived, conf)
    const { network_id } = simulator.demo()
    const pairs = async () =>
      (await cloud.neutron.ports.get(portOf(simulator).id, limits()))!.allowed_address_pairs!.map(
        each => each.ip_address,
      )
    const addressOfPort = ({ fixed_ips }: Port) => fixed_ips[0]!.ip_address
    const another = await cloud.neutron.ports.create(
      { network_id, fixed_ips: [{ ip_address: '10.10.10.200' }] },
      limits(),
    )
    const taken = { device_owner: 'mooring:adopted', device_id: `mooring-${'0'.repeat(20)}` }
    await cloud.neutron.ports.update(another.id, taken, limits())
    const mine = await cloud.neutron.ports.create({ network_id, fixed_ips: [{ ip_address: '10.10.10.202' }] }, limits())
    const next = await cloud.neutron.ports.create({ network_id, fixed_ips: [{ ip_address: '10.10.10.204' }] }, limits())
    const take = (container: string, { id }: Port) => node.call('ADD', container, ipam, { args: `NEUTRON_PORT=${id}` })
    const reply = await take('c1', mine)
    assert.equal(addressOf(reply), addressOfPort(mine), reply.stdout)
    assert.deepEqual(await pairs(), [addressOfPort(mine)])
    const check = () => node.call('CHECK', 'c1', ipam, { config: { prevResult: reply.json } })
    assert.equal((await check()).exitCode, 0)
    const refused = await take('c2', next)
    assert.equal(refused.json.code, 102, refused.stdout)
    assert.match(refused.json.msg!, /address pairs of port .*: the limit is 1, 1 are ours/)
    assert.equal((await cloud.neutron.ports.get(next.id, limits()))!.device_id, '', 'it is its owner’s')
    assert.equal((await node.call('DEL', 'c1', ipam)).exitCode, 0)
    await until(async () => (await pairs()).length === 0, 'the pair is gone')
    await until(
      async () => (await cloud.neutron.ports.get(mine.id, limits()))!.device_id === '',
      'it is its owner’s again',
    )
    assert.equal((await cloud.neutron.ports.get(another.id, limits()))!.device_id, taken.device_id)
  })

test('CHECK names an address that has no pair at the port of the node', async t => {
  const { node, simulator, ipam, cloud } = await setUp(t, true, {
    ...{ binding: 'allowed_address_pairs', usableAfterMs: 0, verifyAfterMs: 60_000, allow: ['port'] },
  })
  const { network_id } = simulator.demo()
  const mine = await cloud.neutron.ports.create({ network_id, name: 'mine' }, limits())
  const replies = [
    await node.call('ADD', 'c1', ipam),
    await node.call('ADD', 'c2', ipam, { args: 'NEUTRON_PORT=mine' }),
  ]
  assert.equal(addressOf(replies[1]!), mine.fixed_ips[0]!.ip_address)
  const check = (at: number) => node.call('CHECK', `c${at + 1}`, ipam, { config: { prevResult: replies[at]!.json } })
  for (const at of [0, 1]) assert.equal((await check(at)).exitCode, 0)
  await cloud.neutron.ports.update(portOf(simulator).id, { allowed_address_pairs: [] }, limits())
  for (const at of [0, 1])
    assert.match(
      (await check(at)).json.msg!,
      new RegExp(`port \\S+ has no address pair for ${addressOf(replies[at]!)}$`),
    )
})
