// SPDX-License-Identifier: Apache-2.0

import { chmodSync, mkdirSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Deadline, tryParseIp } from '#base'
import type { Journal } from './journal.ts'
import {
  type Content,
  createOwnerFile,
  FRESH_NAME,
  isOlder,
  readOwner,
  removeFile,
  sealDirectory,
  stampOf,
  systemError,
  tryReadText,
  writeHint,
} from './reservations-file.ts'
import { journalIndex, memoryIndex, type Owner, type Reservation, type ReservationIndex } from './reservations-index.ts'
import { lockFile } from './reservations-lock.ts'

export type { Owner, Reservation } from './reservations-index.ts'

export type ReservationsOptions = {
  /**
   * Where is remembered who owns what between visits: in the journal, or, by a process that stays, in its memory.
   * Nowhere: every visit reads every file.
   */
  readonly index: Journal | 'memory' | undefined
  readonly deadline: Deadline
  readonly signal?: AbortSignal | undefined
  /** `create` makes a missing directory; `read` changes nothing on the disk, not even a time. @default write */
  readonly access?: 'create' | 'write' | 'read'
}

// So many files are read before other work of this thread gets its turn: a few milliseconds.
const FILES_PER_TURN = 500
// Asked one by one so often before all taken addresses are fetched at once.
const SINGLE_QUESTIONS = 256
const NOBODY: Owner = { containerId: '', ifName: '' }

/**
 * Opens and locks a directory of reservations in the layout of the reference `host-local`, which may use it at the same time.
 *
 * @returns undefined if there is none. Disposing of it records the changes and unlocks.
 * @throws {SystemError} naming path and reason; {DOMException} if others hold the lock until the deadline.
 */
export function openReservations(
  directory: string,
  options: ReservationsOptions & { readonly access: 'create' },
): Promise<Reservations>
export function openReservations(directory: string, options: ReservationsOptions): Promise<Reservations | undefined>
export async function openReservations(
  directory: string,
  options: ReservationsOptions,
): Promise<Reservations | undefined> {
  const access = options.access ?? 'write'
  const path = join(directory, 'lock')
  const take = () => lockFile(path, { ...options, create: access !== 'read' })
  const index = indexOf(directory, options)
  try {
    const lock = await take().catch(error => {
      if (codeOf(error) !== 'ENOENT' || access !== 'create') throw error
      makeDirectory(directory)
      return take()
    })
    return await Reservations.behind(lock, directory, index, options)
  } catch (error) {
    if (!isAbsence(error) || access === 'create') throw systemError(error, `open ${path}`)
    if (access === 'write') unlessIndexFails(() => index?.forget())
    return undefined
  }
}

function indexOf(directory: string, { index }: ReservationsOptions): ReservationIndex | undefined {
  if (index === undefined) return undefined
  return index === 'memory' ? memoryIndex(directory) : journalIndex(index, directory)
}

/** As the reference has it, whatever the umask is. */
function makeDirectory(directory: string): void {
  const first = mkdirSync(directory, { recursive: true, mode: 0o755 })
  if (first === undefined) return
  for (let made = directory; made.length >= first.length; made = dirname(made)) chmodSync(made, 0o755)
}

/** The addresses that are given away, as files of one directory, below its lock. */
export class Reservations implements Disposable {
  readonly #lock: Disposable
  readonly #directory: string
  readonly #index: ReservationIndex | undefined
  readonly #options: ReservationsOptions
  /** All of them, once the files were read; until then the index is true. */
  #read: Map<string, Owner> | undefined
  /** What this visit changed: the new owner, or undefined for a removed one. */
  readonly #changes = new Map<string, Owner | undefined>()
  /** True once anything in the directory may differ from what the index has. */
  #touched = false
  /** True once the directory was seen to have what neither index nor files told: the next visit reads them again. */
  #doubtful = false
  #taken: Set<string> | undefined
  #questions = 0

  private constructor(
    lock: Disposable,
    directory: string,
    index: ReservationIndex | undefined,
    options: ReservationsOptions,
  ) {
    this.#lock = lock
    this.#directory = directory
    this.#index = index
    this.#options = options
  }

  /** Takes over the lock. */
  static async behind(
    lock: Disposable,
    directory: string,
    index: ReservationIndex | undefined,
    options: ReservationsOptions,
  ): Promise<Reservations> {
    using undo = new DisposableStack()
    undo.use(lock)
    const reservations = new Reservations(lock, directory, index, options)
    const { stamp } = stampOf(directory)
    if (unlessIndexFails(() => index?.stamp()) !== stamp) await reservations.#readAll()
    undo.move()
    return reservations
  }

  /**
   * The addresses of an owner. An `ifName` that is empty means files that name the container alone.
   *
   * Each is looked at before it is believed, so that nobody's address is released on an old record.
   */
  async ownedBy(owner: Owner): Promise<string[]> {
    if (this.#read === undefined) {
      const found = unlessIndexFails(() => this.#index?.find(owner))
      if (found?.every(address => this.#confirms(address, owner))) return found
    }
    const owners = this.#read ?? (await this.#readAll())
    return [...owners].filter(([, each]) => isSame(each, owner)).map(([address]) => address)
  }

  /** All of them, read from their files. Those that do not tell an owner have an empty `containerId`. */
  async list(): Promise<Reservation[]> {
    const owners = this.#read ?? (await this.#readAll())
    return [...owners].map(([address, owner]) => ({ address, ...owner }))
  }

  /** True if the address is given away, as far as is known: only `tryReserve` decides. */
  isTaken(address: string): boolean {
    if (this.#changes.has(address)) return this.#changes.get(address) !== undefined
    if (this.#read !== undefined) return this.#read.has(address)
    if (this.#questions++ < SINGLE_QUESTIONS) return unlessIndexFails(() => this.#index?.has(address)) ?? false
    this.#taken ??= unlessIndexFails(() => this.#index?.addresses()) ?? new Set()
    return this.#taken.has(address)
  }

  /** Gives an address to an owner. @returns false if it is taken. @throws {SystemError} and nothing has changed */
  tryReserve(address: string, owner: Owner): boolean {
    this.#touched = true
    if (!createOwnerFile(this.#directory, address, owner)) {
      // Made by somebody who does not ask for the lock: then nothing is known for sure.
      if (!this.isTaken(address)) this.#doubtful = true
      return false
    }
    this.#note(address, { containerId: owner.containerId, ifName: owner.ifName })
    return true
  }

  /** Takes back what this visit gave away. */
  takeBack(): void {
    for (const [address, owner] of this.#changes) if (owner !== undefined) this.release(address)
  }

  /** Removes a reservation; a missing one is removed. @throws {SystemError} */
  release(address: string): void {
    this.#touched = true
    removeFile(join(this.#directory, address))
    this.#note(address, undefined)
  }

  /** True if the reservation is older than that moment (milliseconds since 1970), and its file empty where `empty` asks for that. */
  isOlder(address: string, thanMs: number, options: { empty?: boolean } = {}): boolean {
    return isOlder(join(this.#directory, address), thanMs, options)
  }

  /** The address that was last given from a range set, undefined where none is noted. */
  lastReserved(set: number): string | undefined {
    return tryReadText(join(this.#directory, lastName(set)))?.trim()
  }

  /** Notes the address that was last given from a range set. @throws {SystemError} */
  noteLastReserved(set: number, address: string): void {
    this.#touched = true
    writeHint(join(this.#directory, lastName(set)), address)
  }

  [Symbol.dispose](): void {
    using _lock = this.#lock
    if (this.#options.access === 'read' || this.#index === undefined || this.#doubtful) return
    if (this.#touched || this.#read !== undefined) unlessIndexFails(() => this.#record(this.#index!))
  }

  #record(index: ReservationIndex): void {
    const stamp = sealDirectory(this.#directory)
    if (stamp === undefined) return
    if (this.#read !== undefined) {
      index.store(stamp, {
        kind: 'rewritten',
        all: [...this.#read].map(([address, owner]) => ({ address, ...owner })),
      })
      return
    }
    const added: Reservation[] = []
    const removed: string[] = []
    for (const [address, owner] of this.#changes)
      if (owner === undefined) removed.push(address)
      else added.push({ address, ...owner })
    index.store(stamp, { kind: 'changed', added, removed })
  }

  #note(address: string, owner: Owner | undefined): void {
    this.#changes.set(address, owner)
    if (owner === undefined) this.#read?.delete(address)
    else this.#read?.set(address, owner)
  }

  #confirms(address: string, owner: Owner): boolean {
    const content = readOwner(join(this.#directory, address))
    // A power cut may have taken the content and left the record.
    return content === 'empty' || isSame(ownerOf(content), owner)
  }

  async #readAll(): Promise<Map<string, Owner>> {
    const owners = new Map<string, Owner>()
    let count = 0
    for (const entry of readdirSync(this.#directory, { withFileTypes: true })) {
      if (entry.name === FRESH_NAME && this.#options.access !== 'read') removeFile(join(this.#directory, entry.name))
      if (tryParseIp(entry.name) === undefined) continue
      if (++count % FILES_PER_TURN === 0) await nextTurn(undefined, { signal: this.#options.signal })
      const content = entry.isFile() ? readOwner(join(this.#directory, entry.name)) : 'other'
      if (content !== 'missing') owners.set(entry.name, ownerOf(content))
    }
    this.#read = owners
    return owners
  }
}

const lastName = (set: number) => `last_reserved_ip.${set}`

const ownerOf = (content: Content): Owner => (typeof content === 'string' ? NOBODY : content)

const isSame = (a: Owner, b: Owner) => a.containerId === b.containerId && a.ifName === b.ifName

const codeOf = (error: unknown): unknown => (error as { code?: unknown }).code

const isAbsence = (error: unknown) => codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR'

/** The index saves work and decides nothing: where it cannot be read or written, the files are read. */
function unlessIndexFails<T>(ask: () => T): T | undefined {
  try {
    return ask()
  } catch {
    return undefined
  }
}
