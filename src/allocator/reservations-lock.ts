// SPDX-License-Identifier: Apache-2.0

import { closeSync, constants, openSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Deadline, isPast, remainingMs } from '#base'
import { tryLock } from '#libc'

/** The kernel wakes nobody for a lock that is asked for without waiting: asked again after so long, growing to the last. */
const RETRY_MS = { first: 0.5, factor: 1.6, last: 10 } as const
// The mode of the reference's lock file.
const LOCK_MODE = 0o750

export type LockOptions = {
  readonly deadline: Deadline
  /** Aborted when nobody wants the lock any more. */
  readonly signal?: AbortSignal | undefined
  /** Make the file where it is missing; false: a missing file is nobody's lock. */
  readonly create: boolean
}

/** Who waits for a path in this process, so that it takes turns within itself before it asks the kernel. */
const turns = new Map<string, Promise<void>>()

/**
 * Takes the exclusive flock(2) of a file against this process and all others, in the order of the calls within this one, and
 * without keeping the thread.
 *
 * @returns the lock; disposing of it gives it back.
 * @throws {DOMException} TimeoutError at the deadline, AbortError by the signal.
 * @throws {Error} of openSync where the file cannot be opened; a symbolic link is not followed.
 */
export async function lockFile(path: string, options: LockOptions): Promise<Disposable> {
  const { promise: done, resolve } = Promise.withResolvers<void>()
  const before = turns.get(path)
  const turn = before === undefined ? done : before.then(() => done)
  turns.set(path, turn)
  using undo = new DisposableStack()
  undo.defer(() => {
    resolve()
    if (turns.get(path) === turn) turns.delete(path)
  })
  await before
  stopIfLate(path, options)
  const fd = tryOpen(path, options.create)
  if (fd !== undefined) {
    undo.defer(() => closeSync(fd)) // unlocks
    await waitForLock(fd, path, options)
  }
  return undo.move()
}

function tryOpen(path: string, create: boolean): number | undefined {
  const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants
  try {
    return openSync(path, O_RDWR | O_NOFOLLOW | (create ? O_CREAT : 0), LOCK_MODE)
  } catch (error) {
    if (!create && (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

async function waitForLock(fd: number, path: string, options: LockOptions): Promise<void> {
  for (let pauseMs: number = RETRY_MS.first; !tryLock(fd); pauseMs *= RETRY_MS.factor) {
    stopIfLate(path, options)
    // Processes that began together shall not ask together.
    const ms = Math.min(pauseMs, RETRY_MS.last) * (0.5 + Math.random())
    await sleep(Math.min(ms, remainingMs(options.deadline)), undefined, { signal: options.signal })
  }
}

function stopIfLate(path: string, { deadline, signal }: LockOptions): void {
  signal?.throwIfAborted()
  if (isPast(deadline))
    throw new DOMException(`Cannot lock ${path} before the caller's deadline: other calls hold it`, 'TimeoutError')
}
