// SPDX-License-Identifier: Apache-2.0

// What a pod chooses itself in mode mix, and several subnets of which one is full. Needs no root.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { listPortAddresses } from '#allocator'
import { adminCloud, asAdmin, isPut, limits, neutronList, portOf, setUp } from './cloud.ts'
import { addressOf, type Reply, until } from './node.ts'

const POD = 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0'
const asking = (address: string) => ({ args: `${POD};IP=${address}` })

function served(reply: Reply): string[] {
  assert.equal(reply.exitCode, 0, reply.stdout)
  return reply.json.ips!.map(each => each.address)
}

function refused(reply: Reply, code: number, message: RegExp): void {
  assert.equal(reply.json.code, code, reply.stdout)
  assert.match(reply.json.msg!, message)
}

/** A network with two subnets of five addresses, and a port in the first that is the node's. */
async function twoSubnets(t: TestContext, longLived: boolean, more: object = {}) {
  const { node, simulator, ipam } = await setUp(t, longLived)
  const cloud = adminCloud(t, simulator)
  const network = await cloud.neutron.networks.create({ name: 'two' }, limits())
  const subnet = (name: string, cidr: string) =>
    cloud.neutron.subnets.create({ network_id: network.id, name, cidr, ip_version: 4 }, limits())
  const first = await subnet('first', '10.77.0.0/29')
  await subnet('second', '10.78.0.0/29')
  const fixedIps = [{ subnet_id: first.id }]
  const host = await cloud.neutron.ports.create({ network_id: network.id, fixed_ips: fixedIps }, limits())
  const conf = { hostPort: host.id, subnets: ['first', '10.78.0.0/29'], retryFullMs: 0, ...more }
  const addressesOnPort = async () =>
    (await cloud.neutron.ports.get(host.id, limits()))!.fixed_ips.map(each => each.ip_address)
  return { node, simulator, cloud, network, host, first, addressesOnPort, ipam: asAdmin(ipam, simulator, conf), conf }
}

/** `first` or `second`. */
const subnetOf = (reply: Reply) => (addressOf(reply).startsWith('10.77.') ? 'first' : 'second')

for (const longLived of [true, false]) {
  const where = longLived ? 'agent' : 'one process per call'

  test(`a pod gets the address that it chose, again and again, and it is gone after DEL (${where})`, async t => {
    const { node, simulator, ipam } = await setUp(t, longLived, { allow: ['address'], coolDownMs: 500 })
    const before = neutronList(simulator)
    for (const more of [asking('10.10.10.77'), { config: { runtimeConfig: { ips: ['10.10.10.77/24'] } } }]) {
      assert.deepEqual(served(await node.call('ADD', 'c1', ipam, more)), ['10.10.10.77/24'])
      assert.ok(neutronList(simulator).includes('10.10.10.77'))
      assert.equal((await node.call('DEL', 'c1', ipam, more)).exitCode, 0)
    }
    await until(() => neutronList(simulator).length === before.length, 'the removal')
    assert.deepEqual(neutronList(simulator), before)
  })

  test(`several subnets: the next serves when one is full, and what is freed is the next pod's (${where})`, async t => {
    const { node, ipam, addressesOnPort } = await twoSubnets(t, longLived)
    const add = (id: number) => node.call('ADD', `c${id}`, ipam)
    // Each has five addresses, and the node has one of the first.
    for (let id = 1; id <= 9; id++) {
      const reply = await add(id)
      served(reply)
      assert.equal(subnetOf(reply), id <= 4 ? 'first' : 'second', `attachment ${id} has ${addressOf(reply)}`)
    }
    const reply = await add(10)
    refused(reply, 102, /^Cannot give an IPv4 address of port \S+: none is left in 10\.77\.0\.0\/29 \("first", \S+\): /)
    assert.match(reply.json.msg!, /of its 5 addresses this port has 5, 4 of them with pods, nor in 10\.78\.0\.0\/29/)
    assert.match(reply.json.msg!, /of its 5 addresses this port has 5, 5 of them with pods/)
    for (const [gone, subnet] of [
      [2, 'first'],
      [7, 'second'],
    ] as const) {
      await node.call('DEL', `c${gone}`, ipam)
      const next = await add(10 + gone)
      served(next)
      assert.equal(subnetOf(next), subnet)
    }
    assert.equal((await addressesOnPort()).length, 10)
  })
}

test('a pod may choose nothing unless the operator allows it, and costs Neutron nothing', async t => {
  const { node, simulator, ipam } = await setUp(t, true, { allowIn: { bank: ['address'] } })
  const before = neutronList(simulator)
  const reply = await node.call('ADD', 'c1', ipam, asking('10.10.10.77'))
  refused(
    reply,
    106,
    /interface eth0 of container c1 \(pod shop\/web-0\) address 10.10.10.77: "CNI_ARGS IP" asks for it/,
  )
  assert.match(reply.json.details!, /"allowIn": \{"shop": \["address"\]\}/)
  assert.deepEqual(neutronList(simulator), before)
  assert.equal(simulator.requests().filter(isPut).length, 0)
  const bank = { args: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=bank;IP=10.10.10.77' }
  assert.deepEqual(served(await node.call('ADD', 'c2', ipam, bank)), ['10.10.10.77/24'])
})

test('a chosen address that is another port’s is refused with its holder, and costs no other pod anything', async t => {
  const { node, simulator, ipam } = await setUp(t, true, { allow: ['address'] })
  const [other] = simulator.demo().servers['worker-2']!.ports
  const replies = await Promise.all([
    node.call('ADD', 'taken', ipam, asking(other!.ips[0]!)),
    node.call('ADD', 'own', ipam, asking(portOf(simulator).ips[0]!)),
    node.call('ADD', 'network', ipam, asking('10.10.10.0')),
    node.call('ADD', 'outside', ipam, asking('10.99.0.1')),
    node.call('ADD', 'good', ipam, asking('10.10.10.78')),
    ...Array.from({ length: 8 }, (_, id) => node.call('ADD', `c${id}`, ipam)),
  ])
  const [taken, own, network, outside, ...good] = replies
  refused(taken!, 102, /already allocated in subnet \S+; port \S+ \(".*", compute:nova \S+\) has it$/)
  refused(own!, 102, /is an address of port \S+ that was there before us, the node's own most likely$/)
  refused(network!, 102, /^Cannot give address 10\.10\.10\.0 of port .*not a valid IP for the specified subnet/)
  refused(outside!, 7, /^Cannot give address 10\.99\.0\.1 of "CNI_ARGS IP": it is in none of the subnets of port/)
  assert.deepEqual(served(good[0]!), ['10.10.10.78/24'])
  assert.equal(new Set(good.flatMap(served)).size, 9)
  refused(
    await node.call('ADD', 'late', ipam, asking('10.10.10.78')),
    102,
    /^Cannot give address 10\.10\.10\.78 to interface eth0 of container late: interface eth0 of container good in network "cni0" has it$/,
  )
})

test('a chosen address that is in the reserve is that one, without a call to Neutron', async t => {
  const { node, simulator, ipam } = await setUp(t, true, { allow: ['address'], reserve: 3 })
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
  const free = () => listPortAddresses(node.world.journal, portOf(simulator).id).filter(each => each.state === 'free')
  await until(() => free().length === 3, 'the reserve')
  const [, wanted] = free().map(each => each.address)
  const writes = simulator.requests().filter(isPut).length
  assert.deepEqual(served(await node.call('ADD', 'c1', ipam, asking(wanted!))), [`${wanted}/24`])
  assert.equal(simulator.requests().filter(isPut).length, writes)
})

test('a chosen address that is taken goes to the next pod that chooses it, as soon as it is free', async t => {
  const { node, ipam } = await setUp(t, true, { allow: ['address'], coolDownMs: 30_000 })
  served(await node.call('ADD', 'c1', ipam, asking('10.10.10.77')))
  refused(await node.call('ADD', 'c2', ipam, asking('10.10.10.77')), 102, /container c1/)
  await node.call('DEL', 'c1', ipam)
  assert.deepEqual(served(await node.call('ADD', 'c2', ipam, asking('10.10.10.77'))), ['10.10.10.77/24'])
})

test('a full subnet is left alone for a while, and used again afterwards', async t => {
  const { node, ipam, simulator, cloud, network, first } = await twoSubnets(t, true, { retryFullMs: 1_000 })
  const others = await cloud.neutron.ports.create(
    { network_id: network.id, fixed_ips: Array.from({ length: 4 }, () => ({ subnet_id: first.id })) },
    limits(),
  )
  const add = (id: number) => node.call('ADD', `c${id}`, ipam)
  const begin = performance.now()
  assert.equal(subnetOf(await add(1)), 'second')
  const writes = () => simulator.requests().filter(isPut).length
  const before = writes()
  assert.equal(subnetOf(await add(2)), 'second')
  if (performance.now() - begin < 1_000) assert.equal(writes(), before + 1)
  await cloud.neutron.ports.delete(others.id, limits())
  let id = 3
  await until(async () => {
    const reply = await add(++id)
    if (subnetOf(reply) === 'second') await node.call('DEL', `c${id}`, ipam)
    return subnetOf(reply) === 'first'
  }, 'an address of the first subnet')
})

test('the reserve is kept in the next subnet while the first is full, and serves from there', async t => {
  const { node, ipam, host, cloud, network, first } = await twoSubnets(t, true, { retryFullMs: 60_000, reserve: 2 })
  await cloud.neutron.ports.create(
    { network_id: network.id, fixed_ips: Array.from({ length: 4 }, () => ({ subnet_id: first.id })) },
    limits(),
  )
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
  const free = () => listPortAddresses(node.world.journal, host.id).filter(each => each.state === 'free')
  await until(() => free().length === 2, 'the reserve')
  const ahead = free().map(each => each.address)
  const reply = await node.call('ADD', 'c1', ipam)
  served(reply)
  assert.equal(subnetOf(reply), 'second')
  assert.ok(ahead.includes(addressOf(reply)), `${addressOf(reply)} is none of ${ahead.join(', ')}`)
  await until(() => free().length === 2, 'the reserve again')
})

test('a pod chooses one of the subnets that the operator names', async t => {
  const { node, ipam } = await twoSubnets(t, true, { allowIn: { shop: ['subnet'] } })
  const choose = (subnet: string) => ({ args: `${POD};NEUTRON_SUBNET=${subnet}` })
  assert.equal(subnetOf(await node.call('ADD', 'c1', ipam, choose('10.78.0.0/29'))), 'second')
  assert.equal(subnetOf(await node.call('ADD', 'c2', ipam)), 'first')
  refused(await node.call('ADD', 'c3', ipam, choose('elsewhere')), 106, /subnet elsewhere/)
})

test('dual-stack is all or nothing: without an address of one version the pod gets none of the other', async t => {
  const { node, ipam, conf, cloud, addressesOnPort, network } = await twoSubnets(t, true)
  const six = await cloud.neutron.subnets.create(
    { network_id: network.id, name: 'six', cidr: 'fd00:77::/125', ip_version: 6, ipv6_address_mode: 'dhcpv6-stateful' },
    limits(),
  )
  const both = {
    ...ipam,
    neutronConf: { ...conf, subnets: ['first', 'six'], reserve: 0, usableAfterMs: 0, coolDownMs: 0 },
  }
  const add = (id: number) => node.call('ADD', `c${id}`, both)
  const [v4, v6] = served(await add(1))
  assert.match(v4!, /^10\.77\.0\.\d\/29$/)
  assert.match(v6!, /^fd00:77::\d\/125$/)
  await cloud.neutron.ports.create(
    { network_id: network.id, fixed_ips: Array.from({ length: 5 }, () => ({ subnet_id: six.id })) },
    limits(),
  )
  const before = await addressesOnPort()
  refused(await add(2), 102, /^Cannot give an IPv6 address of port \S+: none is left in fd00:77::\/125/)
  await until(async () => (await addressesOnPort()).length === before.length, 'the removal of the other address')
  assert.deepEqual((await addressesOnPort()).sort(), before.sort())
  await node.call('DEL', 'c1', both)
  assert.equal(served(await add(3)).length, 2)
})

test('a SLAAC subnet is refused by name, and an ADD without IPv6 leaves the port its address of it', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const { neutron } = adminCloud(t, simulator)
  const network = await neutron.networks.create({ name: 'auto' }, limits())
  const make = (name: string, cidr: string, ip_version: 4 | 6, more: object = {}) =>
    neutron.subnets.create({ network_id: network.id, name, cidr, ip_version, ...more }, limits())
  await make('four', '10.79.0.0/24', 4)
  await make('six', 'fd00:79::/64', 6, { ipv6_address_mode: 'slaac', ipv6_ra_mode: 'slaac' })
  const host = await neutron.ports.create({ network_id: network.id }, limits())
  const config = (more: object) => asAdmin(ipam, simulator, { hostPort: host.id, ...more })
  const add = (more: object) => node.call('ADD', 'c1', config(more))
  refused(
    await add({}),
    7,
    /^Cannot give addresses of subnet fd00:79::\/64 \("six", .*\): a port has one address of it/,
  )
  const [address] = served(await add({ ipVersions: [4] }))
  const now = (await neutron.ports.get(host.id, limits()))!.fixed_ips.map(each => each.ip_address)
  const before = host.fixed_ips.map(each => each.ip_address)
  assert.deepEqual(now.sort(), [...before, address!.replace('/24', '')].sort())
})

test('what is the node’s port’s alone is refused by name, whoever asks', async t => {
  const { node, ipam } = await setUp(t, true, { allow: ['mac', 'port', 'securityGroup', 'portSecurity'] })
  for (const pair of [
    'MAC=fa:16:3e:00:00:02',
    'NEUTRON_PORT=p',
    'NEUTRON_SECURITY_GROUPS=web',
    'NEUTRON_PORT_SECURITY=false',
  ]) {
    const reply = await node.call('ADD', 'c1', ipam, { args: `${POD};${pair}` })
    refused(reply, 7, new RegExp(`^Cannot do what "CNI_ARGS ${pair.split('=')[0]}" says in mode "mix"`))
  }
  const operators = { ...ipam, neutronConf: { ...ipam.neutronConf, securityGroups: ['web'] } }
  refused(await node.call('ADD', 'c1', operators), 7, /^Cannot do what "neutronConf.securityGroups" says/)
})
