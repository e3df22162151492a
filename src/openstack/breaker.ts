// SPDX-License-Identifier: Apache-2.0

export type BreakerOptions = {
  /** Failures in a row until no more requests are sent ... */
  readonly failuresMin: number
  /** ... and the least time between the first and the last of them: a reload cuts many connections in one moment. */
  readonly spanMs: number
  /** After the first opening until one request may try; doubles with each try that fails. */
  readonly pauseMs: number
  readonly pauseMsMax: number
  readonly now?: (() => number) | undefined
}

export const breakerDefaults: BreakerOptions = Object.freeze({
  failuresMin: 5,
  spanMs: 1_000,
  pauseMs: 1_000,
  pauseMsMax: 30_000,
})

/** `closed`: requests pass. `open`: none does. `probing`: one does, and decides. */
export type BreakerState = 'closed' | 'open' | 'probing'

export type Verdict =
  | { readonly kind: 'pass' }
  /** Pass, and say how it went: all others wait for that. */
  | { readonly kind: 'probe' }
  /** Another request tries; ask again when this resolves. */
  | { readonly kind: 'wait'; readonly until: Promise<void> }
  /** Nothing is sent. */
  | { readonly kind: 'refused'; readonly retryMs: number; readonly reason: string }

/** Stops sending requests to a service that fails whatever is asked, and finds out when it is back. */
export type Breaker = {
  ask(): Verdict
  succeeded(): void
  /** @param reason in words, for those who are refused; `isProbe` if the request was let through by the verdict `probe` */
  failed(reason: string, isProbe: boolean): void
  /** The one that tries ended without telling anything of the service: its caller went away. */
  gaveUp(): void
  state(): BreakerState
  /** Why it opened. */
  reason(): string
  /** Milliseconds until the next request may try, 0 while requests pass. */
  retryMs(): number
}

/** @param opened told each time that it opens, with the milliseconds until a request may try */
export function createBreaker(options: BreakerOptions, opened: (retryMs: number) => void = () => {}): Breaker {
  const now = options.now ?? (() => performance.now())
  let failures = 0
  let firstMs = 0
  let reason = ''
  let pauseMs = 0
  let openUntilMs: number | undefined
  let probe: PromiseWithResolvers<void> | undefined

  const endProbe = () => {
    probe?.resolve()
    probe = undefined
  }
  const open = () => {
    pauseMs = pauseMs === 0 ? options.pauseMs : Math.min(options.pauseMsMax, pauseMs * 2)
    // At random, so that the nodes of a cluster do not all try in the same moment.
    const waitMs = pauseMs * (0.75 + Math.random() / 2)
    openUntilMs = now() + waitMs
    opened(waitMs)
  }
  const retryMs = () => (openUntilMs === undefined ? 0 : Math.max(1, openUntilMs - now()))

  return {
    ask() {
      if (openUntilMs === undefined) return { kind: 'pass' }
      if (probe !== undefined) return { kind: 'wait', until: probe.promise }
      if (now() < openUntilMs) return { kind: 'refused', retryMs: retryMs(), reason }
      probe = Promise.withResolvers()
      return { kind: 'probe' }
    },
    succeeded() {
      failures = 0
      pauseMs = 0
      openUntilMs = undefined
      endProbe()
    },
    failed(why, isProbe) {
      if (failures === 0) firstMs = now()
      failures++
      reason = `${failures} requests in a row failed, the last one: ${why}`
      const isEnough = failures >= options.failuresMin && now() - firstMs >= options.spanMs
      // What was under way when it opened says nothing new.
      if (isProbe || (openUntilMs === undefined && isEnough)) open()
      if (isProbe) endProbe()
    },
    gaveUp: endProbe,
    state: () => (openUntilMs === undefined ? 'closed' : probe === undefined ? 'open' : 'probing'),
    reason: () => reason,
    retryMs,
  }
}
