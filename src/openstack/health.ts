// SPDX-License-Identifier: Apache-2.0

/**
 * What may be asked of a service: `normal`; `allocate-only` (L1), while it fails often: nothing is deleted, since a delete can
 * wait and its outcome would often not be known; `serve-held` (L0), while it does not answer: nothing is sent, and pods get
 * what this node holds.
 */
export type Level = 'normal' | 'allocate-only' | 'serve-held'

export type Health = {
  readonly level: Level
  /** Why, in words; undefined at `normal`. */
  readonly reason?: string | undefined
  /** Milliseconds until the level may change by itself; 0 at `normal`. */
  readonly retryMs: number
}

/** How the levels are called in logs and metrics. */
export const levelNames: Readonly<Record<Level, string>> = {
  normal: 'normal',
  'allocate-only': 'L1 (allocate, do not delete)',
  'serve-held': 'L0 (serve from what is held)',
}

/** Remembers how the last requests to a service went. */
export type History = {
  note(isFailure: boolean): void
  /** Undefined while few fail. */
  flaky(): { readonly failures: number; readonly of: number; readonly retryMs: number } | undefined
}

const KEPT = 20

/**
 * @param failuresMin of the last 20 requests, so many make a service flaky
 * @param calmMs without a failure for this long it is not any more
 */
export function createHistory(
  failuresMin: number,
  calmMs: number,
  now: () => number = () => performance.now(),
): History {
  let last: boolean[] = []
  let failedMs = Number.NEGATIVE_INFINITY
  return {
    note(isFailure) {
      if (isFailure && now() - failedMs > calmMs) last = []
      last.push(isFailure)
      if (last.length > KEPT) last.shift()
      if (isFailure) failedMs = now()
    },
    flaky() {
      const failures = last.filter(each => each).length
      const retryMs = failedMs + calmMs - now()
      return failures >= failuresMin && retryMs > 0 ? { failures, of: last.length, retryMs } : undefined
    },
  }
}
