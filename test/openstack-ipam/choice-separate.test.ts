// SPDX-License-Identifier: Apache-2.0

// What a pod chooses itself in mode separate, several networks and subnets, and IPv6. Needs no root.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { listObjects } from '#allocator'
import type { Port } from '#openstack'
import { adminCloud, asAdmin, limits, neutronByHand, setUp as setUpCloud } from './cloud.ts'
import { nodeDirectory, nodeWithNic, type Reply, startNode, until } from './node.ts'

const POD = 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0'
const choosing = (...pairs: string[]) => ({ args: [POD, ...pairs].join(';') })

function served(reply: Reply): string[] {
  assert.equal(reply.exitCode, 0, reply.stdout)
  return reply.json.ips!.map(each => each.address)
}

function refused(reply: Reply, code: number, message: RegExp): void {
  assert.equal(reply.json.code, code, reply.stdout)
  assert.match(reply.json.msg!, message)
}

/** A network of the test's own, beside the demo's, and a configuration that uses it. */
async function setUp(t: TestContext, longLived = true, more: object = {}) {
  const set = await setUpCloud(t, longLived)
  const { neutron } = adminCloud(t, set.simulator)
  const network = await neutron.networks.create({ name: 'pods' }, limits())
  const subnet = (name: string, cidr: string, mode?: string) => {
    const version = cidr.includes(':') ? 6 : 4
    const ipv6 = mode === undefined ? {} : { ipv6_address_mode: mode, ipv6_ra_mode: mode, gateway_ip: 'fe80::1' }
    return neutron.subnets.create({ network_id: network.id, name, cidr, ip_version: version, ...ipv6 }, limits())
  }
  const config = (neutronConf: object = {}): object =>
    asAdmin(set.ipam, set.simulator, {
      mode: 'separate',
      networks: ['pods'],
      node: 'n1',
      idleMs: 0,
      ...more,
      ...neutronConf,
    })
  const ports = () => neutron.ports.list({ network_id: network.id }, limits())
  const portOf = async (address: string): Promise<Port | undefined> =>
    (await ports()).find(port => port.fixed_ips.some(each => `${each.ip_address}/24` === address))
  return { ...set, neutron, network, subnet, config, ports, portOf }
}

for (const longLived of [true, false]) {
  const where = longLived ? 'agent' : 'one process per call'

  test(`a pod gets the address and the MAC that it chose, and its port goes with it (${where})`, async t => {
    const { node, config, subnet, ports, portOf } = await setUp(t, longLived)
    await subnet('a', '10.60.0.0/24')
    const ipam = config({ allowIn: { shop: ['address', 'mac'] }, coolDownMs: 30_000 })
    const wish = choosing('IP=10.60.0.77', 'MAC=fa:16:3e:77:77:77')
    for (const round of [1, 2]) {
      assert.deepEqual(served(await node.call('ADD', `c${round}`, ipam, wish)), ['10.60.0.77/24'])
      assert.equal((await portOf('10.60.0.77/24'))!.mac_address, 'fa:16:3e:77:77:77')
      refused(
        await node.call('ADD', 'other', ipam, choosing('IP=10.60.0.77')),
        102,
        /IP address 10\.60\.0\.77 already allocated .*; port \S+ \("mooring-\S+", mooring:separate n1\) has it$/,
      )
      assert.equal((await node.call('DEL', `c${round}`, ipam)).exitCode, 0)
    }
    await until(async () => (await ports()).length === 0, 'the removal')
  })

  test(`a port that exists is the pod’s for a while, and its owner’s afterwards as it was (${where})`, async t => {
    const { node, config, subnet, neutron, network, ports } = await setUp(t, longLived)
    await subnet('a', '10.60.0.0/24')
    const mine = await neutron.ports.create({ network_id: network.id, name: 'mine', description: 'kept' }, limits())
    const ipam = config({ allow: ['port'] })
    const found = served(await node.call('ADD', 'c1', ipam, choosing('NEUTRON_PORT=mine')))
    assert.deepEqual(found, [`${mine.fixed_ips[0]!.ip_address}/24`])
    const now = (await neutron.ports.get(mine.id, limits()))!
    assert.equal(now.device_owner, 'mooring:adopted')
    assert.deepEqual([now.name, now.description], ['mine', 'kept'])
    const result = { ips: found.map(address => ({ address })), cniVersion: '1.1.0' }
    assert.equal((await node.call('CHECK', 'c1', ipam, { config: { prevResult: result } })).exitCode, 0)
    refused(
      await node.call('ADD', 'c2', ipam, choosing(`NEUTRON_PORT=${mine.id}`)),
      102,
      /^Cannot use port \S+: another attachment has it \(device mooring-[0-9a-f]{20}\)$/,
    )
    assert.equal((await node.call('DEL', 'c1', ipam)).exitCode, 0)
    await until(async () => (await neutron.ports.get(mine.id, limits()))!.device_owner === '', 'the return')
    const { revision_number: _, updated_at: __, ...after } = (await neutron.ports.get(mine.id, limits()))!
    const { revision_number: ___, updated_at: ____, ...before } = mine
    assert.deepEqual(after, before)
    assert.equal((await ports()).length, 1)
  })
}

test('a port that was taken is the pod’s although nobody could look at it afterwards', async t => {
  const { node, config, subnet, neutron, network, simulator } = await setUp(t)
  await subnet('a', '10.60.0.0/24')
  const mine = await neutron.ports.create({ network_id: network.id, name: 'mine' }, limits())
  // All tries of the look that follows the change.
  simulator.inject({ act: 'answer', status: 503, method: 'GET', path: `/ports/${mine.id}`, skip: 1, times: 5 })
  const reply = await node.call('ADD', 'c1', config({ allow: ['port'] }), choosing('NEUTRON_PORT=mine'))
  assert.deepEqual(served(reply), [`${mine.fixed_ips[0]!.ip_address}/24`])
})

test('a port of a server, of another network, or with nothing allowed is not to be had', async t => {
  const { node, config, subnet, simulator, neutron, network } = await setUp(t)
  await subnet('a', '10.60.0.0/24')
  const [server] = simulator.demo().servers['worker-2']!.ports
  const add = (allow: string[], port: string) =>
    node.call('ADD', 'c1', config({ allow }), choosing(`NEUTRON_PORT=${port}`))
  refused(await add([], server!.id), 106, /port \S+: "CNI_ARGS NEUTRON_PORT" asks for it, and no pod of namespace shop/)
  refused(await add(['port'], server!.id), 7, /it is on none of the networks in "neutronConf.networks"/)
  refused(await add([`port:${server!.id}`], server!.id), 102, /it is attached \(device_owner "compute:nova", device_id/)
  const bare = await neutron.ports.create({ network_id: network.id, fixed_ips: [] }, limits())
  refused(await add(['port'], bare.id), 7, /it has no address/)
  refused(await add(['port'], 'nowhere'), 7, /^Cannot find port "nowhere" of "CNI_ARGS NEUTRON_PORT"/)
})

test('a port of a trunk is not to be had, also while nothing attaches the trunk', async t => {
  const { node, config, subnet, neutron, network, simulator } = await setUp(t)
  await subnet('a', '10.60.0.0/24')
  const [parent, child] = await neutron.ports.createMany(
    [{ network_id: network.id }, { network_id: network.id }],
    limits(),
  )
  const sub_ports = [{ port_id: child!.id, segmentation_type: 'vlan', segmentation_id: 101 }]
  const byHand = await neutronByHand(simulator, 'admin')
  await byHand('POST', 'trunks', { trunk: { name: 'vlans', port_id: parent!.id, sub_ports } })
  const add = (port: string) => node.call('ADD', 'c1', config({ allow: ['port'] }), choosing(`NEUTRON_PORT=${port}`))
  refused(await add(child!.id), 102, /^Cannot use port \S+: it is a subport of trunk \S+ \("vlans"\)$/)
  refused(await add(parent!.id), 102, /it is the parent of a trunk$/)
  for (const { id } of [parent!, child!]) assert.equal((await neutron.ports.get(id, limits()))!.device_owner, '')
})

test('of two nodes that take a port at the same moment one has it', async t => {
  const { node, config, subnet, neutron, network } = await setUp(t)
  await subnet('a', '10.60.0.0/24')
  await using other = startNode({
    directory: nodeDirectory(t),
    host: nodeWithNic('', 'fa:16:3e:00:00:09'),
    longLived: true,
  })
  const mine = await neutron.ports.create({ network_id: network.id }, limits())
  const take = (each: typeof node, name: string) =>
    each.call('ADD', 'c1', config({ allow: ['port'], node: name }), choosing(`NEUTRON_PORT=${mine.id}`))
  const replies = await Promise.all([take(node, 'n1'), take(other, 'n2')])
  assert.deepEqual(replies.map(each => each.exitCode).sort(), [0, 1], replies.map(each => each.stdout).join())
  refused(replies.find(each => each.exitCode === 1)!, 102, /another attachment has it/)
})

test('a port that was taken although the answer was lost is the pod’s, and goes back after DEL', async t => {
  const { node, config, subnet, neutron, network, simulator } = await setUp(t)
  await subnet('a', '10.60.0.0/24')
  const mine = await neutron.ports.create({ network_id: network.id }, limits())
  simulator.inject({ act: 'cut-after', method: 'PUT', path: '/ports/' })
  const ipam = config({ allow: ['port'] })
  served(await node.call('ADD', 'c1', ipam, choosing(`NEUTRON_PORT=${mine.id}`)))
  const gc = { config: { 'cni.dev/valid-attachments': [] } }
  assert.equal((await node.call('GC', '', ipam, gc)).exitCode, 0)
  const isBack = async () => (await neutron.ports.get(mine.id, limits()))!.device_id === ''
  await until(async () => {
    await node.call('GC', '', ipam, gc)
    return await isBack()
  }, 'the return')
  const server = await neutron.ports.update(mine.id, { device_id: 'somebody', device_owner: 'compute:x' }, limits())
  assert.equal((await node.call('DEL', 'c1', ipam)).exitCode, 0)
  assert.equal((await neutron.ports.get(mine.id, limits()))!.device_id, server.device_id)
})

test('several networks and subnets: the next serves when one is full, and what is freed is used again', async t => {
  const { node, config, subnet, neutron } = await setUp(t)
  await subnet('a', '10.61.0.0/29')
  await subnet('b', '10.62.0.0/29')
  const second = await neutron.networks.create({ name: 'more' }, limits())
  await neutron.subnets.create({ network_id: second.id, cidr: '10.63.0.0/29', ip_version: 4 }, limits())
  const ipam = config({ networks: ['pods', 'more'], subnets: ['10.61.0.0/29', 'b', '10.63.0.0/29'] })
  const add = async (id: number) => await node.call('ADD', `c${id}`, ipam)
  const found: string[] = []
  for (let id = 0; id < 15; id++) found.push(...served(await add(id)))
  const order = found.map(each => each.slice(0, 5))
  assert.deepEqual(order, [...Array(5).fill('10.61'), ...Array(5).fill('10.62'), ...Array(5).fill('10.63')])
  refused(await add(15), 102, /No more IP addresses available/)
  await node.call('DEL', 'c12', ipam)
  await until(async () => (await add(16)).exitCode === 0, 'an address for the next pod')
})

test('security groups by name and port security are the port’s, for whoever may choose them', async t => {
  const { node, config, subnet, portOf, simulator, neutron } = await setUp(t)
  await subnet('a', '10.60.0.0/24')
  assert.ok(simulator)
  const group = await neutron.securityGroups.list({}, limits())
  const named = group.find(each => each.name === 'default')!
  const open = config({ allow: ['portSecurity'] })
  const [bare] = served(await node.call('ADD', 'c1', open, choosing('NEUTRON_PORT_SECURITY=false')))
  const off = (await portOf(bare!))!
  assert.deepEqual([off.port_security_enabled, off.security_groups], [false, []])
  const grouped = config({ allow: [`securityGroup:${named.id}`] })
  const [address] = served(await node.call('ADD', 'c2', grouped, choosing(`NEUTRON_SECURITY_GROUPS=${named.id}`)))
  assert.deepEqual((await portOf(address!))!.security_groups, [named.id])
  refused(
    await node.call('ADD', 'c3', grouped, choosing('NEUTRON_SECURITY_GROUPS=other')),
    106,
    /security group other: "CNI_ARGS NEUTRON_SECURITY_GROUPS"/,
  )
})

test('a foreign network is a pod’s only if the operator names it', async t => {
  const { node, config, subnet, simulator } = await setUp(t)
  await subnet('a', '10.60.0.0/24')
  const id = simulator.demo().network_id
  const wish = choosing(`NEUTRON_NETWORK=${id}`)
  refused(
    await node.call('ADD', 'c1', config({ allow: ['network'] }), wish),
    106,
    /network \S+: "CNI_ARGS NEUTRON_NETWORK"/,
  )
  const [address] = served(await node.call('ADD', 'c1', config({ allow: [`network:${id}`] }), wish))
  assert.match(address!, /^10\.10\.10\./)
})

test('dual-stack: the result has the SLAAC address that the port’s MAC makes, and a link-local gateway', async t => {
  const { node, config, subnet, ports } = await setUp(t)
  await subnet('a', '10.60.0.0/24')
  await subnet('auto', 'fd00:60::/64', 'slaac')
  const reply = await node.call('ADD', 'c1', config({ allow: ['address', 'mac'] }), choosing('MAC=fa:16:3e:01:02:03'))
  const [v4, v6] = served(reply)
  assert.match(v4!, /^10\.60\.0\.\d+\/24$/)
  assert.equal(v6, 'fd00:60::f816:3eff:fe01:203/64')
  assert.equal(reply.json.ips![1]!.gateway, 'fe80::1')
  assert.ok((await ports())[0]!.fixed_ips.some(each => `${each.ip_address}/64` === v6))
  const only = served(await node.call('ADD', 'c2', config({ ipVersions: [6] })))
  assert.match(only.join(), /^fd00:60::f816:3eff:fe[0-9a-f:]+\/64$/)
  refused(
    await node.call('ADD', 'c3', config({ allow: ['address'] }), choosing('IP=fd00:60::5')),
    7,
    /^Cannot give address fd00:60::5 of "CNI_ARGS IP": in subnet fd00:60::\/64 .* a port's address is made from its MAC$/,
  )
})

test('dual-stack with a stateful subnet gives an address of each, a chosen one too', async t => {
  const { node, config, subnet, ports } = await setUp(t)
  await subnet('a', '10.60.0.0/24')
  await subnet('six', 'fd00:61::/64', 'dhcpv6-stateful')
  const ipam = config({ allow: ['address'] })
  assert.deepEqual(served(await node.call('ADD', 'c1', ipam, choosing('IP=fd00:61:0::77,10.60.0.9'))), [
    '10.60.0.9/24',
    'fd00:61::77/64',
  ])
  const [v4, v6] = served(await node.call('ADD', 'c2', ipam))
  assert.match(v4!, /^10\.60\.0\./)
  assert.match(v6!, /^fd00:61::/)
  assert.equal((await ports()).length, 2)
})

test('beside the address of SLAAC, which comes unasked, the pod gets the one that was chosen, and that of the subnet that is preferred', async t => {
  const { node, config, subnet } = await setUp(t)
  await subnet('auto', 'fd00:60::/64', 'slaac')
  await subnet('six', 'fd00:61::/64', 'dhcpv6-stateful')
  const chosen = await node.call('ADD', 'c1', config({ allow: ['address'] }), choosing('IP=fd00:61::77'))
  assert.deepEqual(served(chosen), ['fd00:61::77/64'])
  const [preferred] = served(await node.call('ADD', 'c2', config({ subnets: ['six', 'auto'] })))
  assert.match(preferred!, /^fd00:61::/)
})

test('a port is its owner’s again although an old answer does not show that it was taken', async t => {
  const { node, config, subnet, neutron, network, simulator } = await setUp(t)
  await subnet('a', '10.60.0.0/24')
  const mine = await neutron.ports.create({ network_id: network.id, name: 'mine' }, limits())
  const ipam = config({ allow: ['port'] })
  served(await node.call('ADD', 'c1', ipam, choosing('NEUTRON_PORT=mine')))
  simulator.inject({ act: 'stale', method: 'GET', path: `/ports/${mine.id}`, times: 1 })
  assert.equal((await node.call('DEL', 'c1', ipam)).exitCode, 0)
  // Nobody else looks meanwhile: the old answer is for the release.
  await until(() => listObjects(node.world.journal).length === 0, 'the release')
  const { device_owner, device_id } = (await neutron.ports.get(mine.id, limits()))!
  assert.deepEqual([device_owner, device_id], ['', ''])
})
