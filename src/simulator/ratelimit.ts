// SPDX-License-Identifier: Apache-2.0

/** A rate limiter in front of all services, as public clouds have one: so many requests a second, and one second's worth at once. */
import type { Answer } from './call.ts'

export type RateLimit = {
  /** Counts a request. @returns the refusal, or undefined where it may pass */
  refuse(perSecond: number): Answer | undefined
}

const refusal: Answer = {
  status: 429,
  body: { error: { code: 429, title: 'Too Many Requests', message: 'API rate limit exceeded' } },
  headers: { 'retry-after': '1' },
}

export function newRateLimit(): RateLimit {
  let tokens = Number.POSITIVE_INFINITY
  let atMs = performance.now()
  return {
    refuse(perSecond) {
      if (perSecond === 0) return undefined
      const nowMs = performance.now()
      tokens = Math.min(perSecond, tokens + ((nowMs - atMs) * perSecond) / 1000)
      atMs = nowMs
      if (tokens < 1) return refusal
      tokens--
      return undefined
    },
  }
}
