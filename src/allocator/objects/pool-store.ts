// SPDX-License-Identifier: Apache-2.0

import type { Journal } from '../journal.ts'
import { OWNER, ownerKey } from '../owners.ts'
import type { Owner } from '../port/plan.ts'
import type { KnownPool, ObjectWant } from './object.ts'

type PoolRow = { pool: string; kind: string; access: string; settings: string; detail: string; seen_boot_id: string }

const fromPoolRow = (row: PoolRow): KnownPool => ({
  pool: row.pool,
  kind: row.kind,
  access: row.access,
  settings: JSON.parse(row.settings) as KnownPool['settings'],
  detail: row.detail,
  seenBootId: row.seen_boot_id,
})

/** One pool, undefined before its first use. */
export function findObjectPool(journal: Journal, pool: string): KnownPool | undefined {
  const row = journal.sql('SELECT * FROM object_pool WHERE pool = ?').get(pool) as PoolRow | undefined
  return row === undefined ? undefined : fromPoolRow(row)
}

/** Every pool that was used. */
export const listObjectPools = (journal: Journal): KnownPool[] =>
  (journal.sql('SELECT * FROM object_pool ORDER BY pool').all() as PoolRow[]).map(fromPoolRow)

/** Records a pool, instead of what was known of it. */
export function putObjectPool(journal: Journal, known: KnownPool): void {
  const { pool, kind, access, settings, detail, seenBootId } = known
  journal
    .sql(
      'INSERT OR REPLACE INTO object_pool (pool, kind, access, settings, detail, seen_boot_id) VALUES (?, ?, ?, ?, ?, ?)',
    )
    .run(pool, kind, access, JSON.stringify(settings), detail, seenBootId)
}

/** Forgets a pool of which nothing is left. */
export function forgetObjectPool(journal: Journal, pool: string): void {
  for (const table of ['object_pool', 'object', 'object_want'])
    journal.sql(`DELETE FROM ${table} WHERE pool = ?`).run(pool)
}

type WantRow = {
  id: number
  pool: string
  network: string
  container_id: string
  if_name: string
  special: string
  expires_ms: number
}

const fromWantRow = (row: WantRow): ObjectWant => ({
  id: row.id,
  pool: row.pool,
  owner: { network: row.network, containerId: row.container_id, ifName: row.if_name },
  special: row.special,
  expiresMs: row.expires_ms,
})

/** Records that an attachment waits for an object. */
export function recordObjectWant(journal: Journal, want: Omit<ObjectWant, 'id'>): void {
  journal
    .sql(
      'INSERT INTO object_want (pool, network, container_id, if_name, special, expires_ms) VALUES (?, ?, ?, ?, ?, ?)',
    )
    .run(want.pool, ...ownerKey(want.owner), want.special, want.expiresMs)
}

/** Who waits for objects of a pool, the longest first, without those whose caller gave up. */
export function listObjectWants(journal: Journal, pool: string): ObjectWant[] {
  const rows = journal
    .sql('SELECT * FROM object_want WHERE pool = ? AND expires_ms >= ? ORDER BY id')
    .all(pool, Date.now()) as WantRow[]
  return rows.map(fromWantRow)
}

/** True while an attachment waits. */
export const isWantingObject = (journal: Journal, owner: Owner): boolean =>
  journal.sql(`SELECT 1 FROM object_want WHERE ${OWNER} LIMIT 1`).get(...ownerKey(owner)) !== undefined

/** Forgets those whose caller gave up. */
export function forgetExpiredObjectWants(journal: Journal, pool: string): void {
  journal.sql('DELETE FROM object_want WHERE pool = ? AND expires_ms < ?').run(pool, Date.now())
}

/** Ends all waits of an attachment. */
export function forgetObjectWantsOf(journal: Journal, owner: Owner): void {
  journal.sql(`DELETE FROM object_want WHERE ${OWNER}`).run(...ownerKey(owner))
}
