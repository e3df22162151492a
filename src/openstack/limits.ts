// SPDX-License-Identifier: Apache-2.0
import { type Deadline, remainingMs } from '#base'

/**
 * What a call is for, the most urgent first: a pod waits for it; it fills a reserve; it gives back what nobody uses; it only
 * looks. Where calls have to wait for their turn, they go in this order.
 */
export const purposes = ['pod', 'refill', 'reclaim', 'look'] as const
export type Purpose = (typeof purposes)[number]

/** How long a caller waits, whether it still does, and what for. A plugin's `Call` can be passed as it is. */
export type Limits = {
  readonly deadline: Deadline
  readonly signal?: AbortSignal | undefined
  /** @default 'look' */
  readonly purpose?: Purpose | undefined
}

/** The longest delay that a timer of Node.js takes, about 24 days. */
const timerMsMax = 2 ** 31 - 1

/** Milliseconds left, as a timer takes them. */
export const timerMs = (deadline: Deadline): number => Math.min(timerMsMax, remainingMs(deadline))

/** Waits `ms`; shorter if the limits end first. True if it waited to the end. */
export function pause(ms: number, limits: Limits): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  if (limits.signal?.aborted) return Promise.resolve(false)
  const left = timerMs(limits.deadline)
  const finish = () => end(ms <= left)
  const timer = setTimeout(finish, Math.min(ms, left))
  const abort = () => end(false)
  const end = (whole: boolean) => {
    clearTimeout(timer)
    limits.signal?.removeEventListener('abort', abort)
    resolve(whole)
  }
  limits.signal?.addEventListener('abort', abort, { once: true })
  return promise
}
