// SPDX-License-Identifier: Apache-2.0

/** Attachments whose ADD is under way, or has failed and was neither repeated with success nor given up by a DEL. */
export type Unserved = {
  begun(attachment: string): void
  /** @param isOver true after a success and after a DEL */
  ended(attachment: string, isOver: boolean): void
  /** How long the oldest of them waits, in milliseconds; 0 if there is none. */
  oldestMs(): number
}

/** So many are watched; a node has no more pods than that. */
const WATCHED_MAX = 10_000
/** A runtime that does not come back for so long has forgotten it. */
const FORGOTTEN_MS = 3_600_000

export function watchUnserved(now: () => number = () => performance.now()): Unserved {
  const waiting = new Map<string, { readonly sinceMs: number; lastMs: number }>()
  return {
    begun(attachment) {
      const known = waiting.get(attachment)
      if (known !== undefined) known.lastMs = now()
      else if (waiting.size < WATCHED_MAX) waiting.set(attachment, { sinceMs: now(), lastMs: now() })
    },
    ended(attachment, isOver) {
      if (isOver) waiting.delete(attachment)
    },
    oldestMs() {
      for (const [attachment, { lastMs }] of waiting) if (lastMs < now() - FORGOTTEN_MS) waiting.delete(attachment)
      return Math.max(0, ...[...waiting.values()].map(({ sinceMs }) => now() - sinceMs))
    },
  }
}
