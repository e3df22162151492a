// SPDX-License-Identifier: Apache-2.0
import { remainingMs } from '#base'
import { retryAfterMs } from './error.ts'
import type { Gate, Operation } from './gate.ts'
import { type Limits, pause } from './limits.ts'
import { type Wire, type WireAnswer, WireError, type WireFailure, type WireRequest } from './wire.ts'

export type HttpCall = WireRequest & {
  readonly operation: Operation
  /** True if carrying the request out twice is the same as once. A GET always counts as such. */
  readonly repeat: boolean
  /**
   * For a request that must not be carried out twice: asked, before it is repeated, whether an earlier try took effect.
   * True ends the call with `found`. An earlier try may still be running in the service when this looks, so the object
   * also needs a name by which a later look can find a double.
   */
  readonly look?: (() => Promise<boolean>) | undefined
  /** True for an answer that looks like a failure of the moment by its status, but is the service's last word. */
  readonly isFinal?: ((answer: WireAnswer) => boolean) | undefined
}

export type HttpOutcome = {
  /** Undefined if `look` found that an earlier try took effect. */
  readonly answer: WireAnswer | undefined
  /** True if this or an earlier try may have been carried out although its answer does not say so. */
  readonly uncertain: boolean
}

/** No answer, after all tries; `uncertain` as in `HttpOutcome`. */
export class HttpError extends Error {
  override readonly name = 'HttpError'
  override readonly cause: WireError
  readonly uncertain: boolean

  constructor(cause: WireError, uncertain: boolean) {
    super(cause.message)
    this.cause = cause
    this.uncertain = uncertain
  }
}

export type HttpOptions = {
  /** Tries of a GET. */
  readonly readTriesMax: number
  /** Tries of a write that may be repeated. */
  readonly writeTriesMax: number
  /** A single try that may be repeated waits no longer than this for its answer. */
  readonly readTryMs: number
  readonly writeTryMs: number
  readonly backoffMs: number
  readonly backoffMsMax: number
  /** Longer demands of `Retry-After` are taken for this. */
  readonly retryAfterMsMax: number
}

export const httpDefaults: HttpOptions = Object.freeze({
  readTriesMax: 5,
  writeTriesMax: 3,
  readTryMs: 15_000,
  // A change of a port with hundreds of addresses takes Neutron a quarter of that.
  writeTryMs: 60_000,
  backoffMs: 200,
  backoffMsMax: 5_000,
  retryAfterMsMax: 60_000,
})

/** Requests with retries where they do no harm. Any status is an answer; what it means is the caller's to say. */
export type Http = {
  /** @throws {HttpError} */
  request(call: HttpCall, limits: Limits): Promise<HttpOutcome>
  close(): Promise<void>
}

/** 500: a fresh Neutron worker answers it to its first GET (Zed), so trying again is worth it. */
const retriedStatuses: ReadonlySet<number> = new Set([429, 500, 502, 503, 504])

/** Those who were told to wait come back within this time after it, or within as long as they waited. */
const SPREAD_MS = 2_000
/** Told "too many" so often, with ever longer pauses, a request fails: its caller shall know. */
const throttledMax = 20

/** What another try in a moment would meet again. */
const notRetried: ReadonlySet<WireFailure> = new Set([
  'Aborted',
  'AnswerTooLarge',
  'TlsFailed',
  'CircuitOpen',
  'TooSlow',
  'LimitReached',
])

export function createHttp(wire: Wire, gate: Gate, options: HttpOptions = httpDefaults): Http {
  /** Per origin, the moment until which a service asked everybody to wait. */
  const held = new Map<string, number>()

  const holdMs = (origin: string) => Math.max(0, (held.get(origin) ?? 0) - performance.now())

  /** Waits out what `Retry-After` asked for, apart, so that the waiting do not all return at the same moment. */
  const waitWhileHeld = async (call: HttpCall, limits: Limits): Promise<WireError | undefined> => {
    const ms = holdMs(call.url.origin)
    if (ms === 0) return undefined
    if (ms < remainingMs(limits.deadline) && (await pause(ms + Math.random() * Math.min(ms, SPREAD_MS), limits)))
      return undefined
    if (limits.signal?.aborted) return new WireError('Aborted', false, 'the caller went away')
    return new WireError(
      'TimeOut',
      false,
      `${call.url.host} asked to wait ${Math.ceil(ms / 1000)} s, longer than the time left`,
      undefined,
      ms,
    )
  }

  const tryOnce = async (call: HttpCall, limits: Limits, tryMs: number): Promise<WireAnswer | WireError> => {
    const wait = await waitWhileHeld(call, limits)
    if (wait !== undefined) return wait
    try {
      const pass = await gate.enter(call.operation, limits)
      try {
        const answer = await wire.exchange(call, limits, { answerMs: tryMs, begun: pass.begun })
        pass.ended(answer)
        return answer
      } catch (error) {
        // Whatever else it is, it says nothing of the service.
        pass.ended(error instanceof WireError ? error : new WireError('Aborted', false, 'not sent', error))
        throw error
      }
    } catch (error) {
      if (error instanceof WireError) return error
      throw error
    }
  }

  return {
    async request(call, limits) {
      const read = call.method === 'GET'
      const triesMax = read ? options.readTriesMax : options.writeTriesMax
      const repeatable = read || call.repeat || call.look !== undefined
      const tryMs = repeatable ? (read ? options.readTryMs : options.writeTryMs) : Number.POSITIVE_INFINITY
      let uncertain = false
      let throttled = 0
      for (let tries = 1; ; tries++) {
        const outcome = await tryOnce(call, limits, tryMs)
        const failed = outcome instanceof WireError
        if (!failed && (!retriedStatuses.has(outcome.status) || call.isFinal?.(outcome)))
          return { answer: outcome, uncertain }

        // Never given to a connection, or refused by a rate limiter: certainly not carried out.
        const untouched = failed ? !outcome.sent : outcome.status === 429
        uncertain ||= !untouched && !read
        const asked = failed ? undefined : retryAfterMs(outcome.headers['retry-after'], Date.now())
        if (asked !== undefined) held.set(call.url.origin, performance.now() + Math.min(asked, options.retryAfterMsMax))
        if (!failed && outcome.status === 429) throttled++
        const delayMs = Math.max(backoff(tries, options), holdMs(call.url.origin))
        const left = tries - throttled < triesMax && throttled < throttledMax
        const refusal = gate.refusal(call.operation.service)
        if (refusal !== undefined) throw new HttpError(refusal, uncertain)
        const again =
          (untouched || repeatable) &&
          !(failed && notRetried.has(outcome.type)) &&
          delayMs < remainingMs(limits.deadline) &&
          (left || (call.look !== undefined && !untouched)) &&
          (await pause(delayMs, limits))
        if (again && !untouched && call.look !== undefined && (await call.look()))
          return { answer: undefined, uncertain }
        if (again && left) continue
        if (failed) throw new HttpError(outcome, uncertain)
        return { answer: outcome, uncertain }
      }
    },
    close: () => wire.close(),
  }
}

/** Doubles per try, between half and the whole of it at random: those who failed together do not return together. */
function backoff(tries: number, options: HttpOptions): number {
  const ms = Math.min(options.backoffMsMax, options.backoffMs * 2 ** (tries - 1))
  return ms * (0.5 + Math.random() / 2)
}
