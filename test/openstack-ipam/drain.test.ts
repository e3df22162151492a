// SPDX-License-Identifier: Apache-2.0

// `mooring drain` on a node of the simulated OpenStack. Needs no root.

import assert from 'node:assert/strict'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { lockDataDirectory } from '#agent'
import { openJournal, putAttachment } from '#allocator'
import { readBootId } from '#host'
import { startSimulator } from '#simulator'
import { mooring } from './cloud.ts'
import { addressOf, nodeDirectory, nodeWithNic, startNode, until } from './node.ts'

const drain = (directory: string, ...options: string[]) => mooring('drain', '--data-dir', directory, ...options)

/** A node with a reserve of two, and one pod; its agent has ended unless a test goes on with it. */
async function setUp(t: TestContext) {
  const simulator = await startSimulator()
  t.after(() => simulator.close())
  const directory = nodeDirectory(t)
  const port = () => simulator.demo().servers['worker-1']!.ports[0]!
  const before = [...port().ips]
  const host = nodeWithNic(`${before[0]}/24`, port().mac)
  const { username, password, project } = simulator.accounts.demo
  const ipam = {
    type: 'tcnp-ipam',
    openstackConf: { username, password, project, domain: 'default', authUrl: simulator.authUrl },
    neutronConf: { mode: 'mix', usableAfterMs: 0, coolDownMs: 0, reserve: 2 },
  }
  const conflist = join(directory, 'net.conflist')
  writeFileSync(
    conflist,
    JSON.stringify({ name: 'cni0', cniVersion: '1.0.0', plugins: [{ type: 'veth-route', ipam }] }),
  )
  const onNode = async <T>(work: (node: ReturnType<typeof startNode>) => Promise<T>): Promise<T> => {
    await using node = startNode({ directory, host, longLived: true, bootId: readBootId() })
    return await work(node)
  }
  const address = await onNode(async node => {
    const reply = await node.call('ADD', 'c1', ipam)
    await until(() => port().ips.length === before.length + 3, 'a reserve')
    putAttachment(node.world.journal, {
      network: 'cni0',
      containerId: 'c1',
      ifName: 'eth0',
      type: 'veth-route',
      state: 'ready',
      bootId: readBootId(),
      netns: '/run/netns/c1',
      netnsDevice: 1,
      netnsInode: 2,
      config: '{}',
      traces: '{}',
    })
    return addressOf(reply)
  })
  const release = () =>
    onNode(async node => {
      await node.call('DEL', 'c1', ipam)
      node.world.journal.sql('DELETE FROM attachment').run()
    })
  return { simulator, directory, port, before, address, conflist, release, password }
}

test('drain leaves on the port what was there before Mooring, and forgets the port', async t => {
  const { directory, port, before, conflist, release, password } = await setUp(t)
  await release()
  const { status, output } = await drain(directory, '--conflist', conflist)
  assert.equal(status, 0, output)
  assert.deepEqual(port().ips, before)
  assert.match(output, new RegExp(`port ${port().id}: removed 10\\.`))
  assert.ok(!output.includes(password))
  const again = await drain(directory)
  assert.deepEqual([again.status, again.output], [0, 'nothing to drain\n'])
})

test('drain refuses while attachments are in use or DELs wait, and names them', async t => {
  const { directory, port, release, conflist } = await setUp(t)
  const count = port().ips.length
  const used = await drain(directory, '--conflist', conflist)
  assert.equal(used.status, 1)
  assert.match(used.output, /Cannot drain the node: attachments are in use: eth0 of c1\./)
  await release()
  mkdirSync(join(directory, 'spool'))
  writeFileSync(join(directory, 'spool', '1-1'), '')
  assert.match((await drain(directory, '--conflist', conflist)).output, /1 DEL waits for the agent/)
  rmSync(join(directory, 'spool'), { recursive: true })
  assert.equal(port().ips.length, count, 'nothing was removed')
})

test('drain --force removes the reserve and leaves an attachment its address', async t => {
  const { directory, port, before, address, conflist } = await setUp(t)
  const { status, output } = await drain(directory, '--conflist', conflist, '--force')
  assert.equal(status, 0, output)
  assert.deepEqual([...port().ips].sort(), [...before, address].sort())
  assert.ok(output.includes(`${address} stays: eth0 of container c1 has it`), output)
})

test('drain says what it lacks where the credentials stand in no file, and refuses beside an agent', async t => {
  const { directory, port, release } = await setUp(t)
  await release()
  const { status, output } = await drain(directory)
  assert.equal(status, 1)
  assert.match(output, new RegExp(`port ${port().id}: its credentials stand in no file; .*--conflist`))
  using _agent = lockDataDirectory(directory, 'be an agent')
  const beside = await drain(directory)
  assert.equal(beside.status, 1)
  assert.match(beside.output, /Cannot drain the node: an agent has .*Stop it/)
})

test('drain in a directory without a journal is an error, and makes none', async t => {
  const directory = nodeDirectory(t)
  const { status, output } = await drain(directory)
  assert.equal(status, 1)
  assert.match(output, /there is no journal in .*--data-dir/)
})

test('ip list shows what is in quarantine, ip adopt and ip release end it', async t => {
  const { directory, port, before, conflist, release } = await setUp(t)
  await release()
  // Somebody else wrote to the port, and nobody says what the addresses are for.
  using journal = openJournal(directory)
  const strange = [...port().ips].filter(address => !before.includes(address)).slice(0, 2)
  for (const address of strange) journal.sql('DELETE FROM port_address WHERE address = ?').run(address)
  await drain(directory, '--conflist', conflist)

  const ip = (...options: string[]) => mooring('ip', ...options, '--data-dir', directory)
  const listed = (await ip('list')).output
  for (const address of strange)
    assert.match(listed, new RegExp(`^${address} +quarantined +\\S+ +${port().id} +address +- +-$`, 'm'))
  assert.match(listed, new RegExp(`^${before[0]} +foreign`, 'm'))

  const adopted = await ip('adopt', strange[0]!)
  assert.equal(adopted.status, 0, adopted.output)
  assert.match((await ip('list')).output, new RegExp(`^${strange[0]} +free`, 'm'))
  const released = await ip('release', strange[1]!)
  assert.equal(released.status, 0, released.output)
  const refused = await ip('release', strange[1]!)
  assert.deepEqual(
    [refused.status, refused.output],
    [1, `mooring: Cannot release ${strange[1]}: it is releasing, not in quarantine. See mooring ip list\n`],
  )

  await drain(directory, '--conflist', conflist)
  assert.deepEqual(port().ips, before)
})
