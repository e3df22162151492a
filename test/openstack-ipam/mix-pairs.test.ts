// SPDX-License-Identifier: Apache-2.0

// Mode mix by allowed_address_pairs, and mix_route, against the simulated OpenStack. Needs no root.

import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { listPortAddresses } from '#allocator'
import { parseIp, parsePrefix, prefixContains } from '#base'
import { type CloudSession, cloudFromConf, openCloud } from '#openstack'
import { find, list, type Simulator } from '#simulator'
import { adminCloud, type IpamConfig, limits, mooring, neutronList, portOf, setUp } from './cloud.ts'
import { exhaust, makeSparseSubnet } from './exhaust.ts'
import { addressOf, type Node, nodeWithNic, type Reply, startNode, until } from './node.ts'

const BY_PAIRS = { binding: 'allowed_address_pairs', cluster: 'lab', node: 'worker-1', verifyAfterMs: 200 }

async function setUpPairs(t: TestContext, neutronConf: object = {}, longLived = true) {
  const setup = await setUp(t, longLived, { ...BY_PAIRS, ...neutronConf })
  const { simulator, ipam } = setup
  const cloud = openCloud(cloudFromConf(ipam.openstackConf))
  t.after(() => cloud.close())
  return { ...setup, cloud, ...viewOf(simulator) }
}

function viewOf(simulator: Simulator) {
  const holders = () => list(simulator.state, 'ports').filter(each => each.device_owner === 'mooring:mix')
  return {
    holders,
    held: () => holders().flatMap(each => each.fixed_ips.map(fixed => fixed.ip_address)),
    pairs: () =>
      find(simulator.state, 'ports', portOf(simulator).id)!.allowed_address_pairs.map(each => each.ip_address),
    routes: () => find(simulator.state, 'routers', simulator.demo().router_id)!.routes,
  }
}

const covers = (entries: readonly string[], address: string) =>
  entries.some(each => (each.includes('/') ? prefixContains(parsePrefix(each), parseIp(address)) : each === address))

const addMany = (node: Node, ipam: IpamConfig, count: number) =>
  Promise.all(Array.from({ length: count }, (_, id) => node.call('ADD', `c${id}`, ipam)))

const deleteMany = (node: Node, ipam: IpamConfig, count: number) =>
  Promise.all(Array.from({ length: count }, (_, id) => node.call('DEL', `c${id}`, ipam)))

for (const longLived of [true, false]) {
  const where = longLived ? 'agent' : 'one process per call'

  test(`ADD (${where}) gives an address that a port of ours holds and a pair lets pass; DEL leaves neither`, async t => {
    const { node, simulator, ipam, holders, held, pairs } = await setUpPairs(t, {}, longLived)
    const before = neutronList(simulator)
    const reply = await node.call('ADD', 'c1', ipam)
    assert.equal(reply.exitCode, 0, reply.stdout)
    assert.match(reply.json.ips![0]!.address, /^10\.10\.10\.\d+\/24$/)
    assert.equal(reply.json.ips![0]!.gateway, '10.10.10.1')
    assert.ok(held().includes(addressOf(reply)))
    assert.equal(held().length, 16)
    assert.deepEqual(pairs().length, 1, 'one pair stands for the block')
    assert.ok(covers(pairs(), addressOf(reply)))
    assert.deepEqual(neutronList(simulator), before, 'the node’s port keeps its own addresses only')
    const [holder] = holders()
    assert.deepEqual(
      [holder!.device_id, holder!.description, holder!.name.slice(0, 8)],
      ['worker-1', 'Addresses of pods: cluster lab, node worker-1', 'mooring-'],
    )
    const config = { prevResult: reply.json }
    assert.equal((await node.call('CHECK', 'c1', ipam, { config })).exitCode, 0)
    assert.equal((await node.call('DEL', 'c1', ipam)).exitCode, 0)
    await until(() => held().length + pairs().length === 0, 'the removal')
    assert.equal(holders().length, 1)
  })
}

test('100 ADDs at once make at most 8 calls of Neutron after start-up, in both bindings', async t => {
  for (const binding of ['fixed_ips', 'allowed_address_pairs']) {
    const { node, simulator, ipam, pairs, held } = await setUpPairs(t, { binding, verifyAfterMs: 60_000 })
    const first = await node.call('ADD', 'first', ipam)
    assert.equal(first.exitCode, 0, first.stdout)
    await node.call('DEL', 'first', ipam)
    await until(() => neutronList(simulator).length + held().length + pairs().length === 1, 'the removal')
    await new Promise(resolve => setTimeout(resolve, 100))
    simulator.forgetRequests()
    const replies = await addMany(node, ipam, 100)
    const calls = simulator.requests(undefined, /\/network\//)
    for (const reply of replies) assert.equal(reply.exitCode, 0, reply.stdout)
    assert.equal(new Set(replies.map(addressOf)).size, 100)
    t.diagnostic(`${binding}: ${calls.length} calls`)
    assert.ok(calls.length <= 8, calls.map(({ method, path }) => `${method} ${path.slice(0, 60)}`).join('\n'))
    if (binding === 'fixed_ips') continue
    for (const reply of replies) assert.ok(covers(pairs(), addressOf(reply)), addressOf(reply))
    assert.ok(pairs().length <= 10)
    await deleteMany(node, ipam, 100)
    await until(() => held().length + pairs().length === 0, 'the removal')
  }
})

test('a pair is there before an address is handed out, and an address leaves its port after its pair is gone', async t => {
  const { node, simulator, ipam, held, pairs } = await setUpPairs(t)
  const seen: string[] = []
  const watch = () => {
    const [addresses, entries] = [held(), pairs()]
    if (entries.some(each => !addresses.some(address => covers([each], address)))) seen.push('a pair without addresses')
    const given = listPortAddresses(node.world.journal, viewOf(simulator).holders()[0]?.id ?? '')
    for (const each of given)
      if (['free', 'assigned'].includes(each.state) && !covers(entries, each.address))
        seen.push(`${each.address} without pair`)
  }
  simulator.state.listeners.add(watch)
  for (let round = 0; round < 3; round++) {
    for (const reply of await addMany(node, ipam, 20)) assert.equal(reply.exitCode, 0, reply.stdout)
    watch()
    await deleteMany(node, ipam, 20)
    await until(() => held().length + pairs().length === 0, 'the removal')
  }
  assert.deepEqual(seen, [])
})

test('foreign pairs stay; at the limit an ADD says which, with numbers; a pair that is freed serves the next', async t => {
  const { node, simulator, ipam, pairs, cloud, held } = await setUpPairs(t)
  const portId = portOf(simulator).id
  const theirs = Array.from({ length: 10 }, (_, at) => `192.0.2.${at * 2}`)
  const put = (addresses: string[]) =>
    cloud.neutron.ports.update(
      portId,
      { allowed_address_pairs: addresses.map(ip_address => ({ ip_address })) },
      limits(),
    )
  await put(theirs)
  const refused = await node.call('ADD', 'c1', ipam)
  assert.equal(refused.json.code, 102, refused.stdout)
  assert.match(refused.json.msg!, /address pairs of port .*: the limit is 10, 0 are ours and 10 are others’/)
  assert.match(refused.json.details!, /max_allowed_address_pair.*; the next ADD asks again$/)
  assert.deepEqual([pairs().sort(), held()], [theirs.sort(), []], 'refused before anything was made')
  await put(theirs.slice(1))
  const served = await node.call('ADD', 'c2', ipam)
  assert.equal(served.exitCode, 0, served.stdout)
  await node.call('DEL', 'c2', ipam)
  await until(() => held().length === 0, 'the removal')
  assert.deepEqual(pairs().sort(), theirs.slice(1).sort())
})

test('eleven ADDs at once where ten pairs fit: ten are served, one is told the numbers, and served when one is given back', async t => {
  const { node, ipam, cloud, held, simulator } = await setUpPairs(t)
  const network = await cloud.neutron.networks.create({ name: 'sparse' }, limits())
  const { hostPort } = await makeSparseSubnet(cloud, network.id, '10.20.0')
  const conf = { ...ipam, neutronConf: { ...ipam.neutronConf, networks: ['sparse'], hostPort, blockSize: 1 } }
  const message = /address pairs of port .*: the limit is 10, 10 are ours and 0 are others’/
  await exhaust(node, conf, { fits: 10, message })
  const pairs = () => find(simulator.state, 'ports', hostPort)!.allowed_address_pairs
  await until(() => held().length + pairs().length === 0, 'the removal')
})

test('a holder whose creation was not answered is found again, and there is never a second', async t => {
  const { node, ipam, simulator, holders, restart } = await setUpPairs(t)
  simulator.inject({ act: 'cut-after', method: 'POST', path: '/ports' })
  assert.equal((await node.call('ADD', 'c1', ipam)).exitCode, 0)
  const next = await restart()
  next.world.journal.sql('DELETE FROM port_lookup').run()
  assert.equal((await next.call('ADD', 'c2', ipam)).exitCode, 0)
  assert.equal(holders().length, 1)
})

test('an answer lost between holder and pair leaves nothing that is given without a pair', async t => {
  const { node, ipam, simulator, pairs, held } = await setUpPairs(t)
  for (const path of ['/ports/', '/ports/'])
    simulator.inject({ act: 'answer-after', method: 'PUT', path, status: 502, times: 1, skip: 1 })
  const replies = await addMany(node, ipam, 20)
  for (const reply of replies) {
    assert.equal(reply.exitCode, 0, reply.stdout)
    assert.ok(covers(pairs(), addressOf(reply)))
  }
  await deleteMany(node, ipam, 20)
  await until(() => held().length + pairs().length === 0, 'the removal', 20_000)
})

test('CHECK notices a pair that somebody has removed, and the agent puts it back', async t => {
  const { node, simulator, ipam, cloud, pairs } = await setUpPairs(t, { verifyAfterMs: 2_000 })
  await node.call('ADD', 'c1', ipam)
  const before = pairs()
  await cloud.neutron.ports.update(portOf(simulator).id, { allowed_address_pairs: [] }, limits())
  const check = await node.call('CHECK', 'c1', ipam)
  assert.equal(check.json.code, 103)
  assert.match(check.json.msg!, /has no address pair for 10\.10\.10\./)
  await until(() => pairs().join() === before.join(), 'the repair')
  assert.ok(node.warnings.some(text => /Somebody else changes the address pairs .*put in again/.test(text)))
})

test('"maxAddresses" caps what a node takes, and its error has the numbers', async t => {
  const { node, ipam, simulator } = await setUpPairs(t, { binding: 'fixed_ips', maxAddresses: 3, reserve: 2 })
  for (const id of ['a', 'b', 'c']) assert.equal((await node.call('ADD', id, ipam)).exitCode, 0)
  const refused = await node.call('ADD', 'd', ipam)
  assert.equal(refused.json.code, 102, refused.stdout)
  assert.match(refused.json.msg!, /it may have 3 of ours, and has 3 in use, 0 on their way out, 0 free/)
  assert.match(refused.json.details!, /; the next ADD asks again$/)
  assert.equal(neutronList(simulator).length, 4)
  await node.call('DEL', 'a', ipam)
  await until(async () => (await node.call('ADD', 'e', ipam)).exitCode === 0, 'the next is served')
})

test('a quota without room for the port that holds the addresses is error 102 with its numbers', async t => {
  const { node, ipam, simulator, cloud, holders } = await setUpPairs(t)
  const { project_id } = find(simulator.state, 'ports', portOf(simulator).id)!
  await adminCloud(t, simulator).neutron.quotas.set(project_id, { port: 1 }, limits())
  const { port } = await cloud.neutron.quotas.details(project_id, limits())
  const { json } = await node.call('ADD', 'c1', ipam)
  assert.equal(json.code, 102)
  assert.match(json.msg!, new RegExp(`OverQuota.*; quota of ports: ${port!.used} of 1 used$`))
  assert.match(json.details!, /larger quota of the project; the next ADD asks again$/)
  assert.deepEqual(holders(), [])
  await adminCloud(t, simulator).neutron.quotas.set(project_id, { port: port!.used + 1 }, limits())
  assert.equal((await node.call('ADD', 'c1', ipam)).exitCode, 0)
})

/** A network of its own for pods, which no router knows. */
async function podNetwork(cloud: CloudSession, cidr = '10.20.0.0/24') {
  const network = await cloud.neutron.networks.create({ name: 'pods' }, limits())
  return await cloud.neutron.subnets.create({ network_id: network.id, name: 'pods-4', cidr, ip_version: 4 }, limits())
}

test('mix_route gives addresses of another subnet: held, let pass, and routed to the node by one route per block', async t => {
  const { node, ipam, cloud, routes, pairs, held, simulator } = await setUpPairs(t, {
    mode: 'mix_route',
    podSubnets: ['pods-4'],
  })
  await podNetwork(cloud)
  const replies = await addMany(node, ipam, 20)
  for (const reply of replies) {
    assert.equal(reply.exitCode, 0, reply.stdout)
    assert.match(addressOf(reply), /^10\.20\.0\.\d+$/)
    assert.ok(covers(pairs(), addressOf(reply)))
    assert.ok(
      covers(
        routes().map(each => each.destination),
        addressOf(reply),
      ),
    )
  }
  const [own] = portOf(simulator).ips
  assert.ok(routes().length <= 2)
  for (const route of routes()) assert.equal(route.nexthop, own)
  const config = { prevResult: replies[0]!.json }
  assert.equal((await node.call('CHECK', 'c0', ipam, { config })).exitCode, 0)
  await cloud.neutron.routers.removeExtraRoutes(simulator.demo().router_id, routes(), limits())
  assert.match((await node.call('CHECK', 'c0', ipam)).json.msg!, /router .* has no route for 10\.20\.0\./)
  await deleteMany(node, ipam, 20)
  await until(() => routes().length + pairs().length + held().length === 0, 'the removal')
})

test('mix_route without "podSubnets" is mix: an address of the node’s own subnet needs no route', async t => {
  const { node, ipam, routes, pairs } = await setUpPairs(t, { mode: 'mix_route', binding: 'fixed_ips' })
  const reply = await node.call('ADD', 'c1', ipam)
  assert.equal(reply.exitCode, 0, reply.stdout)
  assert.deepEqual([routes(), pairs()], [[], []])
})

test('mix_route: foreign routes stay; at the limit an ADD says which, with numbers; a route that is freed serves the next', async t => {
  const { node, ipam, cloud, routes, held, simulator } = await setUpPairs(t, {
    mode: 'mix_route',
    podSubnets: ['10.20.0.0/24'],
  })
  await podNetwork(cloud)
  const router = simulator.demo().router_id
  const theirs = Array.from({ length: 30 }, (_, at) => ({ destination: `10.99.${at}.0/24`, nexthop: '10.10.10.200' }))
  await cloud.neutron.routers.addExtraRoutes(router, theirs, limits())
  const refused = await node.call('ADD', 'c1', ipam)
  assert.equal(refused.json.code, 102, refused.stdout)
  assert.match(refused.json.msg!, /routes of router .*: the limit is 30, 0 are ours and 30 are others’/)
  assert.deepEqual(held(), [])
  await cloud.neutron.routers.removeExtraRoutes(router, theirs.slice(0, 1), limits())
  const served = await node.call('ADD', 'c2', ipam)
  assert.equal(served.exitCode, 0, served.stdout)
  assert.equal(routes().length, 30)
  await node.call('DEL', 'c2', ipam)
  await until(() => routes().length === 29 && held().length === 0, 'the removal')
})

test('mix_route: five ADDs at once where four routes fit: four are served, one is told, and served when one is given back', async t => {
  const { node, ipam, cloud, routes, held, simulator } = await setUpPairs(t, {
    mode: 'mix_route',
    podSubnets: ['10.20.0.0/24'],
    blockSize: 1,
  })
  const { id } = await cloud.neutron.networks.create({ name: 'pods' }, limits())
  await makeSparseSubnet(cloud, id, '10.20.0')
  const theirs = Array.from({ length: 26 }, (_, at) => ({ destination: `10.99.${at}.0/24`, nexthop: '10.10.10.200' }))
  await cloud.neutron.routers.addExtraRoutes(simulator.demo().router_id, theirs, limits())
  await exhaust(node, ipam, { fits: 4, message: /routes of router .*: the limit is 30, 4 are ours and 26 are others’/ })
  await until(() => routes().length === 26 && held().length === 0, 'the removal')
})

test('mix_route finds the subnet by its CIDR, also where that is the one of an address in it', async t => {
  const { node, ipam, cloud } = await setUpPairs(t, { mode: 'mix_route', podSubnets: ['10.20.0.7/24'] })
  await podNetwork(cloud)
  assert.match(addressOf(await node.call('ADD', 'c1', ipam)), /^10\.20\.0\.\d+$/)
})

for (const [what, neutronConf, message] of [
  [
    'the host’s own subnet',
    { podSubnets: ['10.10.10.0/24'] },
    /the host’s port is in it, and its addresses need no route/,
  ],
  ['an unknown subnet', { podSubnets: ['nowhere'] }, /Cannot find subnet "nowhere" of "neutronConf.podSubnets"/],
  ['an unknown router', { podSubnets: ['pods-4'], router: 'r9' }, /Cannot find router "r9" of "neutronConf.router"/],
] as const)
  test(`mix_route refuses ${what} by name`, async t => {
    const { node, ipam, cloud } = await setUpPairs(t, { mode: 'mix_route', ...neutronConf })
    await podNetwork(cloud)
    const refused = await node.call('ADD', 'c1', ipam)
    assert.equal(refused.json.code, 7, refused.stdout)
    assert.match(refused.json.msg!, message)
  })

test('a new node beside an old one: two nodes of one network have holders, pairs and routes of their own', async t => {
  const { node, ipam, simulator, directory, holders, routes, cloud } = await setUpPairs(t, {
    mode: 'mix_route',
    podSubnets: ['pods-4'],
  })
  await podNetwork(cloud)
  const [other] = simulator.demo().servers['worker-2']!.ports
  await using second = startNode({
    directory: `${directory}/second`,
    host: nodeWithNic(`${other!.ips[0]}/24`, other!.mac),
    longLived: true,
  })
  const theirs = { ...ipam, neutronConf: { ...ipam.neutronConf, node: 'worker-2' } }
  const [one, two] = await Promise.all([node.call('ADD', 'a', ipam), second.call('ADD', 'b', theirs)])
  assert.deepEqual([one!.exitCode, two!.exitCode], [0, 0], one!.stdout + two!.stdout)
  assert.equal(holders().length, 2)
  const nexthops = routes().map(each => each.nexthop)
  assert.deepEqual(nexthops.sort(), [portOf(simulator).ips[0], other!.ips[0]].sort())
  await second.call('DEL', 'b', theirs)
  await until(() => routes().length === 1, 'the removal')
})

test('a process per call: 8 ADDs at once by 8 processes share holder, block and pair; 8 DELs leave nothing', async t => {
  const { ipam, simulator, directory, holders, held, pairs } = await setUpPairs(t, {}, false)
  const port = portOf(simulator)
  const host = nodeWithNic(`${port.ips[0]}/24`, port.mac)
  const alone = async (command: string, container: string): Promise<Reply> => {
    await using node = startNode({ directory, host, longLived: false })
    return await node.call(command, container, ipam)
  }
  const many = Array.from({ length: 8 }, (_, id) => `c${id}`)
  const replies = await Promise.all(many.map(id => alone('ADD', id)))
  for (const reply of replies) assert.equal(reply.exitCode, 0, reply.stdout)
  assert.equal(new Set(replies.map(addressOf)).size, 8)
  for (const reply of replies) assert.ok(covers(pairs(), addressOf(reply)))
  assert.deepEqual([holders().length, held().length, pairs().length], [1, 16, 1])
  for (const reply of await Promise.all(many.map(id => alone('DEL', id)))) assert.equal(reply.exitCode, 0)
  await until(() => held().length + pairs().length === 0, 'the removal')
})

test('addresses of both IP versions are held and let pass', async t => {
  const { node, ipam, cloud, simulator, held, pairs } = await setUpPairs(t)
  const dual = await cloud.neutron.networks.create({ name: 'dual' }, limits())
  const four = { network_id: dual.id, cidr: '10.78.0.0/24', ip_version: 4 } as const
  const six = { network_id: dual.id, cidr: '2001:db8:2::/64', ip_version: 6 } as const
  const subnets = [
    await cloud.neutron.subnets.create(four, limits()),
    await cloud.neutron.subnets.create(six, limits()),
  ]
  const fixed_ips = subnets.map(each => ({ subnet_id: each.id }))
  const hostPort = (await cloud.neutron.ports.create({ network_id: dual.id, fixed_ips }, limits())).id
  const conf = { ...ipam, neutronConf: { ...ipam.neutronConf, networks: ['dual'], hostPort } }
  const reply = await node.call('ADD', 'c1', conf)
  assert.equal(reply.exitCode, 0, reply.stdout)
  const hostPairs = () => find(simulator.state, 'ports', hostPort)!.allowed_address_pairs.map(each => each.ip_address)
  for (const { address } of reply.json.ips!) assert.ok(covers(hostPairs(), address.replace(/\/\d+$/, '')), address)
  assert.deepEqual(
    reply.json.ips!.map(each => each.address.replace(/^.*\//, '/')),
    ['/24', '/64'],
  )
  assert.deepEqual([held().length, hostPairs().length, pairs().length], [32, 2, 0])
  await node.call('DEL', 'c1', conf)
  await until(() => held().length + hostPairs().length === 0, 'the removal')
})

test('a journal that is lost: what the port of ours holds waits in quarantine until an operator decides', async t => {
  const { node: first, ipam, directory, restart, held, holders } = await setUpPairs(t, { blockSize: 1 })
  const addresses = [addressOf(await first.call('ADD', 'c1', ipam)), addressOf(await first.call('ADD', 'c2', ipam))]
  await first[Symbol.asyncDispose]()
  for (const rest of ['', '-wal', '-shm']) rmSync(join(directory, `journal.db${rest}`), { force: true })
  const node = await restart()
  assert.ok(!addresses.includes(addressOf(await node.call('ADD', 'c3', ipam))))
  const quarantined = () => {
    const all = listPortAddresses(node.world.journal, holders()[0]!.id).filter(each => each.state === 'quarantined')
    return all.map(({ address }) => address).sort()
  }
  assert.deepEqual(quarantined(), addresses.toSorted())
  const conflist = join(directory, 'pairs.conflist')
  const plugins = [{ type: 'veth-route', ipam: { type: 'tcnp-ipam', ...ipam } }]
  writeFileSync(conflist, JSON.stringify({ name: 'net', cniVersion: '1.0.0', plugins }))
  const { status, output } = await mooring(
    ...['ip', 'release', addresses[0]!, '--data-dir', directory, '--conflist', conflist],
  )
  assert.equal(status, 0, output)
  await until(() => !held().includes(addresses[0]!), 'the removal')
  assert.ok(held().includes(addresses[1]!))
  assert.deepEqual(quarantined(), [addresses[1]])
})

test('drain takes away pairs, routes and the port that held the addresses', async t => {
  const { node, ipam, cloud, directory, holders, pairs, routes } = await setUpPairs(t, {
    mode: 'mix_route',
    podSubnets: ['pods-4'],
    reserve: 2,
  })
  await podNetwork(cloud)
  assert.equal((await node.call('ADD', 'c1', ipam)).exitCode, 0)
  await node.call('DEL', 'c1', ipam)
  await until(
    () => listPortAddresses(node.world.journal, holders()[0]!.id).every(each => each.state === 'free'),
    'a reserve',
  )
  assert.deepEqual([holders().length, pairs().length, routes().length], [1, 1, 1])
  await node[Symbol.asyncDispose]()
  const conflist = join(directory, 'net.conflist')
  writeFileSync(
    conflist,
    JSON.stringify({ name: 'cni0', cniVersion: '1.0.0', plugins: [{ type: 'veth-route', ipam }] }),
  )
  const { status, output } = await mooring('drain', '--data-dir', directory, '--conflist', conflist)
  assert.equal(status, 0, output)
  assert.deepEqual([holders(), pairs(), routes()], [[], [], []])
})
