// SPDX-License-Identifier: Apache-2.0

import type { Journal } from './journal.ts'

/** Whose an address is. `ifName` is empty in files of very old releases; both are empty where a file does not tell. */
export type Owner = { readonly containerId: string; readonly ifName: string }
/** An address, as its file is named, and whose it is. */
export type Reservation = Owner & { readonly address: string }

/** What a visit did to a directory. */
export type IndexChange =
  | { readonly kind: 'rewritten'; readonly all: readonly Reservation[] }
  | { readonly kind: 'changed'; readonly added: readonly Reservation[]; readonly removed: readonly string[] }

/**
 * What the journal remembers of one directory of reservations, so that nobody has to read all its files: true as long as
 * the directory carries the stamp that was stored with it. A lost index costs time, never an address.
 */
export type ReservationIndex = {
  /** The stamp of the directory for which this index is true. */
  stamp(): string | undefined
  /** The addresses of an owner. */
  find(owner: Owner): string[]
  has(address: string): boolean
  addresses(): Set<string>
  store(stamp: string, change: IndexChange): void
  /** Drops everything: the directory is gone. */
  forget(): void
}

type Row = { address: string; container_id: string; if_name: string }

/** What processes that live for one call hand on to each other. */
export function journalIndex(journal: Journal, directory: string): ReservationIndex {
  const { sql } = journal
  const insert = ({ address, containerId, ifName }: Reservation) =>
    sql('INSERT OR REPLACE INTO reservation (directory, address, container_id, if_name) VALUES (?, ?, ?, ?)').run(
      directory,
      address,
      containerId,
      ifName,
    )
  const remove = (address: string) =>
    sql('DELETE FROM reservation WHERE directory = ? AND address = ?').run(directory, address)
  const clear = () => sql('DELETE FROM reservation WHERE directory = ?').run(directory)

  return {
    stamp: () =>
      (sql('SELECT stamp FROM reservation_directory WHERE path = ?').get(directory) as { stamp: string } | undefined)
        ?.stamp,
    find: ({ containerId, ifName }) =>
      (
        sql('SELECT address FROM reservation WHERE directory = ? AND container_id = ? AND if_name = ?').all(
          directory,
          containerId,
          ifName,
        ) as Row[]
      ).map(row => row.address),
    has: address =>
      sql('SELECT 1 FROM reservation WHERE directory = ? AND address = ?').get(directory, address) !== undefined,
    addresses: () => {
      // One text instead of a row per address: with 60 000 of them that is faster.
      const { text } = sql("SELECT group_concat(address, ' ') AS text FROM reservation WHERE directory = ?").get(
        directory,
      ) as { text: string | null }
      return new Set(text?.split(' '))
    },
    store: (stamp, change) =>
      journal.transaction(() => {
        if (change.kind === 'rewritten') {
          clear()
          for (const each of change.all) insert(each)
        } else {
          for (const address of change.removed) remove(address)
          for (const each of change.added) insert(each)
        }
        sql('INSERT OR REPLACE INTO reservation_directory (path, stamp) VALUES (?, ?)').run(directory, stamp)
      }),
    forget: () =>
      journal.transaction(() => {
        clear()
        sql('DELETE FROM reservation_directory WHERE path = ?').run(directory)
      }),
  }
}

const inMemory = new Map<string, ReservationIndex>()

/** What a process that stays remembers by itself: a transaction less for each address. It begins by reading the files. */
export function memoryIndex(directory: string): ReservationIndex {
  const index = inMemory.get(directory) ?? newMemoryIndex(() => inMemory.delete(directory))
  inMemory.set(directory, index)
  return index
}

function newMemoryIndex(forget: () => void): ReservationIndex {
  let stamp: string | undefined
  const owners = new Map<string, Owner>()
  const addresses = new Map<string, Set<string>>()
  const nameOf = ({ containerId, ifName }: Owner) => `${containerId} ${ifName}`
  const remove = (address: string) => {
    const owner = owners.get(address)
    if (owner === undefined) return
    owners.delete(address)
    const theirs = addresses.get(nameOf(owner))
    theirs?.delete(address)
    if (theirs?.size === 0) addresses.delete(nameOf(owner))
  }
  const insert = ({ address, containerId, ifName }: Reservation) => {
    remove(address)
    owners.set(address, { containerId, ifName })
    const theirs = addresses.get(nameOf({ containerId, ifName })) ?? new Set()
    addresses.set(nameOf({ containerId, ifName }), theirs.add(address))
  }
  return {
    stamp: () => stamp,
    find: owner => [...(addresses.get(nameOf(owner)) ?? [])],
    has: address => owners.has(address),
    addresses: () => new Set(owners.keys()),
    store(next, change) {
      if (change.kind === 'rewritten') {
        owners.clear()
        addresses.clear()
        for (const each of change.all) insert(each)
      } else {
        for (const address of change.removed) remove(address)
        for (const each of change.added) insert(each)
      }
      stamp = next
    },
    forget,
  }
}
