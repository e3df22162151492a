// SPDX-License-Identifier: Apache-2.0

/**
 * A moment, on the monotonic clock, after which nobody waits for the answer any more.
 *
 * Passed down instead of time-outs, so that nested waits cannot add up to more than the caller grants.
 */
export type Deadline = { readonly atMs: number }

/** The moment `ms` milliseconds from now. */
export const deadlineIn = (ms: number): Deadline => ({ atMs: performance.now() + ms })

/** Milliseconds left, never negative. */
export const remainingMs = (deadline: Deadline): number => Math.max(0, deadline.atMs - performance.now())

/** True once nothing is left. */
export const isPast = (deadline: Deadline): boolean => deadline.atMs <= performance.now()

/** The earlier of the deadline and `ms` from now. */
export const atMost = (deadline: Deadline, ms: number): Deadline => ({
  atMs: Math.min(deadline.atMs, performance.now() + ms),
})
