// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { type Journal, openJournal } from '#allocator'
import { LOG_BYTES, startCheckpoints } from './checkpoints.ts'

const directory = mkdtempSync(join(tmpdir(), 'mooring-checkpoints-'))
after(() => rmSync(directory, { recursive: true }))

const MIB = 2 ** 20

const logSize = ({ path }: Journal) => statSync(`${path}-wal`).size

/** Writes 40 KB each time, other pages of the same few. */
function writer(journal: Journal): () => void {
  const put = journal.sql('REPLACE INTO port_lookup VALUES (?, ?, 0)')
  let count = 0
  return () => void put.run(`lookup ${++count % 100}`, 'x'.repeat(40_000))
}

test('the log stays small although somebody writes without a pause', { timeout: 60_000 }, async () => {
  using journal = openJournal(join(directory, 'busy'))
  await using _checkpoints = startCheckpoints(journal, assert.fail, 10)
  const write = writer(journal)
  let largest = 0
  for (let count = 0; count < 2_000; count++) {
    write()
    largest = Math.max(largest, logSize(journal))
    await setTimeout(1)
  }
  assert.ok(largest < 40 * MIB, `${largest} bytes`)
})

test('a log that became large is cut once the journal had its rest', { timeout: 60_000 }, async () => {
  using journal = openJournal(join(directory, 'rested'))
  await using _checkpoints = startCheckpoints(journal, assert.fail, 10)
  const write = writer(journal)
  for (let count = 0; count < 500; count++) write()
  assert.ok(logSize(journal) > LOG_BYTES)
  while (logSize(journal) > LOG_BYTES) {
    await setTimeout(20)
    write()
  }
})

test('the log stays small where the thread that empties it is gone', { timeout: 60_000 }, async () => {
  using journal = openJournal(join(directory, 'alone'))
  const failed = Promise.withResolvers<Error>()
  await using _checkpoints = startCheckpoints({ ...journal, path: directory }, failed.resolve, 10)
  assert.match((await failed.promise).message, /unable to open/)
  const write = writer(journal)
  for (let count = 0; count < 2_000; count++) write()
  assert.ok(logSize(journal) < 40 * MIB, `${logSize(journal)} bytes`)
})
