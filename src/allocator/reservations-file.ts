// SPDX-License-Identifier: Apache-2.0

import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  futimesSync,
  linkSync,
  lstatSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { SystemError } from '#libc'
import type { Owner } from './reservations-index.ts'

// The files of one directory of reservations, as containernetworking/plugins writes them (plugins/ipam/host-local/backend/disk):
// the address is the name, the owner the content. Every function works below a lock that the caller holds.

/** What a file says about its owner. `other`: not a container's, or no file; `empty`: nothing, as a power cut leaves it. */
export type Content = Owner | 'missing' | 'empty' | 'other'

/** Becomes an address when it is complete. One at a time, because of the lock. */
export const FRESH_NAME = '.mooring-new'

const FILE_MODE = 0o600
// Kernels before 6.13 stamp files with the time of the last tick, at most 10 ms ago.
const TICK_MS = 10

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY } = constants
// Specification, "Parameters".
const containerIdForm = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/
const ifNameForm = /^[^\s/:]{0,15}$/
// The longest container id that runtimes use has 64 characters; a longer file is read whole.
const chunk = new Uint8Array(512)
const decoder = new TextDecoder()

/** The text of a file. */
const formatOwner = ({ containerId, ifName }: Owner): string => `${containerId}\r\n${ifName}`

/** Reads what `formatOwner` wrote, or an id alone, as old releases wrote it. */
function parseOwner(text: string): Owner | 'empty' | 'other' {
  const trimmed = text.trim()
  if (trimmed === '') return 'empty'
  const split = trimmed.indexOf('\r\n')
  const [containerId, ifName] = split < 0 ? [trimmed, ''] : [trimmed.slice(0, split), trimmed.slice(split + 2)]
  return containerIdForm.test(containerId) && ifNameForm.test(ifName) ? { containerId, ifName } : 'other'
}

/** Whose the file is. Never follows a link, never waits for a pipe. @throws {SystemError} */
export function readOwner(path: string): Content {
  let fd: number
  try {
    fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  } catch (error) {
    switch (codeOf(error)) {
      case 'ENOENT':
        return 'missing'
      case 'ELOOP':
      case 'ENXIO':
        return 'other'
    }
    throw systemError(error, `read ${path}`)
  }
  try {
    const length = readSync(fd, chunk, 0, chunk.length, 0)
    if (length < chunk.length) return parseOwner(decoder.decode(chunk.subarray(0, length)))
    return parseOwner(readFileSync(fd, 'utf8'))
  } catch (error) {
    if (codeOf(error) === 'EISDIR') return 'other'
    throw systemError(error, `read ${path}`)
  } finally {
    closeSync(fd)
  }
}

/**
 * Makes the file of an address with its owner in it, at once: whoever sees it sees all of it.
 *
 * @returns false if there is something of that name.
 * @throws {SystemError}, and nothing is left.
 */
export function createOwnerFile(directory: string, address: string, owner: Owner): boolean {
  const path = join(directory, address)
  const fresh = attempt(`reserve ${path}`, () => writeFresh(directory, formatOwner(owner)))
  try {
    linkSync(fresh, path)
    return true
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false
    throw systemError(error, `reserve ${path}`)
  } finally {
    removeFile(fresh)
  }
}

/**
 * Writes a hint: a small text that may be lost or cut by a crash.
 *
 * In place, because ext4 waits a millisecond for the disk when a file is emptied before it is written, or replaced by another
 * (mount option auto_da_alloc).
 *
 * @throws {SystemError}
 */
export function writeHint(path: string, text: string): void {
  const open = () => openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, FILE_MODE)
  attempt(`write ${path}`, () => {
    let fd: number
    try {
      fd = open()
    } catch (error) {
      if (codeOf(error) !== 'ELOOP') throw error
      unlinkSync(path) // a symbolic link: not ours to follow
      fd = open()
    }
    try {
      const bytes = writeSync(fd, text, 0)
      if (fstatSync(fd).size > bytes) ftruncateSync(fd, bytes)
    } finally {
      closeSync(fd)
    }
  })
}

/** The text of a small file, undefined where it is missing or no file. */
export function tryReadText(path: string): string | undefined {
  try {
    const fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    try {
      return decoder.decode(chunk.subarray(0, readSync(fd, chunk, 0, chunk.length, 0)))
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    if (['ENOENT', 'ELOOP', 'ENXIO', 'EISDIR'].includes(codeOf(error) ?? '')) return undefined
    throw systemError(error, `read ${path}`)
  }
}

/** Removes a file; a missing one is removed. @throws {SystemError} */
export function removeFile(path: string): void {
  try {
    unlinkSync(path)
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw systemError(error, `remove ${path}`)
  }
}

/** True if the file was there before that moment (milliseconds since 1970), and has no content where `empty` asks for that. */
export function isOlder(path: string, thanMs: number, { empty = false } = {}): boolean {
  const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false })
  if (stat === undefined || (empty && (!stat.isFile() || stat.size > 0n))) return false
  // Our own files carry the exact time (`writeFresh`); where both times agree the kernel gave them.
  const lagMs = stat.mtimeNs === stat.ctimeNs ? TICK_MS : 0
  return Number(stat.mtimeNs / 1000n) / 1000 + lagMs < thanMs
}

/** Identifies a state of the directory: any name that comes or goes changes it, at the latest with the clock's next tick. */
export function stampOf(directory: string): { stamp: string; mtimeMs: number } {
  const { dev, ino, mtimeNs, ctimeNs } = attempt(`look at ${directory}`, () => statSync(directory, { bigint: true }))
  return { stamp: [dev, ino, mtimeNs, ctimeNs].join(':'), mtimeMs: Number(mtimeNs / 1_000_000n) }
}

/**
 * Sets the directory's time of modification to a moment in the past that nobody else will set. Without this a change by
 * another program in the same tick of the kernel's clock would leave the stamp as it is.
 *
 * @returns the stamp from now on, undefined where the file system does not keep such a time.
 */
export function sealDirectory(directory: string): string | undefined {
  const nowMs = Date.now()
  const sealMs = nowMs - 2000 - Math.random() * 1000
  attempt(`set the time of ${directory}`, () => utimesSync(directory, nowMs / 1000, sealMs / 1000))
  const { stamp, mtimeMs } = stampOf(directory)
  // Some file systems keep whole seconds, and a double is a fraction of a microsecond off.
  return mtimeMs < sealMs + 1 && mtimeMs > sealMs - 2000 ? stamp : undefined
}

function writeFresh(directory: string, text: string): string {
  const path = join(directory, FRESH_NAME)
  try {
    const fd = openFresh(path)
    try {
      writeFileSync(fd, text)
      const nowS = Date.now() / 1000
      futimesSync(fd, nowS, nowS)
    } finally {
      closeSync(fd)
    }
    return path
  } catch (error) {
    // The first error counts: a disk that is full, most often.
    unlinkIfThere(path)
    throw error
  }
}

function openFresh(path: string): number {
  const open = () => openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, FILE_MODE)
  try {
    return open()
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
    // A killed process left it. It may be a second name of a reservation, so it is not written to.
    unlinkSync(path)
    return open()
  }
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path)
  } catch {
    // It is found and removed when the directory is read again.
  }
}

function attempt<T>(action: string, run: () => T): T {
  try {
    return run()
  } catch (error) {
    throw systemError(error, action)
  }
}

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code

/** Says in the error what was to be done. */
export function systemError(error: unknown, action: string): unknown {
  const { errno, syscall } = error as NodeJS.ErrnoException
  if (!(error instanceof Error) || error instanceof SystemError || errno === undefined) return error
  return new SystemError(syscall ?? '', -errno, action)
}
