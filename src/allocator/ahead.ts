// SPDX-License-Identifier: Apache-2.0

import type { Journal } from './journal.ts'

/** A larger reserve that an operator wants of a pool for a time: before a roll-out. */
export type ReserveAhead = {
  readonly count: number
  /** Until then (ms since 1970). */
  readonly untilMs: number
}

/** Records how many a pool keeps free until then, instead of what was asked for before. @param pool a port's id, or an object pool's key */
export function putReserveAhead(journal: Journal, pool: string, { count, untilMs }: ReserveAhead): void {
  journal.sql('INSERT OR REPLACE INTO reserve_ahead (pool, count, until_ms) VALUES (?, ?, ?)').run(pool, count, untilMs)
}

/** Ends it before its time. */
export function forgetReserveAhead(journal: Journal, pool: string): void {
  journal.sql('DELETE FROM reserve_ahead WHERE pool = ?').run(pool)
}

/** What was asked for and holds still; undefined where nothing does. */
export function findReserveAhead(journal: Journal, pool: string): ReserveAhead | undefined {
  const row = journal
    .sql('SELECT count, until_ms FROM reserve_ahead WHERE pool = ? AND until_ms > ?')
    .get(pool, Date.now()) as { count: number; until_ms: number } | undefined
  return row === undefined ? undefined : { count: row.count, untilMs: row.until_ms }
}

/** How many a pool keeps free: what is configured, or more while an operator wants more. */
export const reserveOf = (journal: Journal, pool: string, configured: number): number =>
  Math.max(configured, findReserveAhead(journal, pool)?.count ?? 0)
