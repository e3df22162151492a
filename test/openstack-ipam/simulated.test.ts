// SPDX-License-Identifier: Apache-2.0

// tcnp-ipam in mode mix against the simulated OpenStack. Needs no root.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { listAssignedAddresses, listPortAddresses, listQuarantined } from '#allocator'
import { deadlineIn } from '#base'
import { cloudFromConf, openCloud } from '#openstack'
import { asAdmin, isPut, limits, neutronList, portOf, setUp, smallNetwork } from './cloud.ts'
import { addressOf, nodeWithNic, type Reply, startNode, until } from './node.ts'

for (const longLived of [true, false]) {
  const where = longLived ? 'agent' : 'one process per call'

  test(`ADD (${where}) gives a further address of the node's port, with length, gateway and routes`, async t => {
    const { node, simulator, ipam } = await setUp(t, longLived)
    const reply = await node.call('ADD', 'c1', ipam)
    assert.equal(reply.exitCode, 0, reply.stdout)
    assert.match(reply.json.ips![0]!.address, /^10\.10\.10\.\d+\/24$/)
    assert.equal(reply.json.ips![0]!.gateway, '10.10.10.1')
    assert.deepEqual(reply.json.routes, [{ dst: '0.0.0.0/0' }])
    assert.ok(neutronList(simulator).includes(addressOf(reply)))
    assert.equal((await node.call('CHECK', 'c1', ipam, { config: { prevResult: reply.json } })).exitCode, 0)
  })

  test(`DEL (${where}) takes the address off the port, twice and for nothing too`, async t => {
    const { node, simulator, ipam } = await setUp(t, longLived)
    const before = neutronList(simulator)
    await node.call('ADD', 'c1', ipam)
    for (const container of ['c1', 'c1', 'never']) assert.equal((await node.call('DEL', container, ipam)).exitCode, 0)
    await until(() => neutronList(simulator).length === before.length, 'the removal')
    assert.deepEqual(neutronList(simulator), before)
  })
}

test('64 ADDs at once are 64 addresses and one or two writes; 64 DELs leave what was there before', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const before = neutronList(simulator)
  const replies = await Promise.all(Array.from({ length: 64 }, (_, id) => node.call('ADD', `c${id}`, ipam)))
  for (const reply of replies) assert.equal(reply.exitCode, 0, reply.stdout)
  assert.equal(new Set(replies.map(addressOf)).size, 64)
  const writes = simulator.requests().filter(isPut).length
  assert.ok(writes <= 2, `${writes} writes`)
  assert.equal(simulator.requests('POST', /tokens/).length, 1)
  const journal = listPortAddresses(node.world.journal, portOf(simulator).id).map(each => each.address)
  assert.deepEqual(journal.sort(), neutronList(simulator))
  await Promise.all(Array.from({ length: 64 }, (_, id) => node.call('DEL', `c${id}`, ipam)))
  await until(() => neutronList(simulator).length === before.length, 'the removal')
  assert.deepEqual(neutronList(simulator), before)
})

test('a process per call: 12 ADDs at once by 12 processes are 12 addresses, one token and few writes', async t => {
  const { simulator, ipam, directory } = await setUp(t, false)
  const port = portOf(simulator)
  const host = nodeWithNic(`${port.ips[0]}/24`, port.mac)
  const before = neutronList(simulator)
  const alone = async (command: string, container: string): Promise<Reply> => {
    await using node = startNode({ directory, host, longLived: false })
    return await node.call(command, container, ipam)
  }
  const replies = await Promise.all(Array.from({ length: 12 }, (_, id) => alone('ADD', `c${id}`)))
  for (const reply of replies) assert.equal(reply.exitCode, 0, reply.stdout)
  assert.equal(new Set(replies.map(addressOf)).size, 12)
  assert.equal(simulator.requests('POST', /tokens/).length, 1)
  assert.ok(simulator.requests().filter(isPut).length <= 6)
  await Promise.all(Array.from({ length: 12 }, (_, id) => alone('DEL', `c${id}`)))
  assert.deepEqual(neutronList(simulator), before)
})

test('ADD from the reserve makes no call to the cloud before it answers', async t => {
  const { node, simulator, ipam } = await setUp(t, true, { reserve: 4 })
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
  await until(() => neutronList(simulator).length === 5, 'the reserve')
  simulator.inject({ act: 'delay', latencyMs: 400, times: 0 })
  const begin = performance.now()
  const reply = await node.call('ADD', 'c1', ipam)
  assert.equal(reply.exitCode, 0, reply.stdout)
  assert.ok(performance.now() - begin < 200)
})

test('GC releases what the list does not name, of this network only; without a list nothing', async t => {
  const { node, simulator, ipam } = await setUp(t)
  for (const container of ['c1', 'c2']) await node.call('ADD', container, ipam)
  await node.call('ADD', 'c3', ipam, { network: 'other' })
  await new Promise(resolve => setTimeout(resolve, 150))
  await node.call('GC', '', ipam)
  assert.equal(listAssignedAddresses(node.world.journal).length, 3)
  const config = { 'cni.dev/valid-attachments': [{ containerID: 'c1', ifname: 'eth0' }] }
  assert.equal((await node.call('GC', '', ipam, { config })).exitCode, 0)
  const left = () => listAssignedAddresses(node.world.journal).map(each => each.owner!.containerId)
  assert.deepEqual(left().sort(), ['c1', 'c3'])
  await until(() => neutronList(simulator).length === 3, 'the removal')
})

test('a fixed address that somebody else adds stays, is listed, and is nobody’s', async t => {
  const { node, simulator, ipam } = await setUp(t)
  await node.call('ADD', 'c1', ipam)
  const { id } = portOf(simulator)
  const cloud = openCloud(cloudFromConf(ipam.openstackConf))
  t.after(() => cloud.close())
  const limits = { deadline: deadlineIn(5_000) }
  const port = (await cloud.neutron.ports.get(id, limits))!
  await cloud.neutron.ports.update(
    id,
    { fixed_ips: [...port.fixed_ips, { subnet_id: simulator.demo().subnet_id, ip_address: '10.10.10.240' }] },
    limits,
  )
  await node.call('ADD', 'c2', ipam)
  assert.deepEqual(
    listQuarantined(node.world.journal).map(each => each.address),
    ['10.10.10.240'],
  )
  for (const container of ['c1', 'c2']) await node.call('DEL', container, ipam)
  await until(() => neutronList(simulator).length === 2, 'the removal')
  assert.ok(neutronList(simulator).includes('10.10.10.240'))
})

test('CHECK notices an address that the port has lost', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const reply = await node.call('ADD', 'c1', ipam)
  const cloud = openCloud(cloudFromConf(ipam.openstackConf))
  t.after(() => cloud.close())
  const limits = { deadline: deadlineIn(5_000) }
  const port = (await cloud.neutron.ports.get(portOf(simulator).id, limits))!
  await cloud.neutron.ports.update(
    port.id,
    { fixed_ips: port.fixed_ips.filter(each => each.ip_address !== addressOf(reply)) },
    limits,
  )
  const check = await node.call('CHECK', 'c1', ipam)
  assert.equal(check.json.code, 103)
  assert.ok(check.json.msg!.includes(addressOf(reply)))
})

test('CHECK of a container that has nothing says so', async t => {
  const { node, ipam } = await setUp(t)
  assert.equal((await node.call('CHECK', 'c1', ipam)).json.code, 103)
})

test('a port with addresses of both IP versions gives its pods both; "ipVersions" chooses', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const { cloud } = await smallNetwork(t, simulator)
  const dual = await cloud.neutron.networks.create({ name: 'dual' }, limits())
  const four = await cloud.neutron.subnets.create(
    { network_id: dual.id, cidr: '10.78.0.0/24', ip_version: 4 },
    limits(),
  )
  const six = await cloud.neutron.subnets.create(
    { network_id: dual.id, cidr: '2001:db8:2::/64', ip_version: 6, ipv6_address_mode: 'dhcpv6-stateful' },
    limits(),
  )
  const port = await cloud.neutron.ports.create(
    { network_id: dual.id, fixed_ips: [{ subnet_id: four.id }, { subnet_id: six.id }] },
    limits(),
  )
  const lengths = (reply: Reply) => reply.json.ips!.map(each => each.address.replace(/^.*\//, '/'))
  const both = await node.call('ADD', 'c1', asAdmin(ipam, simulator, { hostPort: port.id }))
  assert.deepEqual(lengths(both), ['/24', '/64'])
  const one = await node.call('ADD', 'c2', asAdmin(ipam, simulator, { hostPort: port.id, ipVersions: [6] }))
  assert.deepEqual(lengths(one), ['/64'])
})
