// SPDX-License-Identifier: Apache-2.0

/** How long operations took lately, so that a call which cannot end within its caller's time is not begun. */
export type Durations = {
  note(operation: string, ms: number): void
  /** The median of the last ones, in milliseconds; undefined where too little is known, or nothing recent. */
  typicalMs(operation: string): number | undefined
}

/** So many are remembered per operation: an odd number has one in the middle. */
const KEPT = 9
/** Fewer say nothing. */
const KNOWN_MIN = 5
/** What was slow then may be fast now; refused calls would never find out. */
const AGE_MS_MAX = 60_000

type Taken = { readonly ms: number; readonly atMs: number }

export function createDurations(now: () => number = () => performance.now()): Durations {
  const all = new Map<string, Taken[]>()
  return {
    note(operation, ms) {
      const taken = all.get(operation) ?? []
      taken.push({ ms, atMs: now() })
      if (taken.length > KEPT) taken.shift()
      all.set(operation, taken)
    },
    typicalMs(operation) {
      const recent = (all.get(operation) ?? []).filter(each => each.atMs > now() - AGE_MS_MAX)
      if (recent.length < KNOWN_MIN) return undefined
      const sorted = recent.map(each => each.ms).sort((a, b) => a - b)
      return sorted[Math.floor(sorted.length / 2)]
    },
  }
}
