// SPDX-License-Identifier: Apache-2.0
import { remainingMs } from '#base'
import { type BreakerOptions, type BreakerState, breakerDefaults, createBreaker } from './breaker.ts'
import { type Budget, budgetDefaults, createBudget, type OperationKind, type Turn } from './budget.ts'
import { createDurations } from './durations.ts'
import type { ServiceName } from './error.ts'
import { createHistory, type Health } from './health.ts'
import type { Limits } from './limits.ts'
import { type WireAnswer, WireError } from './wire.ts'

/** What a request is, for whoever counts, limits and times requests. */
export type Operation = {
  readonly service: ServiceName
  /** `PUT ports`: method and path without ids. */
  readonly name: string
  readonly kind: OperationKind
}

/** A request that was sent, as it ended. */
export type SentRequest = Operation & {
  /** HTTP status, or the name of what came instead of an answer: `TimeOut`, `ConnectionFailed`. */
  readonly outcome: number | string
  readonly ms: number
  /** How long it had to wait for its turn. */
  readonly waitedMs: number
}

export type GateOptions = {
  /** This node's share of the requests per second that the cloud permits, where somebody knows it. */
  readonly sharePerSecond?: number | undefined
  /**
   * True: services that fail are left alone for a while. For processes that live long: one that lives for a call would
   * forget it, and has nothing else to do.
   */
  readonly watchful?: boolean | undefined
  readonly breaker?: Partial<BreakerOptions> | undefined
  /** Without a failure for so long, deletes are sent again. @default 10 s */
  readonly calmMs?: number | undefined
  /** Told of every request that was sent. */
  readonly onSent?: ((request: SentRequest) => void) | undefined
}

/** What every request passes before it is sent: is the service there, can it answer in time, is it our turn. */
export type Gate = {
  /** @throws {WireError} `CircuitOpen`, `TooSlow`, `LimitReached`, `QueueFull`, `Aborted`; nothing was sent then */
  enter(operation: Operation, limits: Limits): Promise<Pass>
  /** The error for those that would be sent now; undefined while they would. */
  refusal(service: ServiceName): WireError | undefined
  health(service: ServiceName): Health
  breakerState(service: ServiceName): BreakerState
  /** Milliseconds until a service that is left alone may be asked, else 0. */
  retryMs(service: ServiceName): number
  /** Requests per second that may be sent now. */
  perSecond(): number
}

export type Pass = {
  /** It has a connection: from now on the time is the service's. */
  begun(): void
  ended(outcome: WireAnswer | WireError): void
}

/** Of the last 20 requests; a fifth of them and a bit. */
const FLAKY_MIN = 5
const CALM_MS = 10_000
/** A caller who waits no longer than this learns nothing of the service by a time-out. */
const PATIENCE_MS = 1_000

const failedStatuses: ReadonlySet<number> = new Set([500, 502, 503, 504])

/** @param opened told when a service is left alone, with the milliseconds until it may be asked again */
export function createGate(options: GateOptions, opened: (service: ServiceName, retryMs: number) => void): Gate {
  const budget: Budget = createBudget({ ...budgetDefaults, sharePerSecond: options.sharePerSecond })
  const durations = createDurations()
  const watch = (service: ServiceName) => ({
    breaker: createBreaker({ ...breakerDefaults, ...options.breaker }, retryMs => opened(service, retryMs)),
    history: createHistory(FLAKY_MIN, options.calmMs ?? CALM_MS),
  })
  const watched = { keystone: watch('keystone'), neutron: watch('neutron'), nova: watch('nova') }

  /** Whether a request may pass, and whether it decides for others. @throws {WireError} */
  const askBreaker = async (service: ServiceName, limits: Limits): Promise<'pass' | 'probe'> => {
    if (!options.watchful) return 'pass'
    for (;;) {
      const verdict = watched[service].breaker.ask()
      if (verdict.kind === 'refused') throw circuitOpen(service, verdict.reason, verdict.retryMs)
      if (verdict.kind !== 'wait') return verdict.kind
      await endOr(verdict.until, limits)
    }
  }

  const refuseSlow = (operation: Operation, limits: Limits): void => {
    const typicalMs = durations.typicalMs(keyOf(operation))
    const leftMs = remainingMs(limits.deadline)
    if (typicalMs === undefined || typicalMs <= leftMs) return
    throw new WireError(
      'TooSlow',
      false,
      `${operation.service} takes ${seconds(typicalMs)} for it at the moment, and ${seconds(leftMs)} are left, so it was not begun`,
    )
  }

  const note = (operation: Operation, outcome: WireAnswer | WireError, startMs: number, isProbe: boolean): void => {
    const { breaker, history } = watched[operation.service]
    const ms = performance.now() - startMs
    const failure = failureOf(outcome, ms)
    if (failure === undefined && outcome instanceof WireError) {
      if (isProbe) breaker.gaveUp()
      return
    }
    durations.note(keyOf(operation), ms)
    history.note(failure !== undefined)
    if (failure === undefined) breaker.succeeded()
    else if (options.watchful) breaker.failed(failure, isProbe)
  }

  const refusal = (service: ServiceName): WireError | undefined => {
    const { breaker } = watched[service]
    return breaker.state() === 'closed' ? undefined : circuitOpen(service, breaker.reason(), breaker.retryMs())
  }

  return {
    async enter(operation, limits) {
      const beginMs = performance.now()
      const verdict = await askBreaker(operation.service, limits)
      try {
        // Whoever tries whether a service is back must not be kept from it by how long it took before.
        if (verdict === 'pass') refuseSlow(operation, limits)
        const turn = await budget.enter(operation.kind, limits)
        if (turn.kind !== 'now') throw notOurTurn(turn, budget)
      } catch (error) {
        if (verdict === 'probe') watched[operation.service].breaker.gaveUp()
        throw error
      }
      let startMs = performance.now()
      return {
        begun() {
          startMs = performance.now()
        },
        ended(outcome) {
          note(operation, outcome, startMs, verdict === 'probe')
          if (!(outcome instanceof WireError))
            if (outcome.status === 429) budget.refused(startMs)
            else budget.passed()
          options.onSent?.({
            ...operation,
            outcome: outcome instanceof WireError ? outcome.type : outcome.status,
            ms: performance.now() - startMs,
            waitedMs: startMs - beginMs,
          })
        },
      }
    },
    refusal,
    health(service) {
      const { breaker, history } = watched[service]
      if (breaker.state() !== 'closed')
        return { level: 'serve-held', reason: breaker.reason(), retryMs: breaker.retryMs() }
      const flaky = options.watchful ? history.flaky() : undefined
      if (flaky === undefined) return { level: 'normal', retryMs: 0 }
      const { failures, of, retryMs } = flaky
      return { level: 'allocate-only', reason: `${failures} of the last ${of} requests to ${service} failed`, retryMs }
    },
    retryMs: service => watched[service].breaker.retryMs(),
    breakerState: service => watched[service].breaker.state(),
    perSecond: budget.perSecond,
  }
}

const keyOf = ({ service, name }: Operation) => `${service} ${name}`

/** What an outcome says against the service, in words; undefined where it says nothing. */
function failureOf(outcome: WireAnswer | WireError, ms: number): string | undefined {
  if (!(outcome instanceof WireError)) return failedStatuses.has(outcome.status) ? `HTTP ${outcome.status}` : undefined
  if (outcome.type === 'ConnectionFailed' || outcome.type === 'ConnectionCut') return outcome.message
  return outcome.type === 'TimeOut' && outcome.sent && ms >= PATIENCE_MS ? outcome.message : undefined
}

const seconds = (ms: number) => (ms < 9_950 ? `${(ms / 1000).toFixed(1)} s` : `${Math.ceil(ms / 1000)} s`)

const circuitOpen = (service: ServiceName, reason: string, retryMs: number) =>
  new WireError(
    'CircuitOpen',
    false,
    `${service} is left alone for a while: ${reason}; next try in ${seconds(retryMs)}`,
    undefined,
    retryMs,
  )

function notOurTurn({ kind, retryMs }: Exclude<Turn, { kind: 'now' }>, budget: Budget): WireError {
  if (kind === 'aborted') return new WireError('Aborted', false, 'the caller went away')
  const limit = `this node sends ${budget.perSecond().toPrecision(2)} requests a second at most`
  if (kind === 'full') return new WireError('QueueFull', false, `${limit}, and too many wait already`)
  return new WireError(
    'LimitReached',
    false,
    `${limit}, and others come first; next try in ${seconds(retryMs)}, which is longer than the time left`,
    undefined,
    retryMs,
  )
}

/** Waits for the end of somebody else's work. @throws {WireError} where the limits end first */
async function endOr(work: Promise<void>, limits: Limits): Promise<void> {
  const ended = Promise.withResolvers<WireError>()
  const late = () => ended.resolve(new WireError('TimeOut', false, 'no time left while another request tried'))
  const abort = () => ended.resolve(new WireError('Aborted', false, 'the caller went away'))
  const timer = setTimeout(late, Math.min(2 ** 31 - 1, remainingMs(limits.deadline)))
  limits.signal?.addEventListener('abort', abort, { once: true })
  if (limits.signal?.aborted) abort()
  try {
    const outcome = await Promise.race([work, ended.promise])
    if (outcome instanceof WireError) throw outcome
  } finally {
    clearTimeout(timer)
    limits.signal?.removeEventListener('abort', abort)
  }
}
