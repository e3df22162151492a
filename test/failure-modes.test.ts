// SPDX-License-Identifier: Apache-2.0

// Goal: what brought other systems down does not bring this one down: the cases of docs/failure-modes.md that no other file
// has, and that each test named there exists. Needs no root, but for the last.

import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { JournalError, listAssignedAddresses, openJournal } from '#allocator'
import { deadlineIn } from '#base'
import { cloudFromConf, openCloud } from '#openstack'
import { makeLab, makeNetns, resultOf, root, run, skip } from './nodelab.ts'
import { neutronList, portOf, setUp } from './openstack-ipam/cloud.ts'
import { addressOf, type Node, until } from './openstack-ipam/node.ts'

const quarantined = (node: Node): string =>
  JSON.stringify(
    node.world.journal.sql("SELECT * FROM port_address WHERE state = 'quarantined' ORDER BY address").all(),
  )

test('what nobody can attribute stays in quarantine, byte for byte, over three restarts and every kind of call', async t => {
  const { node: first, simulator, ipam, restart } = await setUp(t)
  await first.call('ADD', 'c0', ipam)
  const cloud = openCloud(cloudFromConf(ipam.openstackConf))
  t.after(() => cloud.close())
  const { id } = portOf(simulator)
  const { subnet_id } = simulator.demo()
  const foreign = ['10.10.10.240', '10.10.10.241']
  const fixed_ips = [...portOf(simulator).ips, ...foreign].map(ip_address => ({ subnet_id, ip_address }))
  await cloud.neutron.ports.update(id, { fixed_ips }, { deadline: deadlineIn(5_000) })
  await first.call('ADD', 'c1', ipam)
  const before = quarantined(first)
  assert.deepEqual(
    (JSON.parse(before) as { address: string }[]).map(each => each.address),
    foreign,
  )
  for (let time = 1; time <= 3; time++) {
    const node = await restart()
    // Neutron leaves them out in one answer: that erases nothing.
    simulator.inject({ act: 'partial', missing: 3, method: 'GET', path: `/ports/${id}` })
    await node.call('ADD', `r${time}`, ipam)
    await node.call('DEL', `r${time}`, ipam)
    await node.call('GC', '', ipam, {
      config: { 'cni.dev/valid-attachments': [{ containerID: 'c0', ifname: 'eth0' }] },
    })
    assert.equal(quarantined(node), before, `after restart ${time}`)
    for (const address of foreign) assert.ok(neutronList(simulator).includes(address))
  }
})

test('a journal that is cut off or no journal at all is refused by name and left as it is; an empty file is a new one', t => {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-damaged-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'journal.db')
  {
    using journal = openJournal(directory)
    journal.transaction(() => {
      for (let id = 0; id < 500; id++)
        journal.sql("INSERT INTO port_lookup (lookup, place, looked_ms) VALUES (?, '{}', 0)").run(`lookup ${id}`)
    })
  }
  const whole = readFileSync(path)
  for (const [what, bytes] of [
    ['cut off in its header', whole.subarray(0, 60)],
    ['nonsense', Buffer.from('this is no journal, and it is long enough to be looked at'.repeat(20))],
  ] as const) {
    for (const rest of ['-wal', '-shm']) rmSync(`${path}${rest}`, { force: true })
    writeFileSync(path, bytes)
    assert.throws(
      () => openJournal(directory),
      (error: unknown) => error instanceof JournalError && error.message.includes(path),
      what,
    )
    assert.deepEqual(readFileSync(path), Buffer.from(bytes), what)
  }
  writeFileSync(path, '')
  using journal = openJournal(directory)
  assert.deepEqual(listAssignedAddresses(journal), [])
})

test('a journal that is lost: what pods have is nobody else’s, and is not taken off the port', async t => {
  const { node: first, simulator, ipam, directory, restart } = await setUp(t)
  const addresses = [addressOf(await first.call('ADD', 'c1', ipam)), addressOf(await first.call('ADD', 'c2', ipam))]
  await first[Symbol.asyncDispose]()
  for (const rest of ['', '-wal', '-shm']) rmSync(join(directory, `journal.db${rest}`), { force: true })
  const node = await restart()
  const next = addressOf(await node.call('ADD', 'c3', ipam))
  assert.ok(!addresses.includes(next))
  await node.call('DEL', 'c3', ipam)
  await until(() => !neutronList(simulator).includes(next), 'the removal')
  for (const address of addresses) assert.ok(neutronList(simulator).includes(address))
})

test('GC follows its list: none is no list, an empty one is nobody, another network is not meant', async t => {
  const { node, ipam } = await setUp(t)
  const held = () =>
    listAssignedAddresses(node.world.journal)
      .map(each => each.owner!.containerId)
      .sort()
  await node.call('ADD', 'c1', ipam)
  await node.call('ADD', 'c2', ipam, { network: 'other' })
  // What is younger than a tenth of a second is judged by no list.
  await new Promise(resolve => setTimeout(resolve, 120))
  await node.call('GC', '', ipam)
  assert.deepEqual(held(), ['c1', 'c2'])
  await node.call('GC', '', ipam, { config: { 'cni.dev/valid-attachments': [] } })
  assert.deepEqual(held(), ['c2'])
})

test('a pod that is made anew under its name keeps its address while the GC of before is under way', async t => {
  const { node, ipam } = await setUp(t)
  await node.call('ADD', 'web-0-old', ipam)
  await new Promise(resolve => setTimeout(resolve, 120))
  const list = { 'cni.dev/valid-attachments': [] }
  const [added] = await Promise.all([
    node.call('ADD', 'web-0-new', ipam),
    node.call('GC', '', ipam, { config: list }),
    node.call('DEL', 'web-0-old', ipam),
  ])
  assert.deepEqual(
    listAssignedAddresses(node.world.journal).map(each => [each.owner!.containerId, each.address]),
    [['web-0-new', addressOf(added)]],
  )
})

test('an address that is another pod’s at once is reached at once, from the node and from outside, beside 1000 stale neighbours', {
  skip,
}, async () => {
  const lab = makeLab({ mode: 'agent' })
  const [node] = lab.nodes
  await using _agent = await node!.startAgent()
  const ipam = {
    type: 'host-local',
    dataDir: node!.leases,
    ranges: [[{ subnet: '10.10.10.0/24', rangeStart: '10.10.10.50', rangeEnd: '10.10.10.50' }]],
    routes: [{ dst: '0.0.0.0/0' }],
  }
  // What the reboot of a careless predecessor left.
  const stale = Array.from(
    { length: 1000 },
    (_, id) => `neigh add 10.20.${id >> 8}.${id & 255} lladdr 02:00:00:00:00:01 dev eth0 nud stale`,
  )
  run('ip', ['-n', node!.name, '-batch', '-'], stale.join('\n'))
  const ping = ['ping', '-c', '1', '-W', '1', '10.10.10.50'] as const
  for (let time = 0; time < 3; time++) {
    const pod = makeNetns('pod')
    const it = { containerId: `reuse${time}`, netns: pod.path }
    resultOf(await node!.call('ADD', it, { more: { ipam } }))
    // One packet, which has a second to come back in.
    for (const from of [node!, lab.router]) from.run(...ping)
    resultOf(await node!.call('DEL', it, { more: { ipam } }))
    pod.remove()
  }
})

test('each test that docs/failure-modes.md names exists', () => {
  const page = readFileSync(join(root, 'docs/failure-modes.md'), 'utf8')
  const named = [...page.matchAll(/^\| (\d+) \|.*\| `((?:test|src)\/[^`]+\.ts)`: (.+?) \|$/gm)]
  assert.deepEqual([...new Set(named.map(([, mode]) => Number(mode)))], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  for (const [, mode, file, names] of named) {
    assert.ok(existsSync(join(root, file!)), `${mode}: ${file}`)
    const text = readFileSync(join(root, file!), 'utf8')
    for (const name of names!.split('; ')) assert.ok(text.includes(name), `${mode}: ${file} has no test "${name}"`)
  }
})
