// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import {
  type Attachment,
  findAttachment,
  finishAttachment,
  forgetAttachment,
  listAttachments,
  putAttachment,
} from './attachment.ts'
import { JournalError, openJournal } from './journal.ts'

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
