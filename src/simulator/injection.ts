// SPDX-License-Identifier: Apache-2.0

/**
 * Faults on demand: what goes wrong with which of the next requests, and a record of every request.
 */

/** What happens to a request that an injection matches. */
export type InjectedAct =
  /** Only the latency. */
  | 'delay'
  /** Answered with `status` before anything happened. */
  | 'answer'
  /** Done, then answered with `status` all the same. */
  | 'answer-after'
  /** Connection closed before anything happened. */
  | 'cut'
  /** Done, then the connection closed without an answer. */
  | 'cut-after'
  /** Done, and never answered: the caller's time-out ends it. */
  | 'hang-after'
  /** A read that shows the state of `ageMs` ago. */
  | 'stale'
  /** A read that leaves out the last `missing` entries, or the first (`from`): objects of a list, addresses and pairs of a port. */
  | 'partial'

export type Injection = {
  readonly act: InjectedAct
  /** Matched in full, case does not matter; every method if left out. */
  readonly method?: string
  /** Regular expression on path and query, as in `/network/v2.0/ports/`; every path if left out. */
  readonly path?: string
  /** Matching requests to leave alone first; 0 by default. */
  readonly skip?: number
  /** Matching requests to hit after that; 1 by default, 0 means every one. */
  readonly times?: number
  /** Added before anything else happens, milliseconds. */
  readonly latencyMs?: number
  /** For `answer` and `answer-after`; 503 by default. */
  readonly status?: number
  /** For `answer` and `answer-after`, for instance `retry-after`. */
  readonly headers?: Readonly<Record<string, string>>
  /** For `stale`; 60 000 by default. */
  readonly ageMs?: number
  /** For `partial`; 1 by default. */
  readonly missing?: number
  /** For `partial`: where the missing ones would be; `end` by default. */
  readonly from?: 'start' | 'end'
}

/** One request that was handled. */
export type RequestRecord = {
  readonly sequence: number
  readonly service: string
  readonly method: string
  /** With the query. */
  readonly path: string
  /** 0 if no answer was sent. */
  readonly status: number
  readonly durationMs: number
  /** The injection that it met. */
  readonly injected: InjectedAct | undefined
}

type Armed = { readonly injection: Injection; readonly pattern: RegExp; seen: number; hit: number }
export type Injections = { armed: Armed[]; readonly records: RequestRecord[]; sequence: number }

/** Requests that are remembered; older ones are forgotten, the sequence goes on. */
const RECORDS_MAX = 20_000

const acts: readonly string[] = [
  'delay',
  'answer',
  'answer-after',
  'cut',
  'cut-after',
  'hang-after',
  'stale',
  'partial',
]

export const newInjections = (): Injections => ({ armed: [], records: [], sequence: 0 })

/** Arms an injection. @throws {RangeError|SyntaxError} naming the field that cannot be used. */
export function inject(injections: Injections, injection: Injection): void {
  if (!acts.includes(injection.act)) {
    throw new RangeError(`Cannot inject "${String(injection.act)}": want one of ${acts.join(', ')}`)
  }
  injections.armed.push({ injection, pattern: new RegExp(injection.path ?? ''), seen: 0, hit: 0 })
}

/** The injection that this request meets, the oldest one first; it is used up by that. */
export function meet(injections: Injections, method: string, path: string): Injection | undefined {
  for (const armed of injections.armed) {
    const { injection } = armed
    if (injection.method !== undefined && injection.method.toUpperCase() !== method) continue
    if (!armed.pattern.test(path)) continue
    if (++armed.seen <= (injection.skip ?? 0)) continue
    const times = injection.times ?? 1
    if (times !== 0 && ++armed.hit >= times) injections.armed = injections.armed.filter(other => other !== armed)
    return injection
  }
  return undefined
}

export function record(injections: Injections, entry: Omit<RequestRecord, 'sequence'>): void {
  injections.records.push({ sequence: ++injections.sequence, ...entry })
  if (injections.records.length > RECORDS_MAX) injections.records.splice(0, RECORDS_MAX / 2)
}

/** The requests of this method whose path matches, oldest first; both optional. */
export function recorded(injections: Injections, method?: string, path?: string | RegExp): RequestRecord[] {
  const pattern = new RegExp(path ?? '')
  return injections.records.filter(
    entry => (method === undefined || entry.method === method.toUpperCase()) && pattern.test(entry.path),
  )
}
