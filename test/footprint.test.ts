// SPDX-License-Identifier: Apache-2.0

// Goal: what a call costs the node: a shim that starts at once and needs no memory to speak of, and an agent that serves a
// hundred calls at once within what a node grants to system daemons; GC of a hundred dead attachments leaves none. Needs root.

import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type Attachment,
  assertSameState,
  cniBin,
  makeLab,
  makeManyNetns,
  type Node,
  type RunningAgent,
  resultOf,
  scratch,
  skip,
  start,
} from './nodelab.ts'

const MEMORY_MAX = 512 * 1024 * 1024

/** A control group with a limit of memory, of either version; undefined where none can be made. */
function limitedGroup(): { directory: string; kills: () => number } | undefined {
  const isV1 = existsSync('/sys/fs/cgroup/memory')
  const directory = join(isV1 ? '/sys/fs/cgroup/memory' : '/sys/fs/cgroup', `mooring-test-${process.pid}`)
  try {
    mkdirSync(directory)
    writeFileSync(join(directory, isV1 ? 'memory.limit_in_bytes' : 'memory.max'), String(MEMORY_MAX))
  } catch {
    return undefined
  }
  const events = join(directory, isV1 ? 'memory.oom_control' : 'memory.events')
  return { directory, kills: () => Number(/^oom_kill (\d+)/m.exec(readFileSync(events, 'utf8'))?.[1] ?? 0) }
}

/** How often the threads of a process have stopped waiting, all together. */
const wakings = (pid: number): number =>
  readdirSync(`/proc/${pid}/task`)
    .map(task => readFileSync(`/proc/${pid}/task/${task}/status`, 'utf8'))
    .map(status => Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)![1]))
    .reduce((sum, count) => sum + count, 0)

describe('footprint', { skip }, () => {
  let node: Node
  let agent: RunningAgent | undefined
  let kept: string[]
  let all: Attachment[]
  const group = skip ? undefined : limitedGroup()
  const prefix =
    group === undefined ? [] : ['/bin/sh', '-c', `echo $$ > ${group.directory}/cgroup.procs; exec "$@"`, 'sh']

  before(async () => {
    node = makeLab({ mode: 'agent' }).nodes[0]!
    agent = await node.startAgent({ prefix })
    all = makeManyNetns('pod', 100).map((netns, index) => ({ containerId: `f${index}`, netns }))
    resultOf(await node.call('ADD', all[0]!))
    resultOf(await node.call('DEL', all[0]!))
    kept = node.state()
  })

  after(async () => {
    await agent?.kill('SIGTERM')
    if (group !== undefined) rmdirSync(group.directory)
  })

  test('ROB-03 a call costs at most 60 ms and 60 MiB', async () => {
    const shim = join(cniBin(), 'veth-route')
    const times = []
    for (let count = 0; count < 10; count++)
      times.push((await start([shim], { env: { CNI_COMMAND: 'VERSION' } }).outcome).ms)
    // The least: what else runs on this machine is not the shim's.
    assert.ok(Math.min(...times) < 60, `${times}`)
    const log = join(scratch, 'rss')
    const python = 'import os,sys\np=os.fork()\nif p==0: os.execv(sys.argv[2], sys.argv[2:])\n'
    const measure = `${python}r=os.wait4(p,0)[2]\nopen(sys.argv[1],"w").write(str(r.ru_maxrss))`
    resultOf(await node.call('ADD', all[0]!, { prefix: ['/usr/bin/python3', '-c', measure, log] }))
    resultOf(await node.call('DEL', all[0]!))
    // KiB. The child begins as a copy of its parent, which counts.
    assert.ok(Number(readFileSync(log, 'utf8')) < 60 * 1024)
  })

  test('ROB-03 a hundred calls at once fit into 512 MiB with their agent', {
    skip: group === undefined ? 'no control group for memory can be made here' : false,
  }, async () => {
    const outcomes = await Promise.all(all.map(it => node.call('ADD', it, { prefix })))
    for (const outcome of outcomes) resultOf(outcome)
    assert.equal(group!.kills(), 0)
  })

  test('ROB-03 an agent that has nothing to do sleeps', async () => {
    const quiet = async () => {
      const before = wakings(agent!.pid)
      await sleep(2_000)
      return wakings(agent!.pid) - before
    }
    // Collecting what the calls before left behind takes V8 a moment.
    await sleep(1_000)
    const counts = [await quiet(), await quiet()]
    assert.ok(Math.min(...counts) < 20, `${counts} times in 2 s`)
  })

  test('GC-07 GC of a hundred attachments that nobody knows any more leaves none', async () => {
    for (const it of all) await node.call('ADD', it) // those that are there already refuse it
    await sleep(150) // younger than that, they might be unknown to whoever made the list
    const outcome = await node.call('GC', all[0]!, { more: { cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] } })
    assert.deepEqual([outcome.code, outcome.stdout], [0, ''])
    assertSameState(node.state(), kept)
  })
})
