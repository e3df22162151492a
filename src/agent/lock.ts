// SPDX-License-Identifier: Apache-2.0

import { closeSync, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { tryLock } from '#libc'

/**
 * Makes this process the one that writes in a data directory, which is made where it is missing. The kernel holds the
 * lock for as long as the process lives: a killed agent leaves no stale one.
 *
 * @param purpose what cannot be done without it, for the error.
 * @throws {Error} where another process has it, or nobody can write there
 */
export function lockDataDirectory(dataDir: string, purpose: string): Disposable {
  const fd = openLock(dataDir, purpose)
  if (tryLock(fd)) return { [Symbol.dispose]: () => closeSync(fd) }
  closeSync(fd)
  throw new Error(`Cannot ${purpose}: an agent has ${dataDir}. Stop it, or name another directory with --data-dir`)
}

function openLock(dataDir: string, purpose: string): number {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 })
    return openSync(join(dataDir, 'agent.lock'), 'a', 0o600)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(
      `Cannot ${purpose}: cannot use the data directory "${dataDir}": ${reason}. Name another one with --data-dir`,
      { cause: error },
    )
  }
}
