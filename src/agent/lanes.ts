// SPDX-License-Identifier: Apache-2.0

/** Runs work of one key one after the other, in the order it came; work of different keys side by side. */
export type Lanes = {
  run<T>(key: string, work: () => Promise<T>): Promise<T>
  /** Runs work if nothing of that key is at work or waits; undefined where something does. */
  tryRun<T>(key: string, work: () => Promise<T>): Promise<T> | undefined
  /** Resolves when no lane has work any more. */
  idle(): Promise<void>
}

/** Lanes without any work yet. */
export function createLanes(): Lanes {
  const tails = new Map<string, Promise<unknown>>()
  const lanes: Lanes = {
    async run(key, work) {
      const before = tails.get(key)
      const done = (async () => {
        await before?.catch(() => {})
        return await work()
      })()
      tails.set(key, done)
      try {
        return await done
      } finally {
        if (tails.get(key) === done) tails.delete(key)
      }
    },
    tryRun: (key, work) => (tails.has(key) ? undefined : lanes.run(key, work)),
    async idle() {
      while (tails.size > 0) await Promise.allSettled(tails.values())
    },
  }
  return lanes
}
