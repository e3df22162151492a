// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import {
  type Attachment,
  findAttachment,
  finishAttachment,
  forgetAttachment,
  listAttachments,
  noteTraces,
  putAttachment,
  tryAddAttachment,
} from './attachment.ts'
import { JournalError, openJournal } from './journal.ts'
import { firstFreeRoutingTable } from './trace-index.ts'

const directory = mkdtempSync(join(tmpdir(), 'mooring-journal-'))
after(() => rmSync(directory, { recursive: true }))

const attachment: Omit<Attachment, 'result' | 'changedMs'> = {
  network: 'cni0',
  containerId: 'c1',
  ifName: 'eth0',
  type: 'veth-route',
  state: 'adding',
  bootId: 'boot',
  netns: '/run/netns/x',
  netnsDevice: 4,
  netnsInode: 4026532000,
  config: '{}',
  traces: '{}',
}

test('openJournal() keeps what was written, in a directory that only its owner reads', () => {
  const path = join(directory, 'kept')
  {
    using journal = openJournal(path)
    putAttachment(journal, attachment)
    finishAttachment(journal, attachment, '{"ips":[]}')
  }
  using journal = openJournal(path)
  const { changedMs, ...found } = findAttachment(journal, attachment)!
  assert.deepEqual(found, { ...attachment, state: 'ready', result: '{"ips":[]}' })
  assert.ok(Math.abs(Date.now() - changedMs) < 10_000)
  assert.equal(statSync(path).mode & 0o777, 0o700)
  forgetAttachment(journal, attachment)
  assert.deepEqual(listAttachments(journal), [])
})

test('openJournal() waits for a process that makes the same journal at the same moment', async () => {
  const path = join(directory, 'made by two')
  mkdirSync(path)
  const other = new Worker(
    `const { workerData, parentPort } = require('node:worker_threads')
     const db = new (require('node:sqlite').DatabaseSync)(workerData)
     db.exec('BEGIN IMMEDIATE')
     parentPort.postMessage('has it')
     Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50)
     db.exec('COMMIT')`,
    { eval: true, workerData: join(path, 'journal.db') },
  )
  await once(other, 'message')
  using journal = openJournal(path)
  assert.deepEqual(listAttachments(journal), [])
})

test('tryAddAttachment() leaves what is known as it is, noteTraces() knows what is not', () => {
  using journal = openJournal(join(directory, 'add'))
  assert.equal(noteTraces(journal, attachment, '{}'), false)
  assert.equal(tryAddAttachment(journal, attachment), true)
  assert.equal(noteTraces(journal, attachment, '{"hostLink":"veth1"}'), true)
  assert.equal(tryAddAttachment(journal, { ...attachment, netns: '/run/netns/another' }), false)
  const { traces, netns } = findAttachment(journal, attachment)!
  assert.deepEqual([traces, netns], ['{"hostLink":"veth1"}', attachment.netns])
})

test('statements about one attachment find it by its whole key', () => {
  using journal = openJournal(join(directory, 'plan'))
  tryAddAttachment(journal, attachment)
  const prepared: string[] = []
  const sql = (text: string) => {
    prepared.push(text)
    return journal.sql(text)
  }
  const counting = { ...journal, sql }
  findAttachment(counting, attachment)
  noteTraces(counting, attachment, '{}')
  finishAttachment(counting, attachment, '')
  for (const text of prepared) {
    const bound = text.replaceAll('?', "'x'")
    const plan = journal.sql(`EXPLAIN QUERY PLAN ${bound}`).all() as { detail: string }[]
    assert.match(
      plan[0]!.detail,
      /^SEARCH attachment USING INDEX \S+ \(network=\? AND container_id=\? AND if_name=\? AND type=\?\)$/,
    )
  }
  assert.equal(prepared.length, 3)
})

test('openJournal() keeps the attachments of a release that had them in the order of their keys', () => {
  const path = join(directory, 'by-key')
  mkdirSync(path)
  {
    const db = new DatabaseSync(join(path, 'journal.db'))
    db.exec(`CREATE TABLE attachment (
       network TEXT NOT NULL, container_id TEXT NOT NULL, if_name TEXT NOT NULL, type TEXT NOT NULL, state TEXT NOT NULL,
       boot_id TEXT NOT NULL, netns TEXT NOT NULL, netns_device INTEGER, netns_inode INTEGER, config TEXT NOT NULL,
       traces TEXT NOT NULL, changed_ms INTEGER NOT NULL, result TEXT NOT NULL DEFAULT '',
       PRIMARY KEY (network, container_id, if_name, type)
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX attachment_table ON attachment (json_extract(traces, '$.table')) WHERE type = 'veth-host';
     CREATE INDEX attachment_master ON attachment (json_extract(traces, '$.master')) WHERE type = 'ipvlan';
     INSERT INTO attachment VALUES ('podnet', 'c1', 'eth0', 'veth-host', 'ready', 'boot', '/run/netns/c1', 4, 4026531840,
       '{}', '{"table":256}', 7, '{"ips":[]}');
     PRAGMA user_version = 7`)
    db.close()
  }
  using journal = openJournal(path)
  const key = { network: 'podnet', containerId: 'c1', ifName: 'eth0', type: 'veth-host' }
  assert.deepEqual(listAttachments(journal), [
    {
      ...{ ...key, state: 'ready', bootId: 'boot', netns: '/run/netns/c1', netnsDevice: 4, netnsInode: 4026531840 },
      ...{ config: '{}', traces: '{"table":256}', changedMs: 7, result: '{"ips":[]}' },
    },
  ])
  assert.equal(firstFreeRoutingTable(journal, 256), 257)
})

test('listAttachments() tells networks apart', () => {
  using journal = openJournal(join(directory, 'networks'))
  putAttachment(journal, attachment)
  putAttachment(journal, { ...attachment, network: 'other' })
  assert.equal(listAttachments(journal).length, 2)
  assert.deepEqual(
    listAttachments(journal, { network: 'other' }).map(found => found.network),
    ['other'],
  )
})

test('transaction() rolls back as a whole, also around an inner one', () => {
  using journal = openJournal(join(directory, 'rollback'))
  assert.throws(
    () =>
      journal.transaction(() => {
        putAttachment(journal, attachment)
        journal.transaction(() => putAttachment(journal, { ...attachment, ifName: 'net1' }), { durable: true })
        throw new Error('no')
      }),
    /no/,
  )
  assert.deepEqual(listAttachments(journal), [])
})

test('openJournal() lets two processes write one after the other', () => {
  const path = join(directory, 'two')
  using first = openJournal(path)
  using second = openJournal(path)
  putAttachment(first, attachment)
  putAttachment(second, { ...attachment, ifName: 'net1' })
  assert.equal(listAttachments(first).length, 2)
})

test('openJournal() names file and reason where it cannot', () => {
  const path = join(directory, 'damaged')
  openJournal(path)[Symbol.dispose]()
  writeFileSync(join(path, 'journal.db'), 'no database at all, but some text that is long enough to be looked at')
  rmSync(join(path, 'journal.db-wal'), { force: true })
  assert.throws(
    () => openJournal(path),
    (error: unknown) => error instanceof JournalError && /Cannot open the journal .*journal\.db: /.test(error.message),
  )
})

test('openJournal() refuses the journal of a newer release', () => {
  const path = join(directory, 'newer')
  {
    using journal = openJournal(path)
    journal.sql('PRAGMA user_version = 99').get()
  }
  assert.throws(() => openJournal(path), /newer release \(version 99\)/)
})

test('a durable transaction that could not begin leaves those after it as fast as they were', () => {
  const path = join(directory, 'not begun')
  using journal = openJournal(path)
  const synchronous = () => ({ ...journal.sql('PRAGMA synchronous').get() })
  const before = synchronous()
  const other = new DatabaseSync(join(path, 'journal.db'))
  other.exec('BEGIN IMMEDIATE')
  journal.sql('PRAGMA busy_timeout = 0').get()
  assert.throws(() => journal.transaction(() => {}, { durable: true }), /locked/)
  other.close()
  assert.deepEqual(synchronous(), before)
})

test('transaction() names the journal and the reason where the disk is full', () => {
  using journal = openJournal(join(directory, 'full'))
  journal.sql('PRAGMA max_page_count = 1').get()
  const write = () =>
    journal.transaction(() => journal.sql(`INSERT INTO port_lookup VALUES (?, '', 0)`).run('x'.repeat(1 << 20)))
  assert.throws(write, {
    name: 'JournalError',
    message: `Cannot write the journal ${journal.path}: database or disk is full`,
  })
})
