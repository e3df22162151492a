// SPDX-License-Identifier: Apache-2.0

// tcnp-ipam in mode mix against the simulated OpenStack. Needs no root.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { listAssignedAddresses, listPortAddresses, listQuarantined } from '#allocator'
import { deadlineIn } from '#base'
import { type CloudSession, cloudFromConf, openCloud } from '#openstack'
import { type Simulator, startSimulator } from '#simulator'
import { addressOf, filesWith, type Node, nodeDirectory, nodeWithNic, type Reply, startNode, until } from './node.ts'

type IpamConfig = {
  openstackConf: { username: string; password: string; project: string; domain: string; authUrl: string }
  neutronConf: object
  routes: object[]
}
type Setup = {
  node: Node
  simulator: Simulator
  directory: string
  ipam: IpamConfig
  restart(): Promise<Node>
}

const fast = { usableAfterMs: 0, coolDownMs: 0 }

async function setUp(t: TestContext, longLived = true, neutronConf: object = {}): Promise<Setup> {
  const simulator = await startSimulator()
  t.after(() => simulator.close())
  const directory = nodeDirectory(t)
  const [port] = simulator.demo().servers['worker-1']!.ports
  const host = nodeWithNic(`${port!.ips[0]}/24`, port!.mac)
  let node = startNode({ directory, host, longLived })
  t.after(() => node[Symbol.asyncDispose]())
  const { username, password, project } = simulator.accounts.demo
  const ipam = {
    openstackConf: { username, password, project, domain: 'default', authUrl: simulator.authUrl },
    neutronConf: { networks: [simulator.demo().network_id], mode: 'mix', ...fast, reserve: 0, ...neutronConf },
    routes: [{ dst: '0.0.0.0/0' }],
  }
  const restart = async () => {
    await node[Symbol.asyncDispose]()
    node = startNode({ directory, host, longLived })
    return node
  }
  return { node, simulator, directory, ipam, restart }
}

const portOf = (simulator: Simulator) => simulator.demo().servers['worker-1']!.ports[0]!
const neutronList = (simulator: Simulator): string[] => [...portOf(simulator).ips].sort()
const isPut = ({ method, path }: { method: string; path: string }) => method === 'PUT' && path.includes('/ports/')

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

test('"cloud" names a cloud of clouds.yaml, and a restart finishes a release by it', async t => {
  const { node, simulator, ipam, directory, restart } = await setUp(t)
  const { username, password, project } = simulator.accounts.demo
  const file = join(directory, 'clouds.yaml')
  const auth = {
    auth_url: simulator.authUrl,
    username,
    password,
    project_name: project,
    user_domain_id: 'default',
    project_domain_id: 'default',
  }
  writeFileSync(file, JSON.stringify({ clouds: { lab: { auth } } }), { mode: 0o600 })
  process.env['OS_CLIENT_CONFIG_FILE'] = file
  t.after(() => delete process.env['OS_CLIENT_CONFIG_FILE'])
  const { openstackConf: _, ...rest } = ipam
  const named = { ...rest, cloud: 'lab' }
  const before = neutronList(simulator)
  assert.equal((await node.call('ADD', 'c1', named)).exitCode, 0)
  simulator.inject({ method: 'PUT', act: 'answer', status: 503 })
  await node.call('DEL', 'c1', named)
  await restart()
  await until(() => neutronList(simulator).length === before.length, 'the removal')
})

test('the password of openstackConf is in no output, journal, token file or warning', async t => {
  const { node, simulator, ipam, directory } = await setUp(t)
  const { password } = simulator.accounts.demo
  const outputs: string[] = []
  const call = async (...args: Parameters<Node['call']>) => outputs.push((await node.call(...args)).stdout)
  await call('ADD', 'c1', ipam)
  await call('CHECK', 'c1', ipam)
  await call('STATUS', '', ipam)
  await call('DEL', 'c1', ipam)
  await call('ADD', 'c2', { ...ipam, openstackConf: { ...ipam.openstackConf, project: 'wrong' } })
  await call('ADD', 'c3', { ...ipam, openstackConf: { ...ipam.openstackConf, Password: [password] } })
  for (const text of [...outputs, ...node.warnings]) assert.ok(!text.includes(password), text)
  assert.deepEqual(filesWith(directory, password), [])
  assert.ok(node.warnings.some(each => each.includes('clouds.yaml')))
})

test('keys may be written in any case', async t => {
  const { node, ipam } = await setUp(t)
  const upper = (value: unknown): unknown =>
    value !== null && typeof value === 'object' && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).map(([key, each]) => [key.toUpperCase(), upper(each)]))
      : value
  assert.equal((await node.call('ADD', 'c1', upper(ipam) as object)).exitCode, 0)
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

test('STATUS says 50 while Keystone cannot be reached, and answers at once the second time', async t => {
  const { node, simulator, ipam } = await setUp(t)
  await simulator.close()
  const first = await node.call('STATUS', '', ipam)
  assert.equal(first.json.code, 50)
  const begin = performance.now()
  assert.equal((await node.call('STATUS', '', ipam)).json.code, 50)
  assert.ok(performance.now() - begin < 50)
})

test('STATUS of a node that was ready stays 0 while the cloud is away', async t => {
  const { node, simulator, ipam } = await setUp(t)
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
  await simulator.close()
  // What was found is asked for again after ten seconds, in the background.
  const now = performance.now.bind(performance)
  t.mock.method(performance, 'now', () => now() + 11_000)
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
  await new Promise(resolve => setTimeout(resolve, 1_000))
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
})

test('DEL answers 0 while the cloud is away, and the release is done when it is back', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const before = neutronList(simulator).length
  await node.call('ADD', 'c1', ipam)
  simulator.inject({ act: 'answer', status: 503, times: 12 })
  const begin = performance.now()
  assert.equal((await node.call('DEL', 'c1', ipam)).exitCode, 0)
  assert.ok(performance.now() - begin < 200)
  await until(() => neutronList(simulator).length === before, 'the removal', 20_000)
})

const limits = () => ({ deadline: deadlineIn(5_000) })

/** A network of its own with a /29 and a port on it that stands for a node's. */
async function smallNetwork(t: TestContext, simulator: Simulator): Promise<{ cloud: CloudSession; hostPort: string }> {
  const { username, password, project } = simulator.accounts.admin
  const cloud = openCloud(cloudFromConf({ username, password, project, domain: 'default', authUrl: simulator.authUrl }))
  t.after(() => cloud.close())
  const network = await cloud.neutron.networks.create({ name: 'small' }, limits())
  await cloud.neutron.subnets.create({ network_id: network.id, cidr: '10.77.0.0/29', ip_version: 4 }, limits())
  const port = await cloud.neutron.ports.create({ network_id: network.id, name: 'small-host' }, limits())
  return { cloud, hostPort: port.id }
}

const asAdmin = (ipam: IpamConfig, simulator: Simulator, neutronConf: object): object => ({
  openstackConf: { ...simulator.accounts.admin, domain: 'default', authUrl: ipam.openstackConf.authUrl },
  neutronConf: { ...fast, reserve: 0, ...neutronConf },
})

test('a full subnet is error 102 that says so, and the next DEL makes room for the next ADD', async t => {
  const { node, simulator, ipam } = await setUp(t, true)
  const { hostPort, cloud } = await smallNetwork(t, simulator)
  const config = asAdmin(ipam, simulator, { hostPort, reserve: 4 })
  const replies = await Promise.all(Array.from({ length: 7 }, (_, id) => node.call('ADD', `c${id}`, config)))
  const refused = replies.filter(each => each.exitCode !== 0)
  assert.equal(refused.length, 3)
  for (const each of refused) {
    assert.equal(each.json.code, 102)
    assert.match(each.json.msg!, /No more IP addresses available/)
  }
  const served = replies.findIndex(each => each.exitCode === 0)
  await node.call('DEL', `c${served}`, config)
  assert.equal((await node.call('ADD', 'late', config)).exitCode, 0)
  const port = await cloud.neutron.ports.get(hostPort, limits())
  assert.equal(port!.fixed_ips.length, 5)
})

test('two ports that match are error 7 with both as candidates', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const { cloud } = await smallNetwork(t, simulator)
  const { mac, ips, id } = portOf(simulator)
  const network = await cloud.neutron.networks.create({ name: 'twin' }, limits())
  await cloud.neutron.subnets.create({ network_id: network.id, cidr: '10.10.10.0/24', ip_version: 4 }, limits())
  const twin = await cloud.neutron.ports.create(
    { network_id: network.id, mac_address: mac, fixed_ips: [{ ip_address: ips[0]! }] },
    limits(),
  )
  const reply = await node.call('ADD', 'c1', asAdmin(ipam, simulator, {}))
  assert.equal(reply.json.code, 7)
  assert.match(reply.json.msg!, /2 ports match/)
  for (const each of [id, twin.id]) assert.ok(reply.json.details!.includes(each))
  const named = asAdmin(ipam, simulator, { networks: [simulator.demo().network_id] })
  assert.equal((await node.call('ADD', 'c1', named)).exitCode, 0)
})

test('a network without subnet is error 7 that names it', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const { cloud } = await smallNetwork(t, simulator)
  await cloud.neutron.networks.create({ name: 'bare' }, limits())
  const reply = await node.call('ADD', 'c1', asAdmin(ipam, simulator, { networks: ['bare'] }))
  assert.equal(reply.json.code, 7)
  assert.match(reply.json.msg!, /network "bare" .* has no subnet/)
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

test('a fault in every HTTP call of ADD in turn: one clear error or success, and after DEL nothing is left', async t => {
  const acts = [
    { act: 'answer', status: 500 },
    { act: 'answer', status: 429, headers: { 'retry-after': '0' } },
    { act: 'answer', status: 403 },
    { act: 'answer-after', status: 504 },
    { act: 'cut' },
    { act: 'cut-after' },
    { act: 'stale' },
    { act: 'hang-after', method: 'PUT' },
  ] as const
  const { node, simulator, ipam } = await setUp(t, false)
  const before = neutronList(simulator)
  simulator.forgetRequests()
  await node.call('ADD', 'probe', ipam)
  const calls = simulator.requests().length
  await node.call('DEL', 'probe', ipam)
  assert.ok(calls >= 5, `${calls} calls`)
  for (const each of acts)
    for (let skip = 0; skip < ('method' in each ? 1 : calls); skip++) {
      const directory = nodeDirectory(t)
      const { mac, ips } = portOf(simulator)
      const host = nodeWithNic(`${ips.find(ip => before.includes(ip))}/24`, mac)
      const process = () => startNode({ directory, host, longLived: false })
      await using alone = process()
      simulator.inject({ ...each, skip })
      const title = `${each.act} ${'status' in each ? each.status : ''} at call ${skip + 1}`
      const reply = await alone.call('ADD', 'c1', ipam, { timeoutMs: 8_000 })
      if (reply.exitCode !== 0) {
        assert.notEqual(reply.json.code, 999, `${title}: ${reply.stdout}`)
        assert.match(reply.json.msg!, /^Cannot /, title)
      }
      simulator.inject({ act: 'delay', times: 1 })
      assert.equal((await alone.call('DEL', 'c1', ipam)).exitCode, 0, title)
      await using next = process()
      assert.equal((await next.call('ADD', 'c2', ipam)).exitCode, 0, title)
      await next.call('DEL', 'c2', ipam)
      assert.deepEqual(neutronList(simulator), before, title)
      const known = listPortAddresses(alone.world.journal, portOf(simulator).id).map(each => each.address)
      assert.deepEqual(known.sort(), before, title)
    }
})

test('a process per call: a release that failed is finished by the next DEL, whosever it is', async t => {
  const { node, simulator, ipam } = await setUp(t, false)
  const before = neutronList(simulator)
  await node.call('ADD', 'c1', ipam)
  simulator.inject({ act: 'answer', status: 503, times: 30 })
  assert.equal((await node.call('DEL', 'c1', ipam, { timeoutMs: 2_000 })).exitCode, 0)
  assert.equal(neutronList(simulator).length, before.length + 1)
  await until(
    async () => {
      await node.call('DEL', 'never', ipam)
      return neutronList(simulator).length === before.length
    },
    'the removal',
    20_000,
  )
})

test('credentials that stand in the conflist: after a restart the next call brings them and the release is done', async t => {
  const { node, simulator, ipam, restart } = await setUp(t)
  const before = neutronList(simulator)
  await node.call('ADD', 'c1', ipam)
  simulator.inject({ act: 'answer', method: 'PUT', status: 403, times: 1 })
  await node.call('DEL', 'c1', ipam)
  await until(() => simulator.requests().some(each => each.injected === 'answer'), 'the fault')
  const next = await restart()
  assert.equal(neutronList(simulator).length, before.length + 1)
  await next.call('DEL', 'c1', ipam)
  await until(() => neutronList(simulator).length === before.length, 'the removal')
})

type Bad = { title: string; code: number; says: RegExp; change(ipam: IpamConfig, simulator: Simulator): object }

const bad: Bad[] = [
  {
    title: 'unknown mode',
    code: 7,
    says: /"nixda".*"mix".*"eni"/,
    change: i => ({ ...i, neutronConf: { mode: 'nixda' } }),
  },
  {
    title: 'mode of a later release',
    code: 7,
    says: /"eni": this release serves "mix" only/,
    change: i => ({ ...i, neutronConf: { mode: 'eni' } }),
  },
  {
    title: 'mode of the wrong type',
    code: 7,
    says: /neutronConf\.mode/,
    change: i => ({ ...i, neutronConf: { mode: 1 } }),
  },
  {
    title: 'networks of the wrong type',
    code: 7,
    says: /neutronConf\.networks/,
    change: i => ({ ...i, neutronConf: { networks: 'x' } }),
  },
  {
    title: 'unknown network',
    code: 7,
    says: /Cannot find network "nirgends"/,
    change: i => ({ ...i, neutronConf: { networks: ['nirgends'] } }),
  },
  {
    title: 'missing host interface',
    code: 7,
    says: /Cannot find host interface "eth9"/,
    change: i => ({ ...i, neutronConf: { hostInterface: 'eth9' } }),
  },
  {
    title: 'unknown host port',
    code: 7,
    says: /Cannot find port "p"/,
    change: i => ({ ...i, neutronConf: { hostPort: 'p' } }),
  },
  {
    title: 'host port on another network',
    code: 7,
    says: /Cannot find the Neutron port of host interface eth0/,
    change: (i, s) => ({ ...i, neutronConf: { networks: [s.demo().external_network_id] } }),
  },
  { title: 'wrong route', code: 7, says: /routes\[0\]\.dst/, change: i => ({ ...i, routes: [{ dst: 'x' }] }) },
  { title: 'missing resolvConf', code: 7, says: /resolvConf/, change: i => ({ ...i, resolvConf: '/nirgends' }) },
  { title: 'both cloud and openstackConf', code: 7, says: /both given/, change: i => ({ ...i, cloud: 'x' }) },
  {
    title: 'no password',
    code: 7,
    says: /"password" is missing/,
    change: i => ({ ...i, openstackConf: { ...i.openstackConf, password: undefined } }),
  },
  {
    title: 'no URL',
    code: 7,
    says: /authUrl/,
    change: i => ({ ...i, openstackConf: { ...i.openstackConf, authUrl: 'x' } }),
  },
  {
    title: 'wrong password',
    code: 101,
    says: /log in/,
    change: i => ({ ...i, openstackConf: { ...i.openstackConf, password: 'falsch-falsch' } }),
  },
  {
    title: 'unreachable URL',
    code: 11,
    says: /127\.0\.0\.1:1/,
    change: i => ({ ...i, openstackConf: { ...i.openstackConf, authUrl: 'http://127.0.0.1:1/v3' } }),
  },
]

for (const { title, code, says, change } of bad)
  test(`ADD with ${title} is one clear error ${code} and leaves nothing`, async t => {
    const { node, simulator, ipam } = await setUp(t)
    const before = neutronList(simulator)
    const reply = await node.call('ADD', 'c1', change(ipam, simulator), { timeoutMs: 3_000 })
    assert.equal(reply.exitCode, 1)
    assert.equal(reply.json.code, code, reply.stdout)
    assert.match(`${reply.json.msg} ${reply.json.details}`, says)
    assert.ok(!reply.stdout.includes(simulator.accounts.demo.password))
    assert.ok(!reply.stdout.includes('falsch-falsch'))
    assert.equal((await node.call('DEL', 'c1', change(ipam, simulator), { timeoutMs: 3_000 })).exitCode, 0)
    assert.deepEqual(neutronList(simulator), before)
    assert.deepEqual(listAssignedAddresses(node.world.journal), [])
  })
