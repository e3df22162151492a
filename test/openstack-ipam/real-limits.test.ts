// SPDX-License-Identifier: Apache-2.0

// What a real cloud has only so much of, used up in lab/openstack: a subnet, the quota of ports, address pairs of a port, routes
// of a router, NICs of a server. All but the last in a project of the test's own. Needs root and the data plane for the NICs.

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { after, before, type TestContext, test } from 'node:test'
import { deadlineIn } from '#base'
import { threadedHost } from '#host'
import { type CloudSession, loadCloud, openCloud } from '#openstack'
import { drainPorts } from '#plugins'
import { createLabProject, type LabProject, labMissing } from '../openstack/lab.ts'
import { exhaust, makeSparseSubnet } from './exhaust.ts'
import { type Node, nodeDirectory, nodeWithNic, startNode, until } from './node.ts'

/** Of this run alone: what an interrupted one has left in the lab is another node's. */
const NODE = `limits-test-${Date.now().toString(36)}`
const NETNS = 'vm-worker-2'
const limits = () => ({ deadline: deadlineIn(60_000) })
const options = { skip: (await labMissing()) ?? false, timeout: 240_000 }

let project: LabProject
let cloud: CloudSession

before(async () => {
  if (options.skip !== false) return
  project = await createLabProject()
  cloud = openCloud(project.password)
})
after(async () => {
  await cloud?.close()
  await project?.[Symbol.asyncDispose]()
})

const nodeOf = (t: TestContext): Node =>
  startNode({ directory: nodeDirectory(t), host: nodeWithNic('', '02:00:00:00:00:01'), longLived: true })

const config = (more: object) => ({
  openstackConf: project.openstackConf,
  neutronConf: { reserve: 0, usableAfterMs: 0, coolDownMs: 0, idleMs: 0, node: NODE, ...more },
})

async function makeNetwork(name: string, cidr: string): Promise<{ networkId: string; subnetId: string }> {
  const network = await cloud.neutron.networks.create({ name }, limits())
  const subnet = { network_id: network.id, ip_version: 4, cidr, enable_dhcp: false } as const
  return { networkId: network.id, subnetId: (await cloud.neutron.subnets.create(subnet, limits())).id }
}

/** Gives back what the node has, and demands that nothing is left on a network but the port that stands for a node. */
async function drain(node: Node, network_id: string, ports: readonly string[]): Promise<void> {
  for (const { portId, remaining, error } of await drainPorts(node.world, { deadline: deadlineIn(120_000) }))
    assert.deepEqual([portId, remaining, error], [portId, [], undefined])
  const left = async () =>
    (await cloud.neutron.ports.list({ network_id }, limits()))
      .filter(each => !each.device_owner.startsWith('network:'))
      .map(each => each.id)
  await until(async () => (await left()).length <= ports.length, 'the removal', 60_000)
  assert.deepEqual(await left(), ports)
}

test('a subnet: five addresses', options, async t => {
  const { networkId } = await makeNetwork('small', '10.31.0.0/29')
  {
    await using node = nodeOf(t)
    const message = /No more IP addresses available.*subnet 10\.31\.0\.0\/29 .*: 5 of 5 addresses used/
    await exhaust(node, config({ mode: 'separate', networks: [networkId] }), { fits: 5, message })
    await drain(node, networkId, [])
  }
  await using node = nodeOf(t)
  const { id } = await cloud.neutron.ports.create({ network_id: networkId }, limits())
  const message = /none is left in 10\.31\.0\.0\/29 .*: of its 5 addresses this port has 5, 4 of them with pods/
  await exhaust(node, config({ mode: 'mix', hostPort: id }), { fits: 4, message })
  await drain(node, networkId, [id])
  await cloud.neutron.ports.delete(id, limits())
})

test('the quota of ports', options, async t => {
  await using node = nodeOf(t)
  const { networkId } = await makeNetwork('many', '10.32.0.0/24')
  const { used } = (await cloud.neutron.quotas.details(project.id, limits()))['port']!
  await project.admin.neutron.quotas.set(project.id, { port: used + 3 }, limits())
  try {
    const message = new RegExp(`Quota exceeded.* 3 in use.*quota of ports: ${used + 3} of ${used + 3} used`)
    await exhaust(node, config({ mode: 'separate', networks: [networkId] }), { fits: 3, message })
  } finally {
    await project.admin.neutron.quotas.reset(project.id, limits())
  }
  await drain(node, networkId, [])
})

test('address pairs: ten of a port', options, async t => {
  await using node = nodeOf(t)
  const { id: network_id } = await cloud.neutron.networks.create({ name: 'pairs' }, limits())
  const { hostPort } = await makeSparseSubnet(cloud, network_id, '10.33.0')
  const own = { mode: 'mix', binding: 'allowed_address_pairs', hostPort, blockSize: 1 }
  const message = /address pairs of port .*: the limit is 10, 10 are ours and 0 are others’/
  await exhaust(node, config(own), { fits: 10, message })
  await drain(node, network_id, [hostPort])
  assert.deepEqual((await cloud.neutron.ports.get(hostPort, limits()))!.allowed_address_pairs, [])
  await cloud.neutron.ports.delete(hostPort, limits())
})

test('routes: thirty of a router, most of them others’', options, async t => {
  await using node = nodeOf(t)
  const { networkId, subnetId } = await makeNetwork('nodes', '10.34.0.0/24')
  const { routers, ports } = cloud.neutron
  const router = await routers.create({ name: 'limits' }, limits())
  await routers.addInterface(router.id, subnetId, limits())
  const theirs = Array.from({ length: 26 }, (_, at) => ({
    destination: `10.99.${2 * at}.0/24`,
    nexthop: '10.34.0.200',
  }))
  await routers.addExtraRoutes(router.id, theirs, limits())
  const { id: hostPort } = await ports.create({ network_id: networkId }, limits())
  const pods = await cloud.neutron.networks.create({ name: 'routed' }, limits())
  const { subnetId: podSubnet, hostPort: standIn } = await makeSparseSubnet(cloud, pods.id, '10.35.0')
  const own = { mode: 'mix_route', hostPort, podSubnets: [podSubnet], blockSize: 1 }
  const message = /routes of router .*: the limit is 30, 4 are ours and 26 are others’/
  await exhaust(node, config(own), { fits: 4, message })
  await drain(node, pods.id, [standIn])
  const left = (await routers.get(router.id, limits()))!.routes
  assert.deepEqual(left.map(each => each.destination).sort(), theirs.map(each => each.destination).sort())
})

test('NICs of a server: the cap of the option', options, async t => {
  if (process.getuid?.() !== 0) return t.skip('needs root')
  if (!existsSync(`/run/netns/${NETNS}`)) return t.skip('no data plane: lab/openstack up --dataplane')
  await using demo = { cloud: openCloud(await loadCloud('oslab')), [Symbol.asyncDispose]: () => demo.cloud.close() }
  const { nova } = demo.cloud
  const { network_id, servers } = JSON.parse(readFileSync(process.env['OSLAB_DEMO_JSON']!, 'utf8'))
  const serverId = servers['worker-2']!.id
  const others = (await nova.interfaces.list(serverId, limits())).length
  const host = await threadedHost(`/run/netns/${NETNS}`)
  await using _host = host
  await using node = startNode({ directory: nodeDirectory(t), host, longLived: true })
  const neutronConf = {
    ...{ mode: 'eni', node: NODE, server: serverId, networks: [network_id] },
    ...{ maxNics: others + 2, reserve: 0, coolDownMs: 0, idleMs: 0 },
  }
  const message = new RegExp(
    `has ${others + 2} of at most ${others + 2} NICs \\("neutronConf.maxNics"\\): 2 for pods, ${others} others`,
  )
  await exhaust(node, { cloud: 'oslab', neutronConf }, { fits: 2, message, nextMs: 60_000 })
  const attached = async () => (await nova.interfaces.list(serverId, limits())).length
  await until(async () => (await attached()) === others, 'the detachment', 120_000)
  // Nova detaches first, and what it has let go is a port still.
  const left = () => demo.cloud.neutron.ports.list({ tags: [`mooring:node=${NODE}`] }, limits())
  await until(async () => (await left()).length === 0, 'the removal of the ports', 120_000)
})
