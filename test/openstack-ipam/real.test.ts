// SPDX-License-Identifier: Apache-2.0

// tcnp-ipam in mode mix against the real Neutron of lab/openstack, on the port of its first demo server. Needs root, and the
// lab with its data plane; leaves the port as it was.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { listPortAddresses, listQuarantined } from '#allocator'
import { deadlineIn } from '#base'
import { type Host, threadedHost } from '#host'
import { type CloudSession, loadCloud, openCloud } from '#openstack'
import { drainPorts } from '#plugins'
import { addressOf, nodeDirectory, type Reply, startNode, until } from './node.ts'

const run = promisify(execFile)
const NETNS = 'vm-worker-1'

function missing(): string | false {
  if (process.getuid?.() !== 0) return 'needs root'
  if (!process.env['OSLAB_DEMO_JSON']) return 'no lab: eval "$(lab/openstack env)"'
  return existsSync(`/run/netns/${NETNS}`) ? false : 'no data plane: lab/openstack up --dataplane, lab/openstack demo'
}

const options = { skip: missing(), timeout: 180_000 }
const limits = () => ({ deadline: deadlineIn(60_000) })

type Demo = { network_id: string; servers: Record<string, { ports: { id: string }[] }> }

let demo: Demo
let cloud: CloudSession
let host: Host & AsyncDisposable
/** A port of no server, for what needs no wire: others may work on those of the servers meanwhile. */
let ownPort: string

const serverPort = () => demo.servers['worker-1']!.ports[0]!.id
async function addressesOf(portId: string): Promise<string[]> {
  const port = await cloud.neutron.ports.get(portId, limits())
  return port!.fixed_ips.map(each => each.ip_address).sort()
}

before(async () => {
  if (options.skip !== false) return
  demo = JSON.parse(readFileSync(process.env['OSLAB_DEMO_JSON']!, 'utf8')) as Demo
  cloud = openCloud(await loadCloud('oslab'))
  host = await threadedHost(`/run/netns/${NETNS}`)
  const port = await cloud.neutron.ports.create({ network_id: demo.network_id, name: 'mooring-ipam-test' }, limits())
  ownPort = port.id
})

after(async () => {
  if (options.skip !== false) return
  if (ownPort !== undefined) await cloud.neutron.ports.delete(ownPort, limits())
  await cloud.close()
  await host[Symbol.asyncDispose]()
})

const config = (more: object = {}) => ({
  cloud: 'oslab',
  neutronConf: { networks: [demo.network_id], mode: 'mix', reserve: 0, coolDownMs: 0, usableAfterMs: 15_000, ...more },
})
/** On the port that is the test's own there is no wire to wait for. */
const ownConfig = () => config({ hostPort: ownPort, usableAfterMs: 0 })

/** True if a packet from the address reaches the gateway, which port security decides. */
async function passes(address: string): Promise<boolean> {
  const inside = (...command: string[]) => run('ip', ['netns', 'exec', NETNS, ...command])
  await inside('ip', 'address', 'add', `${address}/32`, 'dev', 'lo')
  try {
    await inside('ping', '-c', '1', '-W', '2', '-I', address, '10.10.10.1')
    return true
  } catch {
    return false
  } finally {
    await inside('ip', 'address', 'del', `${address}/32`, 'dev', 'lo')
  }
}

const isGone = (portId: string, addresses: readonly string[]) => async () => {
  const present = await addressesOf(portId)
  return addresses.every(each => !present.includes(each))
}

test('the address of an ADD works on the wire when ADD returns; DEL takes it off the port', options, async t => {
  await using node = startNode({ directory: nodeDirectory(t), host, longLived: true })
  const foreign = await addressesOf(serverPort())
  const begin = performance.now()
  const reply = await node.call('ADD', 'c1', config())
  assert.equal(reply.exitCode, 0, reply.stdout)
  t.diagnostic(`ADD without reserve: ${Math.round(performance.now() - begin)} ms`)
  try {
    assert.ok(!foreign.includes(addressOf(reply)))
    assert.ok(await passes(addressOf(reply)))
    const check = await node.call('CHECK', 'c1', config(), { config: { prevResult: reply.json } })
    assert.equal(check.exitCode, 0, check.stdout)
  } finally {
    const released = performance.now()
    assert.equal((await node.call('DEL', 'c1', config())).exitCode, 0)
    t.diagnostic(`DEL: ${(performance.now() - released).toFixed(1)} ms`)
    await until(isGone(serverPort(), [addressOf(reply)]), 'the removal', 60_000)
  }
})

test('an ADD from the reserve costs no call, and its address works at once', options, async t => {
  await using node = startNode({ directory: nodeDirectory(t), host, longLived: true })
  const settings = config({ reserve: 2 })
  await until(async () => (await node.call('STATUS', '', settings)).exitCode === 0, 'STATUS', 60_000)
  const ours = () =>
    listPortAddresses(node.world.journal, serverPort())
      .filter(each => each.state !== 'foreign')
      .map(each => each.address)
  const ready = () =>
    listPortAddresses(node.world.journal, serverPort()).filter(each => each.state === 'free' && !each.settling)
  const seen: string[] = []
  try {
    await until(() => ready().length === 2, 'the reserve', 90_000)
    const times: number[] = []
    for (const container of ['c1', 'c2']) {
      const begin = performance.now()
      const reply = await node.call('ADD', container, settings)
      times.push(performance.now() - begin)
      assert.equal(reply.exitCode, 0, reply.stdout)
      assert.ok(await passes(addressOf(reply)))
    }
    t.diagnostic(`ADD from the reserve: ${times.map(ms => ms.toFixed(2)).join(' and ')} ms`)
  } finally {
    for (const container of ['c1', 'c2']) await node.call('DEL', container, config())
    seen.push(...ours())
    await drainPorts(node.world, limits())
    seen.push(...ours())
    await until(isGone(serverPort(), seen), 'the removal', 90_000)
  }
})

for (const longLived of [true, false])
  test(`64 ADDs at once, then 64 DELs (${longLived ? 'agent' : 'a process per call'})`, options, async t => {
    const directory = nodeDirectory(t)
    const foreign = await addressesOf(ownPort)
    const shared = longLived ? startNode({ directory, host, longLived }) : undefined
    const call = async (command: string, id: number): Promise<Reply> => {
      if (shared !== undefined) return await shared.call(command, `c${id}`, ownConfig(), { timeoutMs: 120_000 })
      await using node = startNode({ directory, host, longLived })
      return await node.call(command, `c${id}`, ownConfig(), { timeoutMs: 120_000 })
    }
    const all = (command: string) => Promise.all(Array.from({ length: 64 }, (_, id) => call(command, id)))
    const begin = performance.now()
    const replies = await all('ADD')
    t.diagnostic(`64 ADDs: ${Math.round(performance.now() - begin)} ms`)
    for (const reply of replies) assert.equal(reply.exitCode, 0, reply.stdout)
    assert.equal(new Set(replies.map(addressOf)).size, 64)
    await using witness = startNode({ directory, host, longLived: false })
    const known = listPortAddresses(witness.world.journal, ownPort).map(each => each.address)
    assert.deepEqual(known.sort(), await addressesOf(ownPort))
    const released = performance.now()
    for (const reply of await all('DEL')) assert.equal(reply.exitCode, 0, reply.stdout)
    t.diagnostic(`64 DELs: ${Math.round(performance.now() - released)} ms`)
    await until(async () => (await addressesOf(ownPort)).length === foreign.length, 'the removal', 90_000)
    assert.deepEqual(await addressesOf(ownPort), foreign)
    assert.deepEqual(listQuarantined(witness.world.journal), [])
    await shared?.[Symbol.asyncDispose]()
  })

test('a floating IP on a pod’s address is taken off before the address is removed', options, async t => {
  await using node = startNode({ directory: nodeDirectory(t), host, longLived: true })
  const reply = await node.call('ADD', 'c1', ownConfig())
  assert.equal(reply.exitCode, 0, reply.stdout)
  const [external] = await cloud.neutron.networks.list({ 'router:external': true }, limits())
  const made = await cloud.neutron.floatingIps.create(
    { floating_network_id: external!.id, port_id: ownPort, fixed_ip_address: addressOf(reply) },
    limits(),
  )
  try {
    await node.call('DEL', 'c1', ownConfig())
    await until(isGone(ownPort, [addressOf(reply)]), 'the removal', 60_000)
    const freed = await cloud.neutron.floatingIps.get(made.id, limits())
    assert.equal(freed!.port_id, null)
  } finally {
    await cloud.neutron.floatingIps.delete(made.id, limits())
  }
})
