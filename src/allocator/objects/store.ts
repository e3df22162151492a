// SPDX-License-Identifier: Apache-2.0

import type { Journal } from '../journal.ts'
import { OWNER, ownerKey } from '../owners.ts'
import type { Owner } from '../port/plan.ts'
import {
  type CloudObject,
  DIRTY,
  describedAs,
  type MadeObject,
  type ObjectRequest,
  type ObjectState,
} from './object.ts'

type Row = {
  mark: string
  pool: string
  id: string
  state: ObjectState
  network: string
  container_id: string
  if_name: string
  boot_id: string
  addresses: string
  mac: string
  detail: string
  special: string
  usable_ms: number
  described: string
  flaw: string
  missing_ms: number
  changed_ms: number
}

const NOBODY = "network = '', container_id = '', if_name = '', boot_id = ''"

function fromRow(row: Row): CloudObject {
  return {
    pool: row.pool,
    mark: row.mark,
    id: row.id,
    state: row.state,
    owner:
      row.container_id === ''
        ? undefined
        : { network: row.network, containerId: row.container_id, ifName: row.if_name },
    bootId: row.boot_id,
    addresses: JSON.parse(row.addresses) as CloudObject['addresses'],
    mac: row.mac,
    detail: row.detail,
    special: row.special,
    usableMs: row.usable_ms,
    described: row.described,
    flaw: row.flaw,
    missingMs: row.missing_ms,
    changedMs: row.changed_ms,
  }
}

const all = (journal: Journal, where: string, ...values: (string | number)[]): CloudObject[] =>
  (journal.sql(`SELECT * FROM object WHERE ${where}`).all(...values) as Row[]).map(fromRow)

/** The objects of a pool, or of all, oldest state first. */
export const listObjects = (journal: Journal, pool?: string): CloudObject[] =>
  pool === undefined
    ? all(journal, 'true ORDER BY pool, changed_ms, mark')
    : all(journal, 'pool = ? ORDER BY changed_ms, mark', pool)

/** The objects of a pool that no attachment holds, oldest state first: as many as are in motion, however many are in use. */
export const listLooseObjects = (journal: Journal, pool: string): CloudObject[] =>
  all(journal, "pool = ? AND state IN ('making', 'free', 'releasing', 'removing') ORDER BY changed_ms, mark", pool)

/** The objects that an attachment holds. */
export const listOwnedObjects = (journal: Journal, owner: Owner): CloudObject[] =>
  all(journal, `${OWNER} AND state = 'assigned'`, ...ownerKey(owner))

/** Every object that an attachment holds, of one network or of all. */
export const listAssignedObjects = (journal: Journal, network?: string): CloudObject[] =>
  network === undefined
    ? all(journal, "state = 'assigned'")
    : all(journal, "state = 'assigned' AND network = ?", network)

/** True while objects of a pool are nobody's any more, and the cloud may not have heard of it yet. */
export const hasReleasingObjects = (journal: Journal, pool: string): boolean =>
  ['releasing', 'removing'].some(state => hasObjectIn(journal, pool, state))

/** One object by its mark, undefined where the journal does not know it. */
export const findObject = (journal: Journal, mark: string): CloudObject | undefined => all(journal, 'mark = ?', mark)[0]

/** True while objects are on their way out or to be cleaned, or an answer is lost. */
export const hasObjectWork = (journal: Journal, pool: string): boolean =>
  ['making', 'releasing', 'removing'].some(state => hasObjectIn(journal, pool, state)) ||
  all(journal, "pool = ? AND state = 'free' AND described <> '' AND missing_ms = 0 LIMIT 1", pool).length > 0

const hasObjectIn = (journal: Journal, pool: string, state: string): boolean =>
  journal.sql('SELECT 1 FROM object WHERE pool = ? AND state = ? LIMIT 1').get(pool, state) !== undefined

/** True while the answer of a creation is lost. */
export const hasLostAnswer = (journal: Journal, pool: string): boolean => hasObjectIn(journal, pool, 'making')

/** True while the cloud has an object of the pool that cannot be used. */
export const hasFlawed = (journal: Journal, pool: string): boolean =>
  journal.sql("SELECT 1 FROM object WHERE pool = ? AND state = 'quarantined' AND flaw <> '' LIMIT 1").get(pool) !==
  undefined

/** The free object of a pool that is the first to be usable, if it is so by then. */
export const findFreeObject = (
  journal: Journal,
  { pool, usableByMs }: { pool: string; usableByMs: number },
): CloudObject | undefined =>
  all(
    journal,
    "pool = ? AND state = 'free' AND special = '' AND described = '' AND missing_ms = 0 AND usable_ms <= ? ORDER BY usable_ms LIMIT 1",
    pool,
    usableByMs,
  )[0]

/** How many objects of a pool are in each state. */
export function countObjects(journal: Journal, pool: string): Readonly<Record<ObjectState, number>> {
  const counts = { making: 0, free: 0, assigned: 0, releasing: 0, removing: 0, quarantined: 0 }
  const rows = journal.sql('SELECT state, count(*) AS count FROM object WHERE pool = ? GROUP BY state').all(pool)
  for (const row of rows as { state: ObjectState; count: number }[]) counts[row.state] = row.count
  return counts
}

const insert = (
  journal: Journal,
  pool: string,
  state: ObjectState,
  made: MadeObject,
  special: string,
  described: string,
) =>
  journal
    .sql(
      `INSERT INTO object (mark, pool, id, state, network, container_id, if_name, boot_id, addresses, mac, detail, special,
         usable_ms, described, flaw, missing_ms, changed_ms)
       VALUES (?, ?, ?, ?, '', '', '', '', ?, ?, ?, ?, 0, ?, ?, 0, ?)`,
    )
    .run(
      made.mark,
      pool,
      made.id,
      state,
      JSON.stringify(made.addresses),
      made.mac,
      made.detail,
      special,
      described,
      made.flaw ?? '',
      Date.now(),
    )

/** Records an object that is about to be made: to be called in a `durable` transaction. */
export function recordMaking(journal: Journal, pool: string, { mark, owner, special }: ObjectRequest): void {
  const unknown = { id: '', mark, addresses: [], mac: '', detail: '' }
  insert(journal, pool, 'making', unknown, special, describedAs(owner))
}

/** Records an object of the cloud that nobody can attribute. */
export function recordStrange(journal: Journal, pool: string, made: MadeObject): void {
  const isTaken = findObject(journal, made.mark) !== undefined
  insert(journal, pool, 'quarantined', isTaken ? { ...made, mark: `${made.mark}+${made.id}` } : made, '', DIRTY)
}

/** Records that an object was made: it is nobody's so far, or in quarantine where it cannot be used. */
export function recordMade(journal: Journal, made: MadeObject, usableMs: number): void {
  journal
    .sql(
      `UPDATE object SET state = ?, id = ?, addresses = ?, mac = ?, detail = ?, usable_ms = ?, flaw = ?, changed_ms = ?
       WHERE mark = ? AND state = 'making'`,
    )
    .run(
      made.flaw === undefined ? 'free' : 'quarantined',
      made.id,
      JSON.stringify(made.addresses),
      made.mac,
      made.detail,
      usableMs,
      made.flaw ?? '',
      Date.now(),
      made.mark,
    )
}

/** Gives an object to an attachment. */
export function assignObject(journal: Journal, mark: string, owner: Owner, bootId: string): void {
  journal
    .sql(
      `UPDATE object SET state = 'assigned', network = ?, container_id = ?, if_name = ?, boot_id = ?, changed_ms = ?
       WHERE mark = ?`,
    )
    .run(...ownerKey(owner), bootId, Date.now(), mark)
}

/** Takes an object from whoever has it, with whatever he left on it: nobody gets it before it is cleaned. */
export function disownObject(journal: Journal, mark: string): void {
  journal
    .sql(`UPDATE object SET state = 'releasing', ${NOBODY}, described = ?, changed_ms = ? WHERE mark = ?`)
    .run(DIRTY, Date.now(), mark)
}

/** Keeps an object that is nobody's for the next. */
export function keepObject(journal: Journal, mark: string, usableMs: number): void {
  journal
    .sql("UPDATE object SET state = 'free', usable_ms = ?, changed_ms = ? WHERE mark = ?")
    .run(usableMs, Date.now(), mark)
}

/** Decides that an object goes out of the cloud. */
export function retireObject(journal: Journal, mark: string): void {
  journal.sql("UPDATE object SET state = 'removing', changed_ms = ? WHERE mark = ?").run(Date.now(), mark)
}

/** Takes an object back that its attachment never used: it is as it was before. */
export function returnObject(journal: Journal, mark: string): void {
  journal.sql(`UPDATE object SET state = 'free', ${NOBODY}, changed_ms = ? WHERE mark = ?`).run(Date.now(), mark)
}

/** Takes objects from the attachments of earlier boots, which do not live any more. */
export function disownEarlierBootsObjects(journal: Journal, pool: string, bootId: string): void {
  journal
    .sql(
      `UPDATE object SET state = 'releasing', ${NOBODY}, described = ?, changed_ms = ?
       WHERE pool = ? AND state = 'assigned' AND boot_id <> ?`,
    )
    .run(DIRTY, Date.now(), pool, bootId)
}

/** Counts from now what was changed later than now: the clock was set back, and a cool-down would last as long as it was ahead. */
export function resetObjectTimes(journal: Journal, pool: string): void {
  const nowMs = Date.now()
  journal
    .sql(
      `UPDATE object SET usable_ms = max(0, usable_ms - changed_ms + ?), changed_ms = ?
       WHERE pool = ? AND changed_ms > ?`,
    )
    .run(nowMs, nowMs, pool, nowMs)
}

/** The objects of a pool that are an attachment's, and that the cloud's description does not show as such. */
export function listUndescribed(journal: Journal, pool: string): CloudObject[] {
  // By name: SQLite would take the index of states, and look at every object that is in use.
  const rows = journal
    .sql(
      `SELECT * FROM object INDEXED BY object_undescribed WHERE pool = ? AND state = 'assigned' AND missing_ms = 0
       AND described <> network || char(10) || container_id || char(10) || if_name`,
    )
    .all(pool) as Row[]
  return rows.map(fromRow)
}

/** Notes what the cloud's description of an object says of its owner. */
export function noteDescribed(journal: Journal, mark: string, described: string): void {
  journal.sql('UPDATE object SET described = ? WHERE mark = ?').run(described, mark)
}

/** Notes since when the cloud does not show an object; 0: it does. */
export function noteMissing(journal: Journal, mark: string, missingMs: number): void {
  journal.sql('UPDATE object SET missing_ms = ? WHERE mark = ?').run(missingMs, mark)
}

/** Puts an object that is nobody's into quarantine because it cannot be used, or takes it out when it can again (empty). */
export function noteFlaw(journal: Journal, mark: string, flaw: string): void {
  journal
    .sql('UPDATE object SET state = ?, flaw = ?, changed_ms = ? WHERE mark = ?')
    .run(flaw === '' ? 'free' : 'quarantined', flaw, Date.now(), mark)
}

/** Forgets an object that is not in the cloud. */
export function forgetObject(journal: Journal, mark: string): void {
  journal.sql('DELETE FROM object WHERE mark = ?').run(mark)
}
