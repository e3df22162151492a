// SPDX-License-Identifier: Apache-2.0

// Goal: what an address costs does not grow with the leases in the journal. The design allows 0.2 ms of address work per warm
// ADD with 60,000 of them; a machine that does other things gets five times that. What was measured: docs/failure-modes.md.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { deadlineIn } from '#base'
import { type Journal, openJournal } from './journal.ts'
import { fakeDriver } from './objects/fake-driver.ts'
import { openObjectPool } from './objects/pool.ts'
import { releaseObjectsOf, releaseOtherObjects } from './objects/release.ts'
import { fakePort } from './port/fake-port.ts'
import type { Owner } from './port/plan.ts'
import { openPortPool } from './port/pool.ts'
import { releaseOthers, releaseOwner } from './port/release.ts'

const LEASES = 60_000
const ADDS = 200
const BOOT = 'boot-1'
const LIMIT_MS = 1
/** A GC goes through all of them: how long it may keep others waiting at a time, on a machine that does other things. */
const GC_LIMIT_MS = 100

const owner = (id: string): Owner => ({ network: 'n', containerId: id, ifName: 'eth0' })
const limits = () => ({ deadline: deadlineIn(60_000) })
const never = new Promise<never>(() => {})

function journalFor(t: TestContext): { journal: Journal; directory: string } {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-leases-'))
  const journal = openJournal(directory)
  t.after(() => journal[Symbol.dispose]())
  // At the very end: a pool's last round makes its lock anew.
  process.once('exit', () => rmSync(directory, { recursive: true }))
  return { journal, directory }
}

/** Fills a table with copies of its first row, each a lease of its own. */
function fill(journal: Journal, table: string, changes: Readonly<Record<string, string>>, count: number): void {
  const columns = (journal.sql(`PRAGMA table_info(${table})`).all() as { name: string }[]).map(({ name }) => name)
  const values = columns.map(name => changes[name] ?? `first."${name}"`)
  journal
    .sql(
      `WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
       INSERT INTO ${table} SELECT ${values.join(', ')} FROM number, (SELECT * FROM ${table} LIMIT 1) AS first`,
    )
    .run(count)
}

const assigned = {
  state: "'assigned'",
  network: "'n'",
  container_id: "'old' || n",
  if_name: "'eth0'",
  boot_id: `'${BOOT}'`,
}

async function medianMs(work: (id: number) => Promise<unknown>): Promise<number> {
  const times: number[] = []
  for (let id = 0; id < ADDS; id++) {
    const begin = performance.now()
    await work(id)
    times.push(performance.now() - begin)
  }
  return times.sort((a, b) => a - b)[ADDS / 2]!
}

function assertWithin(t: TestContext, what: string, ms: number, limitMs: number): void {
  t.diagnostic(`${what}: ${ms.toFixed(3)} ms`)
  assert.ok(ms < limitMs, `${what} takes ${ms.toFixed(3)} ms, at most ${limitMs}`)
}

/** Looks how long the process serves nobody while a GC goes on: half of the turns have to be short. */
async function assertServing(
  t: TestContext,
  what: string,
  work: Promise<readonly unknown[]>,
  count: number,
): Promise<void> {
  const turns: number[] = []
  let isOver = false
  const ended = work.finally(() => (isOver = true))
  for (let begin = performance.now(); !isOver; begin = performance.now()) {
    await nextTurn()
    turns.push(performance.now() - begin)
  }
  assert.equal((await ended).length, count)
  t.diagnostic(`${what}: ${turns.length} turns, ${turns.reduce((sum, ms) => sum + ms, 0).toFixed(0)} ms`)
  assert.ok(turns.length >= LEASES / 1_000, `${what} lets others run only ${turns.length} times`)
  assertWithin(t, `${what}: its median turn`, turns.sort((a, b) => a - b)[turns.length >> 1]!, GC_LIMIT_MS)
}

test(`mix: a warm address and its release with ${LEASES} leases in the journal`, async t => {
  const { journal, directory } = journalFor(t)
  const port = fakePort()
  const options = { journal, portId: port.id, bootId: BOOT, longLived: true, access: '{}' }
  const settings = { subnetIds: ['s4'], reserve: 1, coolDownMs: 0, usableAfterMs: 0, lockDirectory: directory }
  const first = openPortPool({ ...options, neutron: async () => port, settings })
  await first.settle(limits())
  await first.close()
  journal.sql("DELETE FROM port_address WHERE state = 'foreign'").run()
  fill(journal, 'port_address', { ...assigned, address: "'10.1.' || (n >> 8) || '.' || (n & 255)" }, LEASES)
  fill(
    journal,
    'port_address',
    { state: "'free'", container_id: "''", network: "''", if_name: "''", address: "'192.0.' || n" },
    ADDS,
  )
  const pool = openPortPool({ ...options, neutron: () => never, settings })
  const wish = [{ subnetIds: ['s4'] }]
  const ms = await medianMs(id => pool.acquire(owner(`new${id}`), wish, limits()))
  assertWithin(t, 'ADD', ms, LIMIT_MS)
  assertWithin(t, 'DEL', await medianMs(async id => releaseOwner(journal, owner(`new${id}`))), LIMIT_MS)
  await assertServing(
    t,
    'GC of nothing',
    releaseOthers(journal, 'n', () => true, Date.now()),
    0,
  )
  await assertServing(
    t,
    'GC of all',
    releaseOthers(journal, 'n', () => false, Date.now()),
    LEASES,
  )
})

test(`separate and eni: a warm object and its release with ${LEASES} leases in the journal`, async t => {
  const { journal, directory } = journalFor(t)
  const driver = fakeDriver()
  const options = { journal, pool: 'pool', kind: 'fake', bootId: BOOT, longLived: true, access: '{}', detail: '' }
  const timing = { coolDownMs: 0, usableAfterMs: 0, idleMs: 60_000 }
  const settings = { name: 'objects', reserve: 1, max: 100_000, ...timing, lockDirectory: directory }
  const first = openObjectPool({ ...options, driver: async () => driver, settings })
  await first.settle(limits())
  await first.close()
  fill(journal, 'object', { ...assigned, mark: "'mark' || n", id: "'id' || n" }, LEASES)
  fill(journal, 'object', { state: "'free'", mark: "'free' || n", id: "'free' || n" }, ADDS)
  const pool = openObjectPool({ ...options, driver: () => never, settings })
  const ms = await medianMs(id => pool.acquire(owner(`new${id}`), limits()))
  assertWithin(t, 'ADD', ms, LIMIT_MS)
  const release = await medianMs(async id => releaseObjectsOf(journal, 'fake', owner(`new${id}`)))
  assertWithin(t, 'DEL', release, LIMIT_MS)
  const which = () => ({ kind: 'fake', network: 'n', beforeMs: Date.now() })
  await assertServing(
    t,
    'GC of nothing',
    releaseOtherObjects(journal, which(), () => true),
    0,
  )
  await assertServing(
    t,
    'GC of all',
    releaseOtherObjects(journal, which(), () => false),
    LEASES,
  )
})
