// SPDX-License-Identifier: Apache-2.0

import type { Journal } from '../journal.ts'
import type { Entry, EntryState } from './plan.ts'

/** Lists of the cloud that others write too: address pairs of a port, routes of a router. */
export type ListKind = 'pairs' | 'routes'

/** Which list: its kind, and the id of the port or router. */
export type ListKey = { readonly kind: ListKind; readonly objectId: string }

/** What an operator chose for a list. */
export type ListSettings = {
  /** Entries that the cloud permits in the list, those of others included. */
  readonly entriesMax: number
  /** After a write, until the list is read again to see whether an overlapping one has undone it. */
  readonly verifyAfterMs: number
  /** Where the lock of the port or router lies. */
  readonly lockDirectory: string
}

/** A list in which we have, or had, entries. */
export type KnownList = ListKey & {
  /** How its cloud is reached, without secrets; JSON of whoever made the session. */
  readonly access: string
  readonly settings: ListSettings
}

const KEY = 'kind = ? AND object_id = ?'
const keyOf = ({ kind, objectId }: ListKey) => [kind, objectId] as const

/** Records a list, instead of what was known of it. */
export function putKnownList(journal: Journal, list: KnownList): void {
  journal
    .sql('INSERT OR REPLACE INTO shared_list (kind, object_id, access, settings) VALUES (?, ?, ?, ?)')
    .run(...keyOf(list), list.access, JSON.stringify(list.settings))
}

/** Every list in which we have, or had, entries. */
export const listKnownLists = (journal: Journal): KnownList[] =>
  journal
    .sql('SELECT * FROM shared_list')
    .all()
    .map(row => ({
      kind: row['kind'] as ListKind,
      objectId: row['object_id'] as string,
      access: row['access'] as string,
      settings: JSON.parse(row['settings'] as string) as ListSettings,
    }))

/** Forgets a list that is gone, or in which nothing of ours is left. */
export function forgetList(journal: Journal, key: ListKey): void {
  for (const table of ['shared_list', 'shared_entry', 'shared_need'])
    journal.sql(`DELETE FROM ${table} WHERE ${KEY}`).run(...keyOf(key))
}

/** The entries of a list that the journal knows. */
export const listEntries = (journal: Journal, key: ListKey): Entry[] =>
  journal
    .sql(`SELECT entry, state, changed_ms FROM shared_entry WHERE ${KEY} ORDER BY entry`)
    .all(...keyOf(key))
    .map(row => ({
      entry: row['entry'] as string,
      state: row['state'] as EntryState,
      changedMs: row['changed_ms'] as number,
    }))

/** Records what is known of an entry; undefined forgets it. */
export function putEntry(journal: Journal, key: ListKey, entry: string, state: EntryState | undefined): void {
  if (state === undefined) {
    journal.sql(`DELETE FROM shared_entry WHERE ${KEY} AND entry = ?`).run(...keyOf(key), entry)
    return
  }
  journal
    .sql('INSERT OR REPLACE INTO shared_entry (kind, object_id, entry, state, changed_ms) VALUES (?, ?, ?, ?, ?)')
    .run(...keyOf(key), entry, state, Date.now())
}

/** What one user needs of a list. `isPending`: it was not in the list so far, and somebody waits for it. */
export type Need = { readonly id: number; readonly user: string; readonly member: string; readonly isPending: boolean }

/** What is needed of a list, the oldest first. */
export const listNeeds = (journal: Journal, key: ListKey): Need[] =>
  journal
    .sql(`SELECT id, user, member, pending FROM shared_need WHERE ${KEY} ORDER BY id`)
    .all(...keyOf(key))
    .map(row => ({
      id: row['id'] as number,
      user: row['user'] as string,
      member: row['member'] as string,
      isPending: row['pending'] !== 0,
    }))

/** True if a user needs this of a list, and has it. */
export const isNeedMet = (journal: Journal, key: ListKey, user: string, member: string): boolean =>
  journal
    .sql(`SELECT 1 FROM shared_need WHERE ${KEY} AND user = ? AND member = ? AND pending = 0 LIMIT 1`)
    .get(...keyOf(key), user, member) !== undefined

/** Records what a user needs of a list, instead of what it needed before. What it needed already is not pending again. */
export function putNeeds(journal: Journal, key: ListKey, user: string, members: readonly string[]): void {
  const wanted = new Set(members)
  for (const { id, member } of listNeeds(journal, key).filter(each => each.user === user))
    if (!wanted.delete(member)) forgetNeed(journal, id)
  for (const member of wanted)
    journal
      .sql('INSERT INTO shared_need (kind, object_id, user, member, pending) VALUES (?, ?, ?, ?, 1)')
      .run(...keyOf(key), user, member)
}

/** Ends a need. */
export function forgetNeed(journal: Journal, id: number): void {
  journal.sql('DELETE FROM shared_need WHERE id = ?').run(id)
}

/** Notes that everything needed of a list is in it. */
export function settleNeeds(journal: Journal, key: ListKey): void {
  journal.sql(`UPDATE shared_need SET pending = 0 WHERE ${KEY} AND pending <> 0`).run(...keyOf(key))
}
