// SPDX-License-Identifier: Apache-2.0

import { closeSync, constants, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'

// /proc/sys/net shows the namespace of the thread that opens the file, hence only the *Sync calls.
const path = (key: readonly string[]) => `/proc/sys/net/${key.join('/')}`

/** Reads a setting of the calling thread's namespace, undefined where this kernel has none. Key: path below `net`. */
export function tryReadSysctl(...key: string[]): string | undefined {
  try {
    return readFileSync(path(key), 'latin1').trim()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/**
 * Gives a setting a value without a look at what it has: for a link that was just made, and where a write costs nothing.
 * @returns false where this kernel has no such setting.
 */
export function setSysctl(value: string, ...key: string[]): boolean {
  let fd: number
  try {
    fd = openSync(path(key), constants.O_WRONLY)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
  try {
    writeSync(fd, value)
    return true
  } finally {
    closeSync(fd)
  }
}

/**
 * Makes sure that a setting has a value; writes only where it differs, since some writes take a lock or walk all links.
 * @returns false where this kernel has no such setting (IPv6 switched off at boot).
 */
export function ensureSysctl(value: string, ...key: string[]): boolean {
  const current = tryReadSysctl(...key)
  if (current === undefined) return false
  if (current !== value) writeFileSync(path(key), value)
  return true
}
