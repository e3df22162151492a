// SPDX-License-Identifier: Apache-2.0

import { OpenStackError } from '#openstack'

/** Rounds of work in the background: one at a time, another if asked for meanwhile, later again after a failure. */
export type Rounds = {
  /** Ends the round that is under way when the rounds are closed. */
  readonly signal: AbortSignal
  /** Starts a round, or has another one after that which is under way. */
  kick(): void
  /** Starts one in a while, unless another comes before. */
  kickIn(ms: number): void
  /** Waits for the round that is under way and starts no other. */
  close(): Promise<void>
}

/** What follows on a round: nothing, the next at once, another after a growing pause, or one at a given time. */
export type Next = 'done' | 'again' | 'unfinished' | { readonly inMs: number }

export type RoundsOptions = {
  round(signal: AbortSignal): Promise<Next>
  /** Told of a round that failed; true if it should not be tried again. */
  onFailure(error: unknown): boolean
}

const BACKOFF_MS_MIN = 1_000
const BACKOFF_MS_MAX = 60_000
const RETRY_MS_MIN = 200

export function createRounds({ round, onFailure }: RoundsOptions): Rounds {
  const ending = new AbortController()
  const { signal } = ending
  let flight: Promise<void> | undefined
  let again = false
  let timer: NodeJS.Timeout | undefined
  let backoffMs = 0

  const backOff = () => {
    backoffMs = Math.min(BACKOFF_MS_MAX, Math.max(BACKOFF_MS_MIN, backoffMs * 2))
    return backoffMs
  }

  function later(ms: number): void {
    clearTimeout(timer)
    if (!signal.aborted) timer = setTimeout(kick, ms).unref()
  }

  async function run(): Promise<void> {
    try {
      const next = await round(signal)
      if (next === 'unfinished') later(backOff())
      else backoffMs = 0
      if (next === 'again') again = true
      else if (typeof next === 'object') later(next.inMs)
    } catch (error) {
      // Where telling fails too (the journal's disk is full), the next round is the one to say so.
      const isOver = await Promise.try(onFailure, error).catch(() => false)
      const pauseMs = backOff()
      // Jittered: what failed for one pool failed for its neighbours too.
      if (!isOver) later((askedMs(error) ?? pauseMs) * (0.75 + Math.random() / 2))
    }
  }

  function kick(): void {
    if (signal.aborted) return
    if (flight !== undefined) {
      again = true
      return
    }
    clearTimeout(timer)
    flight = run().finally(() => {
      flight = undefined
      if (!again) return
      again = false
      kick()
    })
  }

  return {
    signal,
    kick,
    kickIn: later,
    async close() {
      clearTimeout(timer)
      ending.abort()
      await flight
    },
  }
}

/** When the service itself, or whoever leaves it alone for a while, says that trying again may help. */
const askedMs = (error: unknown): number | undefined =>
  error instanceof OpenStackError && error.retryAfterMs !== undefined
    ? Math.max(RETRY_MS_MIN, error.retryAfterMs * 1.4)
    : undefined
