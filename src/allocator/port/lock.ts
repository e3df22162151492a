// SPDX-License-Identifier: Apache-2.0

import { mkdir, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type Deadline, isPast, remainingMs } from '#base'
import { tryLock } from '#libc'
import type { Purpose } from '#openstack'
import { AllocationError } from './error.ts'

/** How long a caller waits, whether it still does, and what for. */
export type Limits = {
  readonly deadline: Deadline
  readonly signal?: AbortSignal | undefined
  readonly purpose?: Purpose | undefined
}

// flock(2) cannot be waited for without blocking the thread. Between these: at random, so that many waiters spread.
const PAUSE_MS_MIN = 10
const PAUSE_MS_MAX = 50
/** Of the time waited so far, between two tries: many who wait for long would keep the processor from those they wait for. */
const PAUSE_SHARE = 0.1
const PAUSE_MS_LONG = 200

/**
 * Runs `body` while no other process of this machine runs one under the same file; the kernel takes the lock back from
 * whoever dies. The file stays: removing it would let two hold "the" lock.
 *
 * @param done asked between two tries and before `body`: true ends the wait, without `body`, because others did what it was for.
 * @throws {AllocationError} when the limits end first.
 */
export async function withFileLock<T>(
  path: string,
  body: () => Promise<T>,
  limits: Limits,
  done: () => boolean = () => false,
): Promise<T | undefined> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  await using file = await open(path, 'a', 0o600)
  const begin = performance.now()
  while (!tryLock(file.fd)) {
    if (done()) return undefined
    if (isPast(limits.deadline))
      throw new AllocationError('late', `Cannot lock ${path}: another process holds it, and the time is over`)
    const longest = Math.min(PAUSE_MS_LONG, Math.max(PAUSE_MS_MAX, (performance.now() - begin) * PAUSE_SHARE))
    await pause(PAUSE_MS_MIN + Math.random() * (longest - PAUSE_MS_MIN), limits)
  }
  return done() ? undefined : await body()
}

/** Waits, shorter if the deadline comes first. @throws {AllocationError} when the caller goes away. */
export function pause(ms: number, { deadline, signal }: Limits): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const leave = () => reject(new AllocationError('aborted', 'Cannot go on waiting: the caller went away'))
  const timer = setTimeout(resolve, Math.min(ms, Math.ceil(remainingMs(deadline))))
  if (signal?.aborted) leave()
  signal?.addEventListener('abort', leave, { once: true })
  return promise.finally(() => {
    clearTimeout(timer)
    signal?.removeEventListener('abort', leave)
  })
}

/** Waits for work that others wait for too; it goes on when this caller does not wait any more. */
export function withinLimits<T>(work: Promise<T>, limits: Limits, what: string): Promise<T> {
  const ending = new AbortController()
  const { deadline, signal } = limits
  const both = signal === undefined ? ending.signal : AbortSignal.any([signal, ending.signal])
  const late = pause(remainingMs(deadline), { deadline, signal: both }).then(() => {
    throw new AllocationError('late', `Cannot ${what}: no answer within the caller’s time`)
  })
  return Promise.race([work, late]).finally(() => {
    ending.abort()
    late.catch(() => {})
  })
}
