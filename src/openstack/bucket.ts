// SPDX-License-Identifier: Apache-2.0

/** Lets `perSecond` pass in the long run, and after a rest what would have passed in three seconds, at least one. */
export type Bucket = {
  readonly perSecond: number
  /** Milliseconds until one may pass; 0 if now. */
  waitMs(): number
  /** One passes. Allowed before its time: those after it then wait longer. */
  take(): void
  /** Changes the speed. */
  change(perSecond: number): void
  /** Takes away what has gathered, and up to one more at random: many that are emptied at the same moment do not go on together. */
  empty(): void
}

const DEPTH_S = 3

/** @param tokens what it begins with; full by default */
export function createBucket(initial: number, now: () => number, tokens = Number.POSITIVE_INFINITY): Bucket {
  let perSecond = initial
  let level = tokens
  let atMs = now()

  const refresh = () => {
    const depth = Math.max(1, perSecond * DEPTH_S)
    const nowMs = now()
    level = Math.min(depth, level + (Math.max(0, nowMs - atMs) * perSecond) / 1000)
    atMs = nowMs
  }
  refresh()
  return {
    get perSecond() {
      return perSecond
    },
    waitMs() {
      refresh()
      return level >= 1 ? 0 : ((1 - level) * 1000) / perSecond
    },
    take() {
      refresh()
      level--
    },
    change(next) {
      refresh()
      perSecond = next
    },
    empty() {
      refresh()
      level = Math.min(level, 0) - Math.random()
    },
  }
}
