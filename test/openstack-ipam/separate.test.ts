// SPDX-License-Identifier: Apache-2.0

// tcnp-ipam in mode separate against the simulated OpenStack: a Neutron port per attachment. Needs no root.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Journal, listAssignedObjects, listObjects, openJournal } from '#allocator'
import { formatIp, parseIp } from '#base'
import { readBootId } from '#host'
import { cloudFromConf, openCloud, type Port } from '#openstack'
import { listOwnedPorts } from '#plugins'
import { adminCloud, asAdmin, limits, mooring, smallNetwork } from './cloud.ts'
import { exhaust } from './exhaust.ts'
import { addressOf, nodeDirectory, nodeWithNic, type Reply, startNode, until } from './node.ts'
import { addressesOf, OWNER, setUp } from './separate-cloud.ts'

const isNeutron = ({ path }: { path: string }) => path.includes('/v2.0/')
const journalled = (journal: Journal) =>
  listObjects(journal)
    .flatMap(each => each.addresses.map(({ address }) => address))
    .sort()

for (const longLived of [true, false]) {
  const where = longLived ? 'agent' : 'one process per call'

  test(`ADD (${where}) makes a port that says whose it is; DEL takes it away`, async t => {
    const { node, ipam, ports, simulator } = await setUp(t, longLived, { idleMs: 0, cluster: 'blue' })
    const reply = await node.call('ADD', 'c1', ipam)
    assert.equal(reply.exitCode, 0, reply.stdout)
    assert.match(reply.json.ips![0]!.address, /^10\.10\.10\.\d+\/24$/)
    assert.equal(reply.json.ips![0]!.gateway, '10.10.10.1')
    const [port] = await ports()
    assert.equal(port!.fixed_ips[0]!.ip_address, addressOf(reply))
    assert.match(port!.name, /^mooring-[0-9a-f]{20}$/)
    assert.equal(port!.device_id, 'worker-1')
    assert.equal(port!.description, 'mooring cluster=blue node=worker-1 container=c1 interface=eth0 network=cni0')
    assert.deepEqual([...port!.tags!].sort(), ['mooring', 'mooring:cluster=blue', 'mooring:node=worker-1'])
    assert.equal((await node.call('CHECK', 'c1', ipam, { config: { prevResult: reply.json } })).exitCode, 0)
    assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
    for (const container of ['c1', 'c1', 'never']) assert.equal((await node.call('DEL', container, ipam)).exitCode, 0)
    await until(async () => (await ports()).length === 0, 'the removal')
    assert.deepEqual(listObjects(node.world.journal), [])
    assert.equal(simulator.requests('POST', /tokens/).length, 2, 'the test’s and the node’s')
  })
}

test('100 ADDs at once make at most 12 calls to Neutron after the start', async t => {
  const { node, simulator, ipam, ports } = await setUp(t, true, { reserve: 4 })
  await node.call('STATUS', '', ipam)
  await until(async () => (await ports()).length === 4, 'the reserve')
  simulator.forgetRequests()
  const replies = await Promise.all(Array.from({ length: 100 }, (_, id) => node.call('ADD', `c${id}`, ipam)))
  for (const reply of replies) assert.equal(reply.exitCode, 0, reply.stdout)
  assert.equal(new Set(replies.map(addressOf)).size, 100)
  const settled = () => {
    const objects = listObjects(node.world.journal)
    return objects.filter(each => each.state === 'free').length === 4 && objects.length === 104
  }
  await until(settled, 'the reserve again')
  await until(() => simulator.requests('PUT', /ports/).length >= 4, 'the descriptions')
  const calls = simulator.requests().filter(isNeutron)
  t.diagnostic(
    calls.map(({ method, path }) => `${method} ${path.replace(/[0-9a-f-]{36}/g, 'ID').slice(0, 60)}`).join('; '),
  )
  assert.ok(calls.length <= 12, `${calls.length} calls`)
  assert.deepEqual(journalled(node.world.journal), addressesOf(await ports()))
})

test('ADD from the reserve makes no call before it answers, and the port says whose it is afterwards', async t => {
  const { node, simulator, ipam, ports } = await setUp(t, true, { reserve: 2 })
  await node.call('STATUS', '', ipam)
  await until(async () => (await ports()).length === 2, 'the reserve')
  simulator.inject({ act: 'delay', latencyMs: 400, times: 0 })
  const begin = performance.now()
  const reply = await node.call('ADD', 'c1', ipam)
  assert.equal(reply.exitCode, 0, reply.stdout)
  assert.ok(performance.now() - begin < 200)
  const described = async () => (await ports()).some(each => each.description?.includes('container=c1'))
  await until(described, 'the description')
})

for (const act of ['cut-after', 'answer-after', 'hang-after'] as const)
  test(`a creation whose answer is lost (${act}) leaves one port, which is found again`, async t => {
    const { node, simulator, ipam, ports, restart } = await setUp(t)
    simulator.inject({ act, method: 'POST', path: '/ports', status: 504 })
    const timeoutMs = act === 'hang-after' ? 1_500 : 10_000
    const reply = await node.call('ADD', 'c1', ipam, { timeoutMs })
    const after = act === 'hang-after' ? await restart() : node
    if (act === 'hang-after') {
      assert.equal(reply.json.code, 11, reply.stdout)
      const again = await after.call('ADD', 'c2', ipam)
      assert.equal(again.exitCode, 0, again.stdout)
    } else assert.equal(reply.exitCode, 0, reply.stdout)
    const found = await ports()
    assert.equal(found.length, 1)
    assert.deepEqual(journalled(after.world.journal), addressesOf(found))
  })

for (const longLived of [true, false])
  test(`a process (${longLived ? 'agent' : 'of one call'}) that is killed in a creation leaves one port, which is found again`, async t => {
    const { simulator, ipam, ports, directory } = await setUp(t)
    simulator.inject({ act: 'hang-after', method: 'POST', path: '/ports' })
    const told = JSON.stringify({ directory, ipam, longLived, containerId: 'c1' })
    const child = spawn(process.execPath, [join(import.meta.dirname, 'one-add.ts'), told], { stdio: 'ignore' })
    t.after(() => child.kill('SIGKILL'))
    await until(async () => (await ports()).length === 1, 'the creation')
    child.kill('SIGKILL')
    await once(child, 'exit')
    await using next = startNode({ directory, host: nodeWithNic('', 'fa:16:3e:00:00:09'), longLived })
    const reply = await next.call('ADD', 'c1', ipam)
    assert.equal(reply.exitCode, 0, reply.stdout)
    const found = await ports()
    assert.deepEqual(addressesOf(found), [addressOf(reply)])
    assert.deepEqual(journalled(next.world.journal), [addressOf(reply)])
  })

test('a process per call: 12 ADDs at once are 12 ports, one token and few creations; 12 DELs leave none', async t => {
  const { simulator, ipam, directory, ports } = await setUp(t, false)
  const alone = async (command: string, container: string): Promise<Reply> => {
    await using node = startNode({ directory, host: nodeWithNic('', 'fa:16:3e:00:00:09'), longLived: false })
    return await node.call(command, container, ipam)
  }
  const names = Array.from({ length: 12 }, (_, id) => `c${id}`)
  const replies = await Promise.all(names.map(name => alone('ADD', name)))
  for (const reply of replies) assert.equal(reply.exitCode, 0, reply.stdout)
  assert.equal(new Set(replies.map(addressOf)).size, 12)
  assert.equal(simulator.requests('POST', /tokens/).length, 1)
  assert.ok(simulator.requests('POST', /ports/).length <= 6, `${simulator.requests('POST', /ports/).length} creations`)
  await Promise.all(names.map(name => alone('DEL', name)))
  assert.deepEqual(await ports(), [])
})

test('a fault in every HTTP call of ADD in turn: one clear error or success, and in the end no port is left', async t => {
  const acts = [
    { act: 'answer', status: 403 },
    { act: 'answer-after', status: 504 },
    { act: 'cut-after' },
    { act: 'stale' },
  ] as const
  const { simulator, ipam, ports, node } = await setUp(t, false)
  simulator.forgetRequests()
  await node.call('ADD', 'probe', ipam)
  const calls = simulator.requests().length
  await node.call('DEL', 'probe', ipam)
  assert.ok(calls >= 5, `${calls} calls`)
  for (const each of acts)
    for (let skip = 0; skip < calls; skip++) {
      const directory = nodeDirectory(t)
      const process = () => startNode({ directory, host: nodeWithNic('', 'fa:16:3e:00:00:09'), longLived: false })
      await using alone = process()
      simulator.inject({ ...each, skip })
      const title = `${each.act} ${'status' in each ? each.status : ''} at call ${skip + 1} of ${calls}`
      const reply = await alone.call('ADD', 'c1', ipam, { timeoutMs: 8_000 })
      if (reply.exitCode !== 0) {
        assert.notEqual(reply.json.code, 999, `${title}: ${reply.stdout}`)
        assert.match(reply.json.msg!, /^Cannot /, title)
      }
      simulator.inject({ act: 'delay', times: 1 })
      assert.equal((await alone.call('DEL', 'c1', ipam)).exitCode, 0, title)
      await using next = process()
      const again = await next.call('ADD', 'c2', ipam)
      assert.equal(again.exitCode, 0, `${title}: ${again.stdout}`)
      await next.call('DEL', 'c2', ipam)
      assert.deepEqual(addressesOf(await ports()), [], title)
      // An intent stays for three minutes: so long its request may still be carried out.
      const known = listObjects(next.world.journal).filter(object => object.state !== 'making')
      assert.deepEqual(known, [], title)
    }
})

test('a quota that is used up is error 102 with its numbers, and the next ADD is served when there is room', async t => {
  const { node, simulator, ipam, ports, cloud } = await setUp(t)
  const projectId = await cloud.identity.projectId(limits())
  const { used } = (await cloud.neutron.quotas.details(projectId, limits()))['port']!
  const admin = openCloud(cloudFromConf({ ...simulator.accounts.admin, domain: 'default', authUrl: simulator.authUrl }))
  t.after(() => admin.close())
  await admin.neutron.quotas.set(projectId, { port: used + 3 }, limits())
  const replies = await Promise.all(Array.from({ length: 5 }, (_, id) => node.call('ADD', `c${id}`, ipam)))
  const refused = replies.filter(each => each.exitCode !== 0)
  assert.equal(refused.length, 2)
  for (const { json } of refused) {
    assert.equal(json.code, 102)
    assert.match(json.msg!, new RegExp(`Quota exceeded.* 3 in use.*quota of ports: ${used + 3} of ${used + 3} used`))
    assert.match(json.msg!, /next try in \d+ s, or as soon as one is released/)
  }
  const served = replies.findIndex(each => each.exitCode === 0)
  await node.call('DEL', `c${served}`, ipam)
  assert.equal((await node.call('ADD', 'late', ipam)).exitCode, 0)
  await admin.neutron.quotas.set(projectId, { port: used + 4 }, limits())
  await until(async () => (await node.call('ADD', 'later', ipam)).exitCode === 0, 'the next try', 8_000)
  assert.equal((await ports()).length, 4)
})

test('whoever is refused while Neutron is not asked again is told the numbers too, and served by the next release', async t => {
  const { node, simulator, ipam, ports, cloud } = await setUp(t, true, { idleMs: 0 })
  const projectId = await cloud.identity.projectId(limits())
  const { used } = (await cloud.neutron.quotas.details(projectId, limits()))['port']!
  const admin = adminCloud(t, simulator)
  await admin.neutron.quotas.set(projectId, { port: used + 3 }, limits())
  const message = new RegExp(`Quota exceeded.* 3 in use.*quota of ports: ${used + 3} of ${used + 3} used`)
  await exhaust(node, ipam, { fits: 3, message })
  await until(async () => (await ports()).length === 0, 'the removal')
})

test('a subnet that is nearly full gives what it has, loses no address, and serves the next when one is free', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const { cloud } = await smallNetwork(t, simulator)
  const config = asAdmin(ipam, simulator, { mode: 'separate', node: 'worker-1', networks: ['small'], reserve: 2 })
  const replies = await Promise.all(Array.from({ length: 7 }, (_, id) => node.call('ADD', `c${id}`, config)))
  const refused = replies.filter(each => each.exitCode !== 0)
  assert.equal(refused.length, 3, replies.map(each => each.stdout).join('\n'))
  for (const { json } of refused) {
    assert.equal(json.code, 102)
    assert.match(json.msg!, /No more IP addresses available.*subnet 10\.77\.0\.0\/29 .*: 5 of 5 addresses used/)
  }
  const served = replies.findIndex(each => each.exitCode === 0)
  await node.call('DEL', `c${served}`, config)
  assert.equal((await node.call('ADD', 'late', config)).exitCode, 0)
  assert.equal((await cloud.neutron.ports.list({ device_owner: OWNER }, limits())).length, 4)
})

test('the next subnet, and then the next network, serves when one is full', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const { cloud } = await smallNetwork(t, simulator)
  const small = (await cloud.neutron.networks.list({ name: 'small' }, limits()))[0]!
  await cloud.neutron.subnets.create({ network_id: small.id, cidr: '10.77.1.0/29', ip_version: 4 }, limits())
  const big = await cloud.neutron.networks.create({ name: 'big' }, limits())
  await cloud.neutron.subnets.create({ network_id: big.id, cidr: '10.78.0.0/24', ip_version: 4 }, limits())
  const subnets = ['10.77.0.0/29', '10.77.1.0/29']
  const one = asAdmin(ipam, simulator, { mode: 'separate', node: 'worker-1', networks: ['small', 'big'], subnets })
  for (let each = 0; each < 4; each++) assert.match(addressOf(await node.call('ADD', `a${each}`, one)), /^10\.77\.0\./)
  for (let each = 0; each < 5; each++) assert.match(addressOf(await node.call('ADD', `b${each}`, one)), /^10\.77\.1\./)
  const both = asAdmin(ipam, simulator, { mode: 'separate', node: 'worker-1', networks: ['small', 'big'] })
  const next = await node.call('ADD', 'c', both)
  assert.match(addressOf(next), /^10\.78\.0\./)
})

test('a restart of the agent loses and doubles nothing; a reboot frees what earlier pods had', async t => {
  const { node, simulator, ipam, ports, directory, restart } = await setUp(t, true, { reserve: 2 })
  for (const container of ['c1', 'c2']) await node.call('ADD', container, ipam)
  const again = await restart()
  for (const container of ['c3', 'c4']) assert.equal((await again.call('ADD', container, ipam)).exitCode, 0)
  const held = listAssignedObjects(again.world.journal).map(each => each.addresses[0]!.address)
  assert.equal(new Set(held).size, 4)
  await again[Symbol.asyncDispose]()
  const before = addressesOf(await ports())
  await using rebooted = startNode({
    directory,
    host: nodeWithNic('', 'fa:16:3e:00:00:09'),
    longLived: true,
    bootId: 'boot-2',
  })
  assert.equal((await rebooted.call('ADD', 'c5', ipam)).exitCode, 0)
  assert.equal(listAssignedObjects(rebooted.world.journal).length, 1)
  await until(() => listObjects(rebooted.world.journal).every(each => each.state !== 'releasing'), 'the release')
  assert.ok(addressesOf(await ports()).length <= before.length + 1)
  assert.equal(simulator.requests('DELETE', /ports/).length, 0)
})

test('a port that bears our mark and that the journal does not know stays, and is nobody’s', async t => {
  const { node, ipam, ports, directory, simulator } = await setUp(t, true, { reserve: 1 })
  await node.call('ADD', 'c1', ipam)
  await until(async () => (await ports()).length === 2, 'the reserve')
  await node[Symbol.asyncDispose]()
  const lost = addressesOf(await ports())
  await using fresh = startNode({
    directory: `${directory}/fresh`,
    host: nodeWithNic('', 'fa:16:3e:00:00:09'),
    longLived: true,
  })
  const reply = await fresh.call('ADD', 'c2', ipam)
  assert.ok(!lost.includes(addressOf(reply)))
  const quarantined = listObjects(fresh.world.journal).filter(each => each.state === 'quarantined')
  assert.deepEqual(quarantined.flatMap(each => each.addresses.map(({ address }) => address)).sort(), lost)
  assert.equal(simulator.requests('DELETE', /ports/).length, 0)
})

test('GC releases what the list does not name; DEL answers at once while the cloud is away', async t => {
  const { node, simulator, ipam } = await setUp(t)
  for (const container of ['c1', 'c2']) await node.call('ADD', container, ipam)
  await node.call('ADD', 'c3', ipam, { network: 'other' })
  await new Promise(resolve => setTimeout(resolve, 150))
  const config = { 'cni.dev/valid-attachments': [{ containerID: 'c1', ifname: 'eth0' }] }
  assert.equal((await node.call('GC', '', ipam, { config })).exitCode, 0)
  const left = () => listAssignedObjects(node.world.journal).map(each => each.owner!.containerId)
  assert.deepEqual(left().sort(), ['c1', 'c3'])
  await simulator.close()
  const begin = performance.now()
  assert.equal((await node.call('DEL', 'c1', ipam)).exitCode, 0)
  assert.ok(performance.now() - begin < 200)
  assert.deepEqual(left(), ['c3'])
})

test('a floating IP of the last owner leads nobody to the next', async t => {
  const { node, ipam, cloud, ports, simulator } = await setUp(t, true, { max: 1 })
  await node.call('ADD', 'c1', ipam)
  const [port] = await ports()
  const floating = await cloud.neutron.floatingIps.create(
    {
      floating_network_id: simulator.demo().external_network_id,
      port_id: port!.id,
      fixed_ip_address: port!.fixed_ips[0]!.ip_address,
    },
    limits(),
  )
  await node.call('DEL', 'c1', ipam)
  assert.equal((await node.call('ADD', 'c2', ipam)).exitCode, 0)
  assert.equal((await cloud.neutron.floatingIps.get(floating.id, limits()))!.port_id, null)
})

test('security groups, port security and a chosen address and MAC are the port’s', async t => {
  const { node, ipam, ports, cloud } = await setUp(t, true, {
    securityGroups: ['default'],
    reserve: 1,
    allow: ['address', 'mac'],
  })
  const projectId = await cloud.identity.projectId(limits())
  const [group] = await cloud.neutron.securityGroups.list({ name: 'default', project_id: projectId }, limits())
  const chosen = { runtimeConfig: { ips: ['10.10.10.222/24'], mac: '02:00:00:00:00:22' } }
  const reply = await node.call('ADD', 'c1', ipam, { config: chosen })
  assert.equal(addressOf(reply), '10.10.10.222', reply.stdout)
  const own = (await ports()).find(each => each.description?.includes('container=c1'))!
  assert.equal(own.mac_address, '02:00:00:00:00:22')
  assert.deepEqual(own.security_groups, [group!.id])
  const twin = await node.call('ADD', 'c2', ipam, { config: chosen })
  assert.match(twin.json.msg!, /02:00:00:00:00:22 is in use/)
  await node.call('DEL', 'c1', ipam)
  assert.equal(addressOf(await node.call('ADD', 'c3', ipam, { config: chosen })), '10.10.10.222')
})

test('networks and security groups may be named by their ids in capitals', async t => {
  const { node, ipam, ports, cloud, simulator } = await setUp(t)
  const projectId = await cloud.identity.projectId(limits())
  const [group] = await cloud.neutron.securityGroups.list({ name: 'default', project_id: projectId }, limits())
  const { network_id: network } = simulator.demo()
  const named = { networks: [network.toUpperCase()], securityGroups: [group!.id.toUpperCase()] }
  const reply = await node.call('ADD', 'c1', { ...ipam, neutronConf: { ...ipam.neutronConf, ...named } })
  assert.equal(reply.exitCode, 0, reply.stdout)
  const own = (await ports()).find(each => each.description?.includes('container=c1'))!
  assert.deepEqual([own.network_id, own.security_groups], [network, [group!.id]])
})

test('a port has an address of each IP version that its network has', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const { cloud } = await smallNetwork(t, simulator)
  const dual = await cloud.neutron.networks.create({ name: 'dual' }, limits())
  await cloud.neutron.subnets.create({ network_id: dual.id, cidr: '10.78.0.0/24', ip_version: 4 }, limits())
  await cloud.neutron.subnets.create(
    { network_id: dual.id, cidr: '2001:db8:2::/64', ip_version: 6, ipv6_address_mode: 'dhcpv6-stateful' },
    limits(),
  )
  const conf = { mode: 'separate', node: 'worker-1', networks: ['dual'] }
  const lengths = (reply: Reply) => reply.json.ips!.map(each => each.address.replace(/^.*\//, '/'))
  assert.deepEqual(lengths(await node.call('ADD', 'c1', asAdmin(ipam, simulator, conf))), ['/24', '/64'])
  const six = asAdmin(ipam, simulator, { ...conf, ipVersions: [6] })
  assert.deepEqual(lengths(await node.call('ADD', 'c2', six)), ['/64'])
})

test('on a subnet with SLAAC the address is the port’s own EUI-64', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const { cloud } = await smallNetwork(t, simulator)
  const network = await cloud.neutron.networks.create({ name: 'slaac' }, limits())
  const modes = { ipv6_address_mode: 'slaac', ipv6_ra_mode: 'slaac' }
  await cloud.neutron.subnets.create(
    { network_id: network.id, cidr: '2001:db8:3::/64', ip_version: 6, ...modes },
    limits(),
  )
  const conf = asAdmin(ipam, simulator, { mode: 'separate', node: 'worker-1', networks: ['slaac'] })
  const reply = await node.call('ADD', 'c1', conf)
  assert.equal(reply.exitCode, 0, reply.stdout)
  const [port] = await cloud.neutron.ports.list({ network_id: network.id, device_owner: OWNER }, limits())
  const [a, b, c, d, e, f] = port!.mac_address.split(':').map(part => Number.parseInt(part, 16))
  const eui64 = [((a! ^ 2) << 8) | b!, (c! << 8) | 0xff, 0xfe00 | d!, (e! << 8) | f!]
  assert.equal(addressOf(reply), formatIp(parseIp(`2001:db8:3:0:${eui64.map(part => part.toString(16)).join(':')}`)))
})

test('with binding "host" the ports are bound to the node; in another mode that is refused', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const { cloud } = await smallNetwork(t, simulator)
  const conf = {
    mode: 'separate',
    node: 'worker-1',
    networks: ['small'],
    binding: 'host',
    host: 'compute-7',
    usableAfterMs: 0,
  }
  const reply = await node.call('ADD', 'c1', asAdmin(ipam, simulator, conf))
  assert.equal(reply.exitCode, 0, reply.stdout)
  const [port] = await cloud.neutron.ports.list({ device_owner: OWNER }, limits())
  assert.equal(port!['binding:host_id'], 'compute-7')
  const member = await node.call('ADD', 'c2', { ...ipam, neutronConf: { ...ipam.neutronConf, binding: 'host' } })
  assert.equal(member.json.code, 101, member.stdout)
  assert.equal((await node.call('ADD', 'c3', asAdmin(ipam, simulator, { ...conf, mode: 'mix' }))).json.code, 7)
})

test('CHECK names a port that is gone, and an address that it has lost', async t => {
  const { node, ipam, cloud, ports } = await setUp(t)
  for (const container of ['c1', 'c2']) await node.call('ADD', container, ipam)
  const of = (all: readonly Port[], container: string) =>
    all.find(each => each.description?.includes(`container=${container} `))!
  const [first, second] = [of(await ports(), 'c1'), of(await ports(), 'c2')]
  await cloud.neutron.ports.delete(first.id, limits())
  await cloud.neutron.ports.update(second.id, { fixed_ips: [] }, limits())
  const gone = await node.call('CHECK', 'c1', ipam)
  assert.equal(gone.json.code, 103)
  assert.match(gone.json.msg!, new RegExp(`its port ${first.id} .* does not exist`))
  assert.match((await node.call('CHECK', 'c2', ipam)).json.msg!, /does not have 10\.10\.10\.\d+ any more/)
})

test('mooring drain removes what no pod has, and says what stays', async t => {
  const { node, ipam, ports, directory, simulator } = await setUp(t, true, { reserve: 2 })
  const reply = await node.call('ADD', 'c1', ipam)
  await until(async () => (await ports()).length === 3, 'the reserve')
  await node[Symbol.asyncDispose]()
  // The journal is of this boot, so that the pod lives on.
  const journal = openJournal(directory)
  journal.sql('UPDATE object SET boot_id = ? WHERE boot_id <> ?').run(readBootId(), '')
  journal.sql('UPDATE object_pool SET seen_boot_id = ?').run(readBootId())
  journal[Symbol.dispose]()
  const conflist = join(directory, 'net.conflist')
  const plugin = { type: 'veth-route', ipam: { type: 'tcnp-ipam', ...ipam } }
  writeFileSync(conflist, JSON.stringify({ name: 'cni0', cniVersion: '1.0.0', plugins: [plugin] }))
  const { status, output } = await mooring('drain', '--data-dir', directory, '--conflist', conflist)
  assert.equal(status, 1, output)
  assert.match(output, /ports of network "[^"]+": removed 10\.10\.10\.\d+, 10\.10\.10\.\d+/)
  assert.match(output, new RegExp(`${addressOf(reply)} .* stays: eth0 of container c1 has it`))
  assert.deepEqual(addressesOf(await ports()), [addressOf(reply)])
  assert.ok(simulator.requests('DELETE', /ports/).length === 2)
})

test('the ports of a node that is dead are found by their owner mark', async t => {
  const { node, ipam, cloud, ports } = await setUp(t, true, { reserve: 1, cluster: 'blue' })
  await node.call('ADD', 'c1', ipam)
  await until(async () => (await ports()).length === 2, 'the reserve')
  const find = (cluster: string, name: string) =>
    listOwnedPorts(cloud.neutron, { cluster, node: name }, ['separate'], limits())
  assert.deepEqual(addressesOf(await find('blue', 'worker-1')), addressesOf(await ports()))
  assert.deepEqual(await find('red', 'worker-1'), [])
  assert.deepEqual(await find('blue', 'worker-2'), [])
})

test('without a network in the configuration the error says where to name one', async t => {
  const { node, ipam } = await setUp(t, true, { networks: [] })
  const reply = await node.call('ADD', 'c1', ipam)
  assert.equal(reply.json.code, 7)
  assert.match(reply.json.msg!, /"neutronConf\.networks" names none/)
})

for (const longLived of [true, false])
  test(`a port that an old answer does not show is removed all the same (${longLived ? 'agent' : 'one process per call'})`, async t => {
    const { node, simulator, ipam, ports } = await setUp(t, longLived, { reserve: 0, idleMs: 0, coolDownMs: 0 })
    assert.equal((await node.call('ADD', 'c1', ipam)).exitCode, 0)
    assert.equal((await ports()).length, 1)
    simulator.inject({ act: 'stale', method: 'GET', path: '/ports/', times: 1 })
    assert.equal((await node.call('DEL', 'c1', ipam)).exitCode, 0)
    await until(() => listObjects(node.world.journal).length === 0, 'the release')
    assert.deepEqual(await ports(), [])
  })
