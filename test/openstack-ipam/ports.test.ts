// SPDX-License-Identifier: Apache-2.0

// Goal: `mooring ports` says of every port of a server whose it is, and what Neutron, Nova and the journal disagree about,
// with an agent's journal and without any. Needs no root.

import assert from 'node:assert/strict'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openJournal, putAttachment } from '#allocator'
import { readBootId } from '#host'
import { formatPorts, hasPortFaults, listLeases, type PortsOptions, type PortsReport, readPorts } from '#inspect'
import { cloudFromConf, openCloud } from '#openstack'
import { limits, mooring, portOf, setUp } from './cloud.ts'
import { addressOf, nodeDirectory, until } from './node.ts'
import { serverNode } from './server-node.ts'

/** A node with one pod and a reserve of one; `ports` runs the command for it. */
async function nodeWithPod(t: TestContext, neutronConf: object = {}) {
  const { node, simulator, directory, ipam } = await setUp(t, true, { reserve: 1, ...neutronConf })
  const port = portOf(simulator)
  const writeConflist = (name: string, neutronConf: object) => {
    const plugin = { type: 'veth-route', ipam: { type: 'tcnp-ipam', ...ipam, neutronConf } }
    const list = { name: 'cni0', cniVersion: '1.0.0', plugins: [plugin] }
    writeFileSync(join(directory, name), JSON.stringify(list))
    return join(directory, name)
  }
  const byNic = writeConflist('nic.conflist', ipam.neutronConf)
  // The test's own machine is no server: the port is named.
  const conflist = writeConflist('port.conflist', { ...ipam.neutronConf, hostPort: port.id })
  const reply = await node.call('ADD', 'c1', ipam)
  await until(() => listLeases(node.world.journal).some(({ state }) => state === 'free'), 'a reserve')
  putAttachment(node.world.journal, {
    ...{ network: 'cni0', containerId: 'c1', ifName: 'eth0', type: 'veth-route', state: 'ready', traces: '{}' },
    ...{ bootId: readBootId(), netns: '/run/netns/c1', netnsDevice: 1, netnsInode: 2 },
    config: JSON.stringify({ path: [], args: 'K8S_POD_NAMESPACE=demo;K8S_POD_NAME=redis-0', config: {} }),
  })
  const { username, password, project } = simulator.accounts.demo
  const cloud = openCloud(cloudFromConf({ username, password, project, domain: 'default', authUrl: simulator.authUrl }))
  t.after(() => cloud.close())
  const ports = (...options: string[]) => mooring('ports', '--data-dir', directory, '--conflist', conflist, ...options)
  // In this process: one of its own costs most of a second. Here the node's NIC leads to its server.
  const read = async (more: Partial<PortsOptions> = {}): Promise<PortsReport> => {
    using journal = openJournal(directory)
    const options = { conflist: [byNic], confDir: '/nowhere', addresses: [], withoutPrimary: false, ...more }
    return (await readPorts({ host: node.world.host, journal }, options, limits())).report
  }
  // An agent would put back what a human takes away.
  const endAgent = () => node[Symbol.asyncDispose]()
  const ip = (...more: string[]) => mooring('ip', ...more, '--data-dir', directory, '--conflist', conflist)
  return { endAgent, node, ipam, ip, cloud, simulator, directory, port, pod: addressOf(reply), ports, read, password }
}

test('ports: shows whose the addresses of this node are, beside a running agent', async t => {
  const { simulator, port, pod, ports, read, password } = await nodeWithPod(t)
  const reserve = portOf(simulator).ips.find(address => address !== pod && !port.ips.includes(address))!
  const { status, output } = await ports()
  assert.equal(status, 0, output)
  assert.match(output, /^server worker-1 {2}[0-9a-f-]{36} {2}ACTIVE {2}cloud /)
  assert.match(
    output,
    new RegExp(`^ {2}port ${port.id} {2}ACTIVE {2}${port.mac} {2}network workers {2}compute:nova`, 'm'),
  )
  assert.match(output, new RegExp(`^ {4}${port.ips[0]} +not of Mooring$`, 'm'))
  assert.match(output, new RegExp(`^ {4}${pod} +eth0 of demo/redis-0 in network cni0$`, 'm'))
  assert.match(output, new RegExp(`^ {4}${reserve} +in the reserve$`, 'm'))
  assert.ok(!output.includes(password))

  const report = await read()
  const { servers, others, faults } = report
  assert.equal(hasPortFaults(report), false)
  assert.deepEqual([servers.length, others, faults], [1, [], []])
  assert.deepEqual(
    servers[0]!.ports[0]!.addresses.map(({ address, use, holder }) => [address, use, holder?.pod ?? null]),
    [
      [port.ips[0], 'primary', null],
      [pod, 'assigned', 'demo/redis-0'],
      [reserve, 'reserve', null],
    ].sort((a, b) => String(a[0]).localeCompare(String(b[0]), undefined, { numeric: true })),
  )
})

test('ports: marks what Neutron and the journal disagree about, and exits with 1', async t => {
  const { endAgent, cloud, port, pod, ports, read, directory } = await nodeWithPod(t)
  await endAgent()
  const now = (await cloud.neutron.ports.get(port.id, limits()))!
  // A human takes the pod's address off, and puts another one on.
  const [subnet_id] = now.fixed_ips.map(each => each.subnet_id)
  const fixed_ips = [...now.fixed_ips.filter(each => each.ip_address !== pod), { subnet_id, ip_address: '10.10.10.77' }]
  await cloud.neutron.ports.update(port.id, { fixed_ips } as never, limits())
  const { status, output } = await ports()
  assert.equal(status, 1)
  assert.match(
    output,
    new RegExp(`^! ${pod} is recorded for eth0 of demo/redis-0 in network cni0, and the port does not`, 'm'),
  )
  assert.match(output, /^! 10\.10\.10\.77 is on the port, and the journal does not know it$/m)

  using journal = openJournal(directory)
  journal.sql("UPDATE port_address SET port_id = 'gone'").run()
  journal.sql("UPDATE port SET port_id = 'gone'").run()
  assert.match((await read()).faults[0]!, /^Neutron does not show port gone, of which the journal knows 2 addr/)
})

test('ports --server: finds servers by fixed and floating addresses, several at once, and leaves out their own', async t => {
  const { cloud, simulator, port, pod, ports, read } = await nodeWithPod(t)
  const other = simulator.demo().servers['worker-2']!.ports[0]!
  const floating = await cloud.neutron.floatingIps.create(
    { floating_network_id: simulator.demo().external_network_id, port_id: other.id },
    limits(),
  )
  const addresses = [port.ips[0]!, floating.floating_ip_address]
  const { servers } = await read({ addresses })
  assert.deepEqual(
    servers.map(({ name, ports }) => [name, ports.map(({ id }) => id)]),
    [
      ['worker-1', [port.id]],
      ['worker-2', [other.id]],
    ],
  )
  assert.equal(servers[1]!.ports[0]!.addresses[0]!.floatingIp, floating.floating_ip_address)
  const rest = (await read({ addresses, withoutPrimary: true })).servers
  assert.ok(rest[0]!.ports[0]!.addresses.some(({ address }) => address === pod))
  assert.ok(!rest[0]!.ports[0]!.addresses.some(({ address }) => address === port.ips[0]))
  assert.deepEqual(rest[1]!.ports, [])

  const { status, output } = await ports('--server', '10.10.10.1', '--server', '10.10.10.250')
  assert.equal(status, 1)
  assert.match(output, /^! .* with 10\.10\.10\.1: port \S+ \(network:router_interface\) has it, which is no server's$/m)
  assert.match(output, /^! Cannot find the server with 10\.10\.10\.250: no port has it$/m)
})

test('ports: a port per pod is with those that no server has; one that the journal does not know is marked', async t => {
  const { endAgent, cloud, pod, read, directory } = await nodeWithPod(t, { mode: 'separate', node: 'worker-1' })
  await endAgent()
  const { servers, others, faults } = await read()
  assert.deepEqual([servers.length, others.length, faults], [1, 2, []])
  assert.deepEqual(
    others.flatMap(each => [...each.faults, each.isMarked]),
    [true, true],
  )
  const [own, spare] = others.toSorted((a, b) => a.addresses[0]!.use.localeCompare(b.addresses[0]!.use))
  assert.deepEqual(
    [own!.addresses[0]!.address, own!.addresses[0]!.holder!.pod, spare!.addresses[0]!.use],
    [pod, 'demo/redis-0', 'reserve'],
  )
  using journal = openJournal(directory)
  journal.sql("DELETE FROM object WHERE state = 'free'").run()
  await cloud.neutron.ports.delete(own!.id, limits())
  const after = await read()
  const page = formatPorts(after).join('\n')
  assert.match(page, /^ {4}mooring cluster=mooring node=worker-1$/m)
  assert.deepEqual(after.others[0]!.faults, ["it has Mooring's mark, and the journal of this node does not know it"])
  assert.deepEqual(after.faults, [
    `Neutron does not show port ${own!.id}, which is recorded for eth0 of demo/redis-0 in network cni0`,
  ])
})

test('ports: a port that a pod chose is its own, and no reserve is made of such', async t => {
  const { cloud, simulator, node, ipam, read, endAgent, ip } = await nodeWithPod(t, {
    ...{ mode: 'separate', node: 'worker-1', reserve: 1, allow: ['port'] },
  })
  const mine = await cloud.neutron.ports.create({ network_id: simulator.demo().network_id, name: 'mine' }, limits())
  const chosen = await node.call('ADD', 'c2', ipam, { args: 'NEUTRON_PORT=mine' })
  assert.equal(addressOf(chosen), mine.fixed_ips[0]!.ip_address)
  await endAgent()
  const { others, faults } = await read()
  const found = others.find(({ id }) => id === mine.id)!
  assert.deepEqual([faults, found.faults, found.addresses[0]!.holder!.containerId], [[], [], 'c2'])
  const reserved = await ip('reserve', '2')
  assert.equal(reserved.status, 0, reserved.output)
  assert.doesNotMatch(reserved.output, /ports that pods choose/)
})

test('ports: addresses of pods that pass by pairs are on the port that holds them, and a pair that is gone is marked', async t => {
  const { endAgent, cloud, port, pod, read } = await nodeWithPod(t, { binding: 'allowed_address_pairs' })
  await endAgent()
  const { servers, others, faults } = await read()
  assert.deepEqual([faults, others.flatMap(each => each.faults), servers[0]!.ports[0]!.faults], [[], [], []])
  assert.deepEqual(others.length, 1)
  assert.equal(others[0]!.addresses.find(({ address }) => address === pod)!.holder!.pod, 'demo/redis-0')
  const [pair] = servers[0]!.ports[0]!.allowedAddressPairs
  await cloud.neutron.ports.update(port.id, { allowed_address_pairs: [] }, limits())
  assert.deepEqual((await read()).servers[0]!.ports[0]!.faults, [
    `${pair!.ip_address} is recorded as an allowed pair, and the port does not have it`,
  ])
})

test('ports --without-primary: leaves of a server with a NIC per pod the NICs of pods and reserve', async t => {
  const it = await serverNode(t, { reserve: 1 })
  const reply = await it.node.call('ADD', 'c1', it.ipam)
  await until(() => listLeases(it.node.world.journal).some(({ state }) => state === 'free'), 'a reserve')
  const conflist = join(it.node.world.dataDir, 'eni.conf')
  writeFileSync(conflist, JSON.stringify({ type: 'host-device', ipam: { type: 'tcnp-ipam', ...it.ipam } }))
  const options = { conflist: [conflist], confDir: '/nowhere', addresses: [], withoutPrimary: true }
  const { report } = await readPorts(it.node.world, options, limits())
  assert.deepEqual(report.servers[0]!.ports.map(({ addresses, faults }) => [addresses[0]!.use, faults]).sort(), [
    ['assigned', []],
    ['reserve', []],
  ])
  assert.ok(report.servers[0]!.ports.some(({ addresses }) => addresses[0]!.address === addressOf(reply)))
  assert.deepEqual([report.others, report.faults], [[], []])
})

test('ports: shows what Neutron has where Nova does not answer', async t => {
  const { simulator, port, read } = await nodeWithPod(t)
  simulator.inject({ act: 'answer', status: 403, path: '/servers/', times: 0 })
  const report = await read()
  assert.equal(hasPortFaults(report), true)
  assert.equal(report.servers[0]!.ports[0]!.id, port.id)
  assert.match(report.servers[0]!.faults[0]!, /^Cannot get server \S+: .*403/)
})

test('ports: a cloud that cannot be asked is told, and hides nothing of the others', async t => {
  const { ipam, directory, port, read } = await nodeWithPod(t)
  const openstackConf = { ...ipam.openstackConf, authUrl: 'http://127.0.0.1:1/v3' }
  const plugin = { type: 'veth-route', ipam: { type: 'tcnp-ipam', ...ipam, openstackConf } }
  const away = join(directory, 'away.conflist')
  writeFileSync(away, JSON.stringify({ name: 'away', cniVersion: '1.0.0', plugins: [plugin] }))
  const report = await read({ conflist: [away, join(directory, 'nic.conflist')] })
  assert.equal(report.servers[0]!.ports[0]!.id, port.id)
  assert.match(report.faults.join('\n'), /^[^\n]*http:\/\/127\.0\.0\.1:1\/v3[^\n]*$/)
  await assert.rejects(read({ conflist: [away] }), /127\.0\.0\.1:1/)
})

test('ports: says what it lacks, and makes no journal', async t => {
  const directory = nodeDirectory(t)
  const { status, output } = await mooring('ports', '--data-dir', directory, '--conf-dir', directory)
  assert.equal(status, 1)
  assert.match(
    output,
    /^mooring: Cannot look at ports: no network in \S+ takes its addresses from tcnp-ipam\. Name a cloud/,
  )
  assert.deepEqual(readdirSync(directory), [])
  const wrong = await mooring('ports', '--data-dir', directory, '--server', '10.0.0.300')
  assert.match(wrong.output, /^mooring: Cannot parse IP address "10\.0\.0\.300"/)
})
