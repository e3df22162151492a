// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { findAttachment, type Journal, openJournal } from '#allocator'
import { deadlineIn } from '#base'
import type { Call, Plugin } from '#cni'
import { executedIpam } from './executed-ipam.ts'
import { keyOf } from './record.ts'
import { toCniError } from './to-cni-error.ts'
import type { World } from './world.ts'

const TYPE = 'tcnp-ipam'

function setUp(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-executed-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const netnsFd = openSync('/proc/self/ns/net', 'r')
  t.after(() => closeSync(netnsFd))
  const journal = openJournal(directory)
  t.after(() => journal[Symbol.dispose]())
  /** Containers that have an address. */
  const given = new Set<string>()
  const ipam = {
    type: TYPE,
    // So long that the journal needs another page for it.
    add: async ({ containerId }: Call) => {
      given.add(containerId)
      return { ips: [{ address: '10.0.0.5/24' }], dns: { search: Array.from({ length: 4_000 }, () => 'example.test') } }
    },
    del: async ({ containerId }: Call) => void given.delete(containerId),
  } as unknown as Plugin<World>
  const config = { name: 'cni0', cniVersion: '1.1.0', type: 'anothers', ipam: { type: TYPE } }
  const call: Call = {
    ...{ command: 'ADD', containerId: 'c1', ifName: 'eth0', netns: '/run/netns/c1', netnsFd, args: '', path: [] },
    ...{ stdin: new Uint8Array(0), config, network: 'cni0', cniVersion: '1.1.0', prevResult: undefined, env: {} },
    ...{ deadline: deadlineIn(1_000), signal: new AbortController().signal },
  }
  const world = { journal, bootId: 'boot' } as World
  const state = () => findAttachment(journal, keyOf(call, TYPE))?.state
  return { plugin: executedIpam(ipam), call, world, journal, given, state }
}

/** No page more fits on the disk, as SQLite tells it: for another one it says SQLITE_FULL. */
function fillDisk(journal: Journal): Disposable {
  const { page_count } = journal.sql('PRAGMA page_count').get() as { page_count: number }
  journal.sql(`PRAGMA max_page_count = ${page_count}`).get()
  return { [Symbol.dispose]: () => void journal.sql('PRAGMA max_page_count = 4294967294').get() }
}

test('add() whose result finds no room in the journal fails and keeps the record, so that what was given is released', async t => {
  const { plugin, call, world, journal, given, state } = setUp(t)
  {
    using _full = fillDisk(journal)
    await assert.rejects(plugin.add(call, world), error => {
      const { code, message, details } = toCniError(error)
      assert.deepEqual([code, details], [5, 'see that the data directory is writable and has space left'])
      assert.match(message, /full/)
      return true
    })
  }
  assert.deepEqual([...given], ['c1'])
  // What finds it (the DEL of the failed ADD, the next ADD, the agent) knows that there is something to release.
  assert.equal(state(), 'adding')
  await plugin.del(call, world)
  assert.deepEqual([...given], [])
  assert.equal(state(), undefined)
})

test('add() without room for its record asks for no address', async t => {
  const { plugin, call, world, journal, given, state } = setUp(t)
  const args = 'K=V;'.repeat(20_000)
  {
    using _full = fillDisk(journal)
    await assert.rejects(plugin.add({ ...call, args }, world), error => toCniError(error).code === 5)
  }
  assert.deepEqual([...given], [])
  assert.equal(state(), undefined)
  await plugin.add(call, world)
  assert.equal(state(), 'ready')
})
