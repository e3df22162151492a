// SPDX-License-Identifier: Apache-2.0

// Promise: the agent frees no container that lives, whatever its runtime knows it by: a namespace lives by other processes
// than its first, by a mount and by an open descriptor; and it frees what nothing holds any more. Needs root.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type CloudNode, makeCloudNode } from './crash/cloud.ts'
import {
  errorOf,
  eventually,
  folder,
  makeLab,
  makeNetns,
  type Node,
  type RunningAgent,
  resultOf,
  run,
  skip,
} from './nodelab.ts'

/** As if its containers had been attached a while ago: the agent does not judge what has just come. */
function age({ dataDir }: Node): void {
  const db = new DatabaseSync(join(dataDir, 'journal.db'))
  db.exec('PRAGMA busy_timeout = 5000; UPDATE attachment SET changed_ms = changed_ms - 60000')
  db.close()
}

describe('a namespace without its first process', { skip }, () => {
  let node: Node
  let agent: RunningAgent
  const children: ChildProcess[] = []
  const undo: (() => void)[] = []
  before(async () => {
    node = makeLab({ mode: 'agent' }).nodes[0]!
    agent = await node.startAgent({ reconcile: 1 })
  })
  after(async () => {
    for (const step of undo.splice(0)) step()
    for (const child of children) child.kill('SIGKILL')
    await agent?.[Symbol.asyncDispose]()
  })

  /** A process that sleeps, and its PID once it is where the command leads. */
  async function sleeper(...command: string[]): Promise<ChildProcess & { pid: number }> {
    const child = spawn('/usr/bin/env', [...command, 'sh', '-c', 'echo ready; exec sleep 60'])
    children.push(child)
    await new Promise(resolve => child.stdout!.once('data', resolve))
    return child as ChildProcess & { pid: number }
  }
  const recorded = () =>
    node
      .state()
      .flatMap(line => /^attachment .*"container_id":"(\w+)"/.exec(line)?.[1] ?? [])
      .sort()
  test('keeps what it has while another process, a mount or a descriptor holds it, and loses it then', async () => {
    const holders: Record<string, (path: string) => Promise<() => void>> = {
      process: async path => {
        const other = await sleeper('nsenter', `--net=${path}`)
        return () => other.kill('SIGKILL')
      },
      mount: async path => {
        const file = join(folder('mount'), 'net ns')
        writeFileSync(file, '')
        run('mount', ['--bind', path, file])
        return () => run('umount', [file])
      },
      descriptor: async path => {
        const fd = openSync(path, 'r')
        return () => closeSync(fd)
      },
      nobody: async () => () => undefined,
    }
    const firsts: ChildProcess[] = []
    const releases: (() => void)[] = []
    for (const [containerId, hold] of Object.entries(holders)) {
      const first = await sleeper('unshare', '--net')
      const netns = `/proc/${first.pid}/ns/net`
      resultOf(
        await node.call('ADD', { containerId, netns, type: 'macvlan', config: node.config({ type: 'macvlan' }) }),
      )
      releases.push(await hold(netns))
      firsts.push(first)
    }
    undo.push(...releases)
    const names = Object.keys(holders).sort()
    assert.deepEqual(recorded(), names)
    for (const first of firsts) first.kill('SIGKILL')
    age(node)
    await eventually('nobody holds it: freed', () => !recorded().includes('nobody'))
    await sleep(1_200) // one round more
    assert.deepEqual(
      recorded(),
      names.filter(name => name !== 'nobody'),
    )
    for (const release of undo.splice(0)) release()
    await eventually('all are freed', () => recorded().length === 0)
    assert.deepEqual(
      node.state().filter(line => line.startsWith(`${node.leases}/`)),
      [],
    )
  })
})

describe('an address for an interface plugin of somebody else, who executes tcnp-ipam', { skip }, () => {
  const callOf = (cloud: CloudNode, containerId: string, netns: string) => ({
    ...{ containerId, netns, type: 'tcnp-ipam' },
    config: { cniVersion: '1.0.0', name: 'podnet', type: 'foreign', ipam: cloud.options().more.ipam },
  })

  test('goes back when its pod has died and nobody sends DEL, and stays while it lives', async () => {
    await using cloud = await makeCloudNode('agent')
    const { node } = cloud
    await using agent = await node.startAgent({ reconcile: 1 })
    const before = cloud.fixedIps()
    const [dead, living] = [makeNetns('pod'), makeNetns('pod')]
    const pods = { dead: callOf(cloud, 'dead', dead.path), living: callOf(cloud, 'living', living.path) }
    const address = resultOf(await node.call('ADD', pods.living)).ips[0].address.split('/')[0]
    resultOf(await node.call('ADD', pods.dead))
    assert.equal(errorOf(await node.call('ADD', pods.living)).code, 104)
    assert.equal(cloud.fixedIps().length, before.length + 2)
    dead.remove()
    age(node)
    await eventually(
      'the address of the dead pod is taken off the port',
      () => cloud.fixedIps().length === before.length + 1,
    )
    await sleep(2_200) // two rounds more
    assert.ok(cloud.fixedIps().includes(address))
    assert.ok(agent.log.some(line => line.includes('its namespace is gone') && line.includes('"dead"')))
    resultOf(await node.call('DEL', pods.living))
    await eventually('nothing is left', () => cloud.fixedIps().length === before.length)
    assert.deepEqual(
      node.state().filter(line => line.startsWith('attachment')),
      [],
    )
  })

  test('is recorded by a process per call as well, and forgotten with DEL and GC', async () => {
    await using cloud = await makeCloudNode('standalone')
    const { node } = cloud
    const recorded = () => node.state().filter(line => line.startsWith('attachment')).length
    const pod = makeNetns('pod')
    for (const containerId of ['one', 'two']) resultOf(await node.call('ADD', callOf(cloud, containerId, pod.path)))
    assert.equal(recorded(), 2)
    resultOf(await node.call('DEL', callOf(cloud, 'one', pod.path)))
    assert.equal(recorded(), 1)
    await sleep(150) // a list knows who is younger than that
    const none = { more: { cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] } }
    resultOf(await node.call('GC', callOf(cloud, '', ''), none))
    assert.equal(recorded(), 0)
  })
})
