// SPDX-License-Identifier: Apache-2.0

import { closeSync, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { tryLock } from '#libc'

/**
 * Makes this process the one that writes in a data directory, which is made where it is missing. The kernel holds the
 * lock for as long as the process lives: a killed agent leaves no stale one.
 *
 * @param purpose what cannot be done without it, for the error.
 * @throws {Error} where another process has it
 */
export function lockDataDirectory(dataDir: string, purpose: string): Disposable {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  const fd = openSync(join(dataDir, 'agent.lock'), 'a', 0o600)
  if (tryLock(fd)) return { [Symbol.dispose]: () => closeSync(fd) }
  closeSync(fd)
  throw new Error(`Cannot ${purpose}: an agent has ${dataDir}. Stop it, or name another directory with --data-dir`)
}
