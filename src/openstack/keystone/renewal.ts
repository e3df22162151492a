// SPDX-License-Identifier: Apache-2.0
import { deadlineIn } from '#base'
import { OpenStackError } from '../error.ts'
import { type Limits, timerMs } from '../limits.ts'
import type { TokenCache } from './cache.ts'
import type { Token } from './token.ts'

/** Runs `body` while no other process of this machine runs one under the same lock. */
export type WithLock = <T>(body: () => Promise<T>, limits: Limits) => Promise<T>

/** The token of a session: one request for however many callers, renewed before it ends. */
export type Tokens = {
  /** A token that is valid now. @throws {OpenStackError} */
  current(limits: Limits): Promise<Token>
  /**
   * The successor of a token that a service refused. Callers that were refused at the same time share one login. The same
   * token where it is itself a successor just made: another one would be refused, too.
   */
  replace(refused: Token, limits: Limits): Promise<Token>
  /** The one that is valid, while there is one: then nobody needs Keystone. */
  held(): Token | undefined
  close(): void
}

export type TokensOptions = {
  readonly login: (limits: Limits) => Promise<Token>
  readonly cache?: TokenCache | undefined
  readonly withLock?: WithLock | undefined
  /** The error for a caller whose limits end while others go on waiting. */
  readonly late: (limits: Limits) => OpenStackError
  readonly now?: () => number
  /** The longest that a login takes, whoever waits for it. */
  readonly loginMs?: number
}

/** A token is renewed when this part of its life is over. */
const renewAtPart = 0.8
/** Nearer to its end than this a token is not used: the request must still arrive. */
const marginMs = 5_000
/** After a renewal that failed, the old token is used that long before the next try. */
const renewalPauseMs = 10_000
/** Wrong credentials are not tried again for so long: repeated failures lock accounts. */
const refusalPauseMs = 10_000

export function createTokens(options: TokensOptions): Tokens {
  const now = options.now ?? Date.now
  const withLock: WithLock = options.withLock ?? (body => body())
  let token: Token | undefined
  let flight: Flight | undefined
  let renewalNotBefore = 0
  /** The last that took the place of a refused one. */
  let successor: Token | undefined
  let refusal: { readonly error: OpenStackError; readonly untilMs: number } | undefined

  const usable = (candidate: Token | undefined): candidate is Token =>
    candidate !== undefined && candidate.expiresAtMs - marginAt(candidate) > now()
  const old = (candidate: Token) =>
    now() >= candidate.receivedAtMs + (candidate.expiresAtMs - candidate.receivedAtMs) * renewAtPart

  /** A token from the file, or from Keystone; never the one that was refused. */
  const obtain = async (refused: Token | undefined, limits: Limits): Promise<Token> => {
    const acceptable = (candidate: Token | undefined): candidate is Token =>
      usable(candidate) && !old(candidate) && candidate.id.reveal() !== refused?.id.reveal()
    const { cache } = options
    if (cache === undefined) return options.login(limits)
    const stored = await cache.read()
    if (acceptable(stored)) return stored
    return withLock(async () => {
      const storedMeanwhile = await cache.read()
      if (acceptable(storedMeanwhile)) return storedMeanwhile
      const fresh = await options.login(limits)
      // A file that cannot be written costs the other processes a login each, but no call fails for it.
      await cache.write(fresh).catch(() => undefined)
      return fresh
    }, limits)
  }

  const start = (refused: Token | undefined): Flight => {
    const begun = createFlight(
      async limits => {
        try {
          const fresh = await obtain(refused, limits)
          token = fresh
          return fresh
        } catch (error) {
          if (error instanceof OpenStackError && error.kind === 'auth')
            refusal = { error, untilMs: now() + refusalPauseMs }
          throw error
        }
      },
      options.loginMs ?? 30_000,
      () => {
        if (flight === begun) flight = undefined
      },
    )
    flight = begun
    return begun
  }

  const join = (refused: Token | undefined, limits: Limits): Promise<Token> => {
    if (refusal !== undefined && now() < refusal.untilMs) return Promise.reject(refusal.error)
    return (flight ?? start(refused)).join(limits, options.late)
  }

  const renewAhead = (): void => {
    if (flight !== undefined || now() < renewalNotBefore) return
    renewalNotBefore = now() + renewalPauseMs
    // Nobody waits for it, so nobody's limits end it, and a failure is the next caller's to meet.
    start(undefined).keep()
  }

  return {
    async current(limits) {
      if (!usable(token) && options.cache !== undefined) {
        const stored = await options.cache.read()
        if (usable(stored)) token = stored
      }
      if (!usable(token)) return join(undefined, limits)
      if (!old(token)) return token
      if (options.cache === undefined) {
        renewAhead()
        return token
      }
      // Processes of one call would each begin a renewal and end before it does: here the first one waits for it.
      if (now() < renewalNotBefore) return token
      const aging = token
      return join(undefined, limits).catch((error: unknown) => {
        renewalNotBefore = now() + renewalPauseMs
        if (error instanceof OpenStackError && error.kind === 'transient' && usable(aging)) return aging
        throw error
      })
    },
    async replace(refused, limits) {
      if (token !== undefined && token !== refused && usable(token)) return token
      if (refused === successor && now() - refused.receivedAtMs < refusalPauseMs) return refused
      if (token === refused) token = undefined
      const next = await join(refused, limits)
      // A login that began before the refusal may have found the refused token in the file.
      successor = next.id.reveal() === refused.id.reveal() ? await join(refused, limits) : next
      return successor
    },
    held: () => (usable(token) ? token : undefined),
    close: () => flight?.end(),
  }
}

/** Short lives (labs) must not be all margin. */
const marginAt = (token: Token) => Math.min(marginMs, (token.expiresAtMs - token.receivedAtMs) / 10)

type Flight = {
  join(limits: Limits, late: (limits: Limits) => OpenStackError): Promise<Token>
  /** Lets it run although nobody waits. */
  keep(): void
  end(): void
}

/** One login that many wait for; it ends early when the last of them is gone. */
function createFlight(run: (limits: Limits) => Promise<Token>, ms: number, landed: () => void): Flight {
  const controller = new AbortController()
  const result = run({ deadline: deadlineIn(ms), signal: controller.signal }).finally(() => landed())
  result.catch(() => undefined)
  let waiting = 0
  let kept = false

  const leave = () => {
    waiting--
    if (waiting === 0 && !kept) {
      landed()
      controller.abort()
    }
  }

  return {
    async join(limits, late) {
      waiting++
      const { promise: left, resolve } = Promise.withResolvers<'late'>()
      const giveUp = () => resolve('late')
      const timer = setTimeout(giveUp, timerMs(limits.deadline))
      limits.signal?.addEventListener('abort', giveUp, { once: true })
      if (limits.signal?.aborted) giveUp()
      try {
        const outcome = await Promise.race([result, left])
        if (outcome === 'late') throw late(limits)
        return outcome
      } finally {
        clearTimeout(timer)
        limits.signal?.removeEventListener('abort', giveUp)
        leave()
      }
    },
    keep: () => {
      kept = true
    },
    end: () => controller.abort(),
  }
}
