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
import { eventually, folder, makeLab, type Node, type RunningAgent, resultOf, run, skip } from './nodelab.ts'

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
  /** As if they had been attached a while ago: the agent does not judge what has just come. */
  function age(): void {
    const db = new DatabaseSync(join(node.dataDir, 'journal.db'))
    db.exec('PRAGMA busy_timeout = 5000; UPDATE attachment SET changed_ms = changed_ms - 60000')
    db.close()
  }

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
    age()
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
