// SPDX-License-Identifier: Apache-2.0

// The modes of tcnp-ipam on the real Neutron and Nova of lab/openstack: what 100 pods at once cost on a network of the test's
// own; addresses and NICs on the wire at the lab's second demo server; and that nothing is left. Needs root, and the lab with its
// data plane.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { listKnownPorts, listObjects, listPortAddresses } from '#allocator'
import { deadlineIn } from '#base'
import { type Host, threadedHost } from '#host'
import { type CloudSession, loadCloud, openCloud } from '#openstack'
import { drainPorts } from '#plugins'
import { type CountedService, countedService } from '../openstack/counted-service.ts'
import { addressOf, type Node, nodeDirectory, nodeWithNic, type Reply, startNode, until } from './node.ts'

const run = promisify(execFile)
/** Of this run alone: what an interrupted one has left in the lab is another node's. */
const NODE = `modes-test-${Date.now().toString(36)}`
const NETNS = 'vm-worker-2'

function missing(): string | false {
  if (process.getuid?.() !== 0) return 'needs root'
  if (!process.env['OSLAB_DEMO_JSON']) return 'no lab: eval "$(lab/openstack env)"'
  return existsSync(`/run/netns/${NETNS}`) ? false : 'no data plane: lab/openstack up --dataplane, lab/openstack demo'
}

const options = { skip: missing(), timeout: 240_000 }
const limits = () => ({ deadline: deadlineIn(60_000) })

let cloud: CloudSession
let door: CountedService
let networkId: string
/** The port of a node that is none: on the test's own network. */
let hostPort: string
let serverId: string
let demo: { network_id: string; servers: Record<string, { id: string }> }
const open = new AsyncDisposableStack()

before(async () => {
  if (options.skip !== false) return
  demo = JSON.parse(readFileSync(process.env['OSLAB_DEMO_JSON']!, 'utf8'))
  serverId = demo.servers['worker-2']!.id
  cloud = openCloud(await loadCloud('oslab'))
  open.defer(() => cloud.close())
  door = open.use(await countedService(`http://127.0.0.1:${process.env['OSLAB_PORT_NEUTRON'] ?? 19696}`))
  useDoor()
  const network = await cloud.neutron.networks.create({ name: 'mooring-modes-test' }, limits())
  networkId = network.id
  open.defer(async () => {
    for (const { id } of await cloud.neutron.ports.list({ network_id: networkId }, limits()))
      await cloud.neutron.ports.delete(id, limits())
    await cloud.neutron.networks.delete(networkId, limits())
  })
  const subnet = { network_id: networkId, ip_version: 4, cidr: '172.29.0.0/22', enable_dhcp: false } as const
  await cloud.neutron.subnets.create(subnet, limits())
  hostPort = (await cloud.neutron.ports.create({ network_id: networkId, name: 'mooring-modes-node' }, limits())).id
})
after(() => open.disposeAsync())

/** Lets everything below find the cloud `counted`: the lab's own, with its Neutron behind the door. */
function useDoor(): void {
  const text = readFileSync(process.env['OS_CLIENT_CONFIG_FILE']!, 'utf8')
  const directory = mkdtempSync(join(tmpdir(), 'mooring-modes-'))
  open.defer(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'clouds.yaml')
  const counted = `  counted:\n    <<: *demo\n    network_endpoint_override: ${door.url}\n`
  writeFileSync(file, `${text.trimEnd()}\n${counted}`, { mode: 0o600 })
  process.env['OS_CLIENT_CONFIG_FILE'] = file
}

const config = (more: object) => ({ cloud: 'counted', neutronConf: { usableAfterMs: 0, coolDownMs: 0, ...more } })
/** With 100, Neutron needs minutes to delete what one request of Mooring has made. */
const PORTS = Number(process.env['MOORING_MODES_PORTS'] ?? 40)
const all = (node: Node, command: string, ipam: object, pods = 100): Promise<Reply[]> =>
  Promise.all(Array.from({ length: pods }, (_, id) => node.call(command, `c${id}`, ipam, { timeoutMs: 120_000 })))

/** A cloud that has just been started may take longer for its first answers than STATUS waits. */
const ready = (node: Node, ipam: object): Promise<void> =>
  until(async () => (await node.call('STATUS', '', ipam)).exitCode === 0, 'STATUS', 60_000)

function assertServed(replies: readonly Reply[]): void {
  for (const reply of replies) assert.equal(reply.exitCode, 0, reply.stdout)
  assert.equal(new Set(replies.map(addressOf)).size, replies.length)
}

for (const binding of ['fixed_ips', 'allowed_address_pairs'])
  test(`mix by ${binding}: 100 ADDs at once make at most 8 calls to Neutron after the start`, options, async t => {
    await using node = startNode({
      directory: nodeDirectory(t),
      host: nodeWithNic('', '02:00:00:00:00:01'),
      longLived: true,
    })
    // Read back later: no pod waits for that.
    const ipam = config({ mode: 'mix', binding, hostPort, node: NODE, reserve: 4, verifyAfterMs: 60_000 })
    const ours = () =>
      listKnownPorts(node.world.journal).flatMap(each => listPortAddresses(node.world.journal, each.portId))
    const free = () => ours().filter(each => each.state === 'free')
    await ready(node, ipam)
    await until(() => free().length >= 4, 'the reserve', 60_000)
    door.forget()
    const begin = performance.now()
    assertServed(await all(node, 'ADD', ipam))
    t.diagnostic(`100 ADDs: ${Math.round(performance.now() - begin)} ms`)
    await until(() => free().length >= 4, 'the reserve again', 60_000)
    t.diagnostic(door.calls().join('; '))
    assert.ok(door.calls().length <= 8, `${door.calls().length} calls`)
    for (const reply of await all(node, 'DEL', ipam)) assert.equal(reply.exitCode, 0, reply.stdout)
    await drainPorts(node.world, { deadline: deadlineIn(120_000) })
    const left = await cloud.neutron.ports.list({ network_id: networkId }, limits())
    assert.deepEqual(
      left.map(each => [each.id, each.fixed_ips.length, each.allowed_address_pairs]),
      [[hostPort, 1, []]],
    )
  })

test(`separate: ${PORTS} ADDs at once make at most 12 calls to Neutron after the start`, options, async t => {
  await using node = startNode({
    directory: nodeDirectory(t),
    host: nodeWithNic('', '02:00:00:00:00:01'),
    longLived: true,
  })
  const ours = { mode: 'separate', node: NODE, networks: [networkId] }
  const ipam = config({ ...ours, reserve: 4 })
  const ports = () => cloud.neutron.ports.list({ network_id: networkId, device_owner: 'mooring:separate' }, limits())
  const free = () => listObjects(node.world.journal).filter(each => each.state === 'free')
  await ready(node, ipam)
  await until(() => free().length === 4, 'the reserve', 60_000)
  door.forget()
  const begin = performance.now()
  assertServed(await all(node, 'ADD', ipam, PORTS))
  t.diagnostic(`${PORTS} ADDs: ${Math.round(performance.now() - begin)} ms`)
  await until(() => free().length === 4, 'the reserve again', 60_000)
  const described = async () => (await ports()).filter(each => /container=c\d+ /.test(each.description ?? '')).length
  await until(() => door.calls().filter(each => each.startsWith('PUT')).length >= 4, 'the descriptions', 60_000)
  const calls = door.calls()
  t.diagnostic(calls.join('; '))
  assert.ok(calls.length <= 12, `${calls.length} calls`)
  await until(async () => (await described()) === PORTS, 'the last description', 30_000)
  assert.equal((await ports()).length, PORTS + 4)
  for (const reply of await all(node, 'DEL', ipam, PORTS)) assert.equal(reply.exitCode, 0, reply.stdout)
  // An operator who wants none made ahead, and none kept.
  await ready(node, config({ ...ours, reserve: 0, idleMs: 0 }))
  await until(async () => (await ports()).length === 0, 'the removal', 180_000)
})

test(
  'eni: Nova attaches a NIC, the pod’s is the one that the result names, and all are detached in the end',
  options,
  async t => {
    const host: Host & AsyncDisposable = await threadedHost(`/run/netns/${NETNS}`)
    await using _host = host
    await using node = startNode({ directory: nodeDirectory(t), host, longLived: true })
    const ours = { mode: 'eni', node: NODE, server: serverId, networks: [networkId], maxNics: 4 }
    const ipam = config({ ...ours, reserve: 2 })
    const attached = async () =>
      (await cloud.nova.interfaces.list(serverId, limits())).filter(each => each.net_id === networkId)
    const free = () => listObjects(node.world.journal).filter(each => each.state === 'free')
    await ready(node, ipam)
    await until(() => free().length === 2, 'the reserve', 120_000)
    const begin = performance.now()
    const reply = await node.call('ADD', 'c1', ipam)
    t.diagnostic(`ADD from the reserve: ${(performance.now() - begin).toFixed(1)} ms`)
    assert.equal(reply.exitCode, 0, reply.stdout)
    const { mac, name } = reply.json.interfaces![0]!
    assert.ok(
      (await attached()).some(each => each.mac_addr === mac && each.fixed_ips[0]!.ip_address === addressOf(reply)),
    )
    const { stdout } = await run('ip', ['-n', NETNS, '-br', 'link', 'show', name])
    assert.ok(stdout.includes(mac!), stdout)
    assert.equal((await node.call('DEL', 'c1', ipam)).exitCode, 0)
    await ready(node, config({ ...ours, reserve: 0, idleMs: 0 }))
    await until(async () => (await attached()).length === 0, 'the detachment', 120_000)
    await until(
      async () => (await cloud.neutron.ports.list({ network_id: networkId }, limits())).length === 1,
      'the removal',
    )
  },
)

/** Runs `work` while the node has the address, as it has a pod's. */
async function withAddress<T>(address: string, work: () => Promise<T>): Promise<T> {
  await run('ip', ['-n', NETNS, 'address', 'add', `${address}/32`, 'dev', 'lo'])
  try {
    return await work()
  } finally {
    await run('ip', ['-n', NETNS, 'address', 'del', `${address}/32`, 'dev', 'lo'])
  }
}

const reaches = (netns: string, ...ping: string[]): Promise<boolean> =>
  run('ip', ['netns', 'exec', netns, 'ping', '-c', '1', '-W', '2', ...ping]).then(
    () => true,
    () => false,
  )

/** True if a packet from the address gets to the gateway and back, which port security decides. */
const passes = (address: string) => withAddress(address, () => reaches(NETNS, '-I', address, '10.10.10.1'))

for (const mode of ['separate', 'mix'])
  test(
    `${mode} by allowed_address_pairs: the address passes the Linux bridge from ADD on, and does not after DEL`,
    options,
    async t => {
      const host = await threadedHost(`/run/netns/${NETNS}`)
      await using _host = host
      await using node = startNode({ directory: nodeDirectory(t), host, longLived: true })
      const ipam = {
        cloud: 'counted',
        neutronConf: {
          ...{ mode, binding: 'allowed_address_pairs', networks: [demo.network_id], node: NODE },
          ...{
            reserve: 0,
            coolDownMs: 0,
            usableAfterMs: 4_000,
            ...(mode === 'separate' ? { idleMs: 0 } : { blockSize: 1 }),
          },
        },
      }
      try {
        await ready(node, ipam)
        const reply = await node.call('ADD', 'c1', ipam)
        assert.equal(reply.exitCode, 0, reply.stdout)
        assert.ok(await passes(addressOf(reply)))
        assert.equal((await node.call('DEL', 'c1', ipam)).exitCode, 0)
        await until(async () => !(await passes(addressOf(reply))), 'the end of the address', 60_000)
      } finally {
        await node.call('DEL', 'c1', ipam)
        await drainPorts(node.world, limits())
      }
    },
  )

test(
  'mix_route: a machine of the tenant network reaches an address of another subnet through the router',
  options,
  async t => {
    const network = await cloud.neutron.networks.create({ name: 'mooring-modes-pods' }, limits())
    const host = await threadedHost(`/run/netns/${NETNS}`)
    await using _host = host
    await using node = startNode({ directory: nodeDirectory(t), host, longLived: true })
    try {
      const subnet = { network_id: network.id, ip_version: 4, cidr: '172.30.0.0/24', enable_dhcp: false } as const
      const { id } = await cloud.neutron.subnets.create(subnet, limits())
      const own = { mode: 'mix_route', networks: [demo.network_id], podSubnets: [id], node: NODE, blockSize: 4 }
      const ipam = { cloud: 'counted', neutronConf: { ...own, reserve: 0, coolDownMs: 0, usableAfterMs: 4_000 } }
      await ready(node, ipam)
      const reply = await node.call('ADD', 'c1', ipam)
      assert.equal(reply.exitCode, 0, reply.stdout)
      assert.match(addressOf(reply), /^172\.30\.0\./)
      assert.ok(await withAddress(addressOf(reply), () => reaches('vm-worker-1', addressOf(reply))))
      assert.equal((await node.call('DEL', 'c1', ipam)).exitCode, 0)
    } finally {
      await node.call('DEL', 'c1', { cloud: 'counted', neutronConf: { mode: 'mix_route' } })
      await drainPorts(node.world, limits())
      await cloud.neutron.networks.delete(network.id, limits())
    }
  },
)
