// SPDX-License-Identifier: Apache-2.0

import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { deadlineIn, isPast } from '#base'

/** Where the journal lies unless told otherwise. */
export const DATA_DIR = '/var/lib/mooring'
const FILE = 'journal.db'
/** Another process holds the journal for one transaction at a time: microseconds, a sync on a bad day. */
const BUSY_MS = 10_000
const BUSY_RETRY_MS = 2
const SQLITE_BUSY = 5

/**
 * The record of what Mooring made on this node and in the cloud for it: one SQLite file in WAL mode, one writer in
 * agent mode, several one-shot processes in standalone mode.
 *
 * A killed process loses nothing. A power cut may lose the last transactions that were not `durable`.
 */
export type Journal = Disposable & {
  readonly path: string
  /** Prepares a statement once; the same text gives the same statement. */
  sql(text: string): StatementSync
  /**
   * Runs writes as one transaction; an exception rolls back. `durable` waits for the disk: for what must be known after
   * a power cut, the intent before a cloud write.
   *
   * @throws {JournalError} where it cannot be written
   */
  transaction<T>(run: () => T, options?: { durable?: boolean }): T
}

// One step per release that changed the tables; a step is never edited once released.
const migrations: readonly string[] = [
  `CREATE TABLE attachment (
     network TEXT NOT NULL, container_id TEXT NOT NULL, if_name TEXT NOT NULL, type TEXT NOT NULL,
     state TEXT NOT NULL CHECK (state IN ('adding', 'ready', 'deleting')),
     boot_id TEXT NOT NULL, netns TEXT NOT NULL, netns_device INTEGER, netns_inode INTEGER,
     config TEXT NOT NULL, traces TEXT NOT NULL, changed_ms INTEGER NOT NULL,
     PRIMARY KEY (network, container_id, if_name, type)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE reservation_directory (path TEXT PRIMARY KEY, stamp TEXT NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE reservation (
     directory TEXT NOT NULL, address TEXT NOT NULL, container_id TEXT NOT NULL, if_name TEXT NOT NULL,
     PRIMARY KEY (directory, address)
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX reservation_owner ON reservation (directory, container_id, if_name);
   CREATE TABLE port (
     port_id TEXT PRIMARY KEY, access TEXT NOT NULL, settings TEXT NOT NULL, seen_boot_id TEXT NOT NULL,
     revision INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE port_lookup (lookup TEXT PRIMARY KEY, place TEXT NOT NULL, looked_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE port_intent (
     id INTEGER PRIMARY KEY, port_id TEXT NOT NULL, before TEXT NOT NULL, adding TEXT NOT NULL, removing TEXT NOT NULL,
     created_ms INTEGER NOT NULL
   ) STRICT;
   CREATE TABLE port_want (
     id INTEGER PRIMARY KEY, port_id TEXT NOT NULL, subnet_id TEXT NOT NULL, network TEXT NOT NULL,
     container_id TEXT NOT NULL, if_name TEXT NOT NULL, expires_ms INTEGER NOT NULL
   ) STRICT;
   CREATE INDEX port_want_owner ON port_want (container_id, if_name);
   CREATE TABLE port_address (
     port_id TEXT NOT NULL, address TEXT NOT NULL, subnet_id TEXT NOT NULL,
     state TEXT NOT NULL CHECK (state IN ('foreign', 'free', 'assigned', 'releasing', 'quarantined')),
     network TEXT NOT NULL, container_id TEXT NOT NULL, if_name TEXT NOT NULL, boot_id TEXT NOT NULL,
     floating_ip TEXT, usable_ms INTEGER NOT NULL, settling INTEGER NOT NULL, changed_ms INTEGER NOT NULL,
     PRIMARY KEY (port_id, address)
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX port_address_owner ON port_address (container_id, if_name);
   CREATE INDEX port_address_state ON port_address (port_id, state, subnet_id, usable_ms);`,
  `ALTER TABLE attachment ADD COLUMN result TEXT NOT NULL DEFAULT ''`,
  `CREATE TABLE object_pool (
     pool TEXT PRIMARY KEY, kind TEXT NOT NULL, access TEXT NOT NULL, settings TEXT NOT NULL, detail TEXT NOT NULL,
     seen_boot_id TEXT NOT NULL
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE object (
     mark TEXT PRIMARY KEY, pool TEXT NOT NULL, id TEXT NOT NULL,
     state TEXT NOT NULL CHECK (state IN ('making', 'free', 'assigned', 'releasing', 'removing', 'quarantined')),
     network TEXT NOT NULL, container_id TEXT NOT NULL, if_name TEXT NOT NULL, boot_id TEXT NOT NULL,
     addresses TEXT NOT NULL, mac TEXT NOT NULL, detail TEXT NOT NULL, special TEXT NOT NULL, usable_ms INTEGER NOT NULL,
     described TEXT NOT NULL, flaw TEXT NOT NULL, missing_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX object_owner ON object (container_id, if_name);
   CREATE INDEX object_state ON object (pool, state, usable_ms);
   CREATE INDEX object_undescribed ON object (pool) WHERE state = 'assigned' AND missing_ms = 0
     AND described <> network || char(10) || container_id || char(10) || if_name;
   CREATE TABLE object_want (
     id INTEGER PRIMARY KEY, pool TEXT NOT NULL, network TEXT NOT NULL, container_id TEXT NOT NULL, if_name TEXT NOT NULL,
     special TEXT NOT NULL, expires_ms INTEGER NOT NULL
   ) STRICT;
   CREATE INDEX object_want_owner ON object_want (container_id, if_name);`,
  `CREATE TABLE shared_list (
     kind TEXT NOT NULL, object_id TEXT NOT NULL, access TEXT NOT NULL, settings TEXT NOT NULL,
     PRIMARY KEY (kind, object_id)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE shared_entry (
     kind TEXT NOT NULL, object_id TEXT NOT NULL, entry TEXT NOT NULL,
     state TEXT NOT NULL CHECK (state IN ('foreign', 'adding', 'held', 'removing', 'removed')), changed_ms INTEGER NOT NULL,
     PRIMARY KEY (kind, object_id, entry)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE shared_need (
     id INTEGER PRIMARY KEY, kind TEXT NOT NULL, object_id TEXT NOT NULL, user TEXT NOT NULL, member TEXT NOT NULL,
     pending INTEGER NOT NULL
   ) STRICT;
   CREATE INDEX shared_need_list ON shared_need (kind, object_id, user);`,
  `ALTER TABLE port_want ADD COLUMN fallbacks TEXT NOT NULL DEFAULT '[]';
   ALTER TABLE port_want ADD COLUMN address TEXT NOT NULL DEFAULT '';
   ALTER TABLE port_intent ADD COLUMN naming TEXT NOT NULL DEFAULT '[]';
   CREATE TABLE port_full (
     port_id TEXT NOT NULL, subnet_id TEXT NOT NULL, until_ms INTEGER NOT NULL, PRIMARY KEY (port_id, subnet_id)
   ) STRICT, WITHOUT ROWID;`,
  `CREATE TABLE reserve_ahead (
     pool TEXT PRIMARY KEY, count INTEGER NOT NULL, until_ms INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;`,
  `CREATE INDEX attachment_table ON attachment (json_extract(traces, '$.table')) WHERE type = 'veth-host';
   CREATE INDEX attachment_master ON attachment (
     json_extract(traces, '$.master'), json_extract(traces, '$.mode'), json_extract(traces, '$.flags')
   ) WHERE type = 'ipvlan';`,
  // With a row number: rows of this size, kept in the order of their keys, overflow their pages (an ADD wrote ten, and now four).
  `ALTER TABLE attachment RENAME TO attachment_by_key;
   CREATE TABLE attachment (
     id INTEGER PRIMARY KEY,
     network TEXT NOT NULL, container_id TEXT NOT NULL, if_name TEXT NOT NULL, type TEXT NOT NULL,
     state TEXT NOT NULL CHECK (state IN ('adding', 'ready', 'deleting')),
     boot_id TEXT NOT NULL, netns TEXT NOT NULL, netns_device INTEGER, netns_inode INTEGER,
     config TEXT NOT NULL, traces TEXT NOT NULL, changed_ms INTEGER NOT NULL, result TEXT NOT NULL,
     UNIQUE (network, container_id, if_name, type)
   ) STRICT;
   INSERT INTO attachment (network, container_id, if_name, type, state, boot_id, netns, netns_device, netns_inode,
     config, traces, changed_ms, result)
     SELECT network, container_id, if_name, type, state, boot_id, netns, netns_device, netns_inode,
       config, traces, changed_ms, result FROM attachment_by_key;
   DROP TABLE attachment_by_key;
   CREATE INDEX attachment_table ON attachment (json_extract(traces, '$.table'), type) WHERE type = 'veth-host';
   CREATE INDEX attachment_master ON attachment (
     json_extract(traces, '$.master'), json_extract(traces, '$.mode'), json_extract(traces, '$.flags'), type
   ) WHERE type = 'ipvlan';`,
]

/** The journal cannot be used: no space, no permission, damaged, or of a newer release. */
export class JournalError extends Error {
  override readonly name = 'JournalError'
}

/** Opens the journal below `directory`, making or upgrading it. @throws {JournalError} naming file and reason */
export function openJournal(directory: string): Journal {
  const path = join(directory, FILE)
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    const db = new DatabaseSync(path)
    try {
      return journalOf(db, path)
    } catch (error) {
      // It may hold a lock, on which whoever mends the file would wait.
      db.close()
      throw error
    }
  } catch (error) {
    if (error instanceof JournalError) throw error
    throw new JournalError(`Cannot open the journal ${path}: ${(error as Error).message}`, { cause: error })
  }
}

/** Whether anything was ever recorded below `directory`: opening the journal makes it. */
export const hasJournal = (directory: string): boolean => existsSync(join(directory, FILE))

/** A journal that is on no disk, for work that nobody needs to know of. */
export const memoryJournal = (): Journal => journalOf(new DatabaseSync(':memory:'), ':memory:')

/**
 * Puts a journal that is new into WAL mode. Of two processes that do so at the same moment SQLite refuses one at once, since
 * each might wait for the other's read lock for ever: its own waiting (busy_timeout) does not hold here.
 */
function enterWalMode(db: DatabaseSync): void {
  for (const end = deadlineIn(BUSY_MS); ; ) {
    try {
      db.exec('PRAGMA journal_mode = WAL')
      return
    } catch (error) {
      if ((error as { errcode?: number }).errcode !== SQLITE_BUSY || isPast(end)) throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, BUSY_RETRY_MS)
    }
  }
}

function journalOf(db: DatabaseSync, path: string): Journal {
  db.exec(`PRAGMA busy_timeout = ${BUSY_MS}; PRAGMA synchronous = NORMAL`)
  enterWalMode(db)
  const statements = new Map<string, StatementSync>()
  const sql = (text: string) => {
    const statement = statements.get(text) ?? db.prepare(text)
    statements.set(text, statement)
    return statement
  }
  let depth = 0
  function transaction<T>(run: () => T, { durable = false } = {}): T {
    if (depth > 0) return run() // part of the outer one
    if (durable) db.exec('PRAGMA synchronous = FULL')
    depth++
    try {
      db.exec('BEGIN IMMEDIATE')
      const value = run()
      db.exec('COMMIT')
      return value
    } catch (error) {
      if (db.isTransaction) db.exec('ROLLBACK')
      if ((error as NodeJS.ErrnoException).code !== 'ERR_SQLITE_ERROR') throw error
      throw new JournalError(`Cannot write the journal ${path}: ${(error as Error).message}`, { cause: error })
    } finally {
      depth--
      if (durable) db.exec('PRAGMA synchronous = NORMAL')
    }
  }
  migrate(db, transaction)
  return { path, sql, transaction, [Symbol.dispose]: () => db.close() }
}

function migrate(db: DatabaseSync, transaction: Journal['transaction']): void {
  const version = () => (db.prepare('PRAGMA user_version').get() as { user_version: number }).user_version
  if (version() === migrations.length) return
  transaction(() => {
    // Read again within the transaction: another process may have been first.
    const from = version()
    if (from > migrations.length) throw new Error(`it is of a newer release (version ${from})`)
    for (const step of migrations.slice(from)) db.exec(step)
    db.exec(`PRAGMA user_version = ${migrations.length}`)
  })
}
