// SPDX-License-Identifier: Apache-2.0
import { remainingMs } from '#base'
import { type Bucket, createBucket } from './bucket.ts'
import { type Limits, purposes, timerMs } from './limits.ts'

/** Kinds of requests that have a bucket each: what costs a service much is sent seldom, what costs little is not held up by it. */
export type OperationKind = 'login' | 'read' | 'write' | 'create' | 'delete'

export type BudgetOptions = {
  /** Requests per second by kind, at most. */
  readonly perSecond: Readonly<Record<OperationKind, number>>
  /**
   * This node's share of what the cloud permits, all requests together, where somebody knows it. The first request then comes
   * at a random moment within the time of one, so that nodes which start together do not ask together.
   */
  readonly sharePerSecond?: number | undefined
  /** Requests that wait for their turn before further ones are refused. */
  readonly waitingMax: number
  readonly now?: (() => number) | undefined
}

/** More than a healthy node ever sends, little enough that one which runs wild harms nobody. */
export const budgetDefaults: Omit<BudgetOptions, 'sharePerSecond'> = Object.freeze({
  perSecond: Object.freeze({ login: 5, read: 200, write: 50, create: 50, delete: 50 }),
  waitingMax: 2048,
})

/** `late`: the turn comes after the limits end, in `retryMs`. `full`: too many wait. */
export type Turn = { readonly kind: 'now' } | { readonly kind: 'late' | 'full' | 'aborted'; readonly retryMs: number }

/** How many requests a session sends, and in which order. */
export type Budget = {
  /** Waits for the turn of a request; says at once if it does not come in time. */
  enter(kind: OperationKind, limits: Limits): Promise<Turn>
  /** A service said "too many" (429) to a request that had its turn at `turnMs` of the budget's clock. */
  refused(turnMs: number): void
  /** A service answered otherwise. */
  passed(): void
  /** Requests per second that all kinds together may send now. */
  perSecond(): number
}

/** One in 50 seconds: a node that is refused whatever it does still finds out when that ends. */
const PER_SECOND_MIN = 0.02
/** How fast a node really was when it was refused, is seen over this time. */
const SEEN_MS = 2_000
/** A refusal alone is chance; the next one within this time is a limit. */
const CHANCE_MS = 10_000
/** A node that was refused for the first time is not slowed down below half of this: it may be somebody else's fault. */
const SEEN_MIN = 4
// After a refusal half the speed, per answer 2 % more: where all nodes have more to send than the cloud takes, about 3 % of
// the answers are refusals, however many nodes there are. A share that is known is not far wrong.
const SLOWER = 0.5
const SLOWER_IN_SHARE = 0.85
const FASTER = 1.02
/** Where nothing is sent nothing is learned; what is known grows old. */
const DOUBLES_MS = 60_000

type Waiter = {
  readonly kind: OperationKind
  readonly rank: number
  proceed(): void
}

export function createBudget(options: BudgetOptions): Budget {
  const now = options.now ?? (() => performance.now())
  const kinds = new Map<OperationKind, Bucket>(
    Object.entries(options.perSecond).map(([kind, perSecond]) => [kind as OperationKind, createBucket(perSecond, now)]),
  )
  const unlimited = Object.values(options.perSecond).reduce((sum, each) => sum + each, 0)
  const most = options.sharePerSecond ?? unlimited
  const all = createBucket(most, now, options.sharePerSecond === undefined ? undefined : Math.random())
  let learnedMs = now()
  let refusedMs = Number.NEGATIVE_INFINITY
  let sent: number[] = []
  let waiting: Waiter[] = []
  let timer: NodeJS.Timeout | undefined

  const waitOf = (kind: OperationKind) => Math.max(all.waitMs(), kinds.get(kind)!.waitMs())

  const take = (kind: OperationKind) => {
    all.take()
    kinds.get(kind)!.take()
    sent.push(now())
    if (sent.length > 2 * unlimited) sent = sent.filter(ms => ms > now() - SEEN_MS)
  }

  /** Lets go who may, in their order, and comes back when the next one may. */
  const pump = () => {
    clearTimeout(timer)
    let nextMs = Number.POSITIVE_INFINITY
    for (const waiter of [...waiting]) {
      const ms = waitOf(waiter.kind)
      if (ms > 0) {
        nextMs = Math.min(nextMs, ms)
        continue
      }
      take(waiter.kind)
      waiting = waiting.filter(each => each !== waiter)
      waiter.proceed()
    }
    if (waiting.length > 0) timer = setTimeout(pump, Math.ceil(nextMs))
  }

  const wait = (kind: OperationKind, rank: number, limits: Limits): Promise<Turn> => {
    const { promise, resolve } = Promise.withResolvers<Turn>()
    const leave = (turn: Turn) => {
      clearTimeout(clock)
      limits.signal?.removeEventListener('abort', abort)
      waiting = waiting.filter(each => each !== waiter)
      if (waiting.length === 0) clearTimeout(timer)
      resolve(turn)
    }
    const waiter: Waiter = { kind, rank, proceed: () => leave({ kind: 'now' }) }
    const abort = () => leave({ kind: 'aborted', retryMs: 0 })
    const clock = setTimeout(() => leave({ kind: 'late', retryMs: waitOf(kind) }), timerMs(limits.deadline))
    limits.signal?.addEventListener('abort', abort, { once: true })
    const behind = waiting.findIndex(each => each.rank > rank)
    waiting.splice(behind < 0 ? waiting.length : behind, 0, waiter)
    pump()
    return promise
  }

  const grow = (factor: number) => {
    const older = 2 ** ((now() - learnedMs) / DOUBLES_MS)
    learnedMs = now()
    all.change(Math.min(most, all.perSecond * older * factor))
  }

  const slower = (): number => {
    if (options.sharePerSecond !== undefined) return Math.max(most / 8, all.perSecond * SLOWER_IN_SHARE)
    const seen = sent.filter(ms => ms > now() - SEEN_MS).length / (SEEN_MS / 1000)
    return Math.max(PER_SECOND_MIN, Math.min(all.perSecond, Math.max(seen, SEEN_MIN)) * SLOWER)
  }

  return {
    async enter(kind, limits) {
      if (limits.signal?.aborted) return { kind: 'aborted', retryMs: 0 }
      grow(1)
      const rank = purposes.indexOf(limits.purpose ?? 'look')
      const ahead = waiting.filter(each => each.rank <= rank).length
      if (ahead === 0 && waitOf(kind) === 0) {
        take(kind)
        return { kind: 'now' }
      }
      if (waiting.length >= options.waitingMax) return { kind: 'full', retryMs: waitOf(kind) }
      const turnMs = waitOf(kind) + (ahead * 1000) / Math.min(all.perSecond, kinds.get(kind)!.perSecond)
      if (turnMs >= remainingMs(limits.deadline)) return { kind: 'late', retryMs: turnMs }
      return await wait(kind, rank, limits)
    },
    refused(turnMs) {
      // Those sent together are refused together, which is one lesson.
      if (turnMs <= refusedMs) return
      if (now() - refusedMs < CHANCE_MS) {
        all.change(slower())
        all.empty()
        pump()
      }
      refusedMs = learnedMs = now()
    },
    passed: () => grow(FASTER),
    perSecond: () => all.perSecond,
  }
}
