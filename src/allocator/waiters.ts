// SPDX-License-Identifier: Apache-2.0

import { remainingMs } from '#base'
import { AllocationError } from './port/error.ts'
import type { Limits } from './port/lock.ts'
import type { Owner } from './port/plan.ts'

/** Callers of this process that wait until a pool's background work has served, or refused, their attachment. */
export type Waiters<Lease> = {
  readonly size: number
  /** @param find what the attachment has by now, undefined while that is not all it asked for */
  wait(owner: Owner, find: () => Lease | undefined, limits: Limits): Promise<Lease>
  /** Ends the waiting of all who have what they asked for. */
  tellServed(): void
  /** Ends the waiting of all for whom there is an error. */
  tellUnserved(errorOf: (owner: Owner) => unknown): void
}

type Waiter<Lease> = {
  readonly owner: Owner
  find(): Lease | undefined
  resolve(found: Lease): void
  reject(error: unknown): void
}

/** True if two names mean one attachment. */
export const isSameOwner = (a: Owner, b: Owner): boolean =>
  a.network === b.network && a.containerId === b.containerId && a.ifName === b.ifName

const keyOf = ({ network, containerId, ifName }: Owner) => `${network}\n${containerId}\n${ifName}`

/** @param what is waited for, as errors name it: `an address` @param service who makes it */
export function createWaiters<Lease>(what: string, service: string): Waiters<Lease> {
  const waiting = new Map<string, Waiter<Lease>>()

  function wait(owner: Owner, find: () => Lease | undefined, limits: Limits): Promise<Lease> {
    const key = keyOf(owner)
    const { promise, resolve, reject } = Promise.withResolvers<Lease>()
    const stop = () => waiting.get(key)?.reject(lateFor(what, service, owner, limits))
    const clock = setTimeout(stop, remainingMs(limits.deadline))
    const leave = () => {
      clearTimeout(clock)
      limits.signal?.removeEventListener('abort', stop)
      waiting.delete(key)
    }
    waiting.set(key, {
      owner,
      find,
      resolve: found => {
        leave()
        resolve(found)
      },
      reject: error => {
        leave()
        reject(error)
      },
    })
    limits.signal?.addEventListener('abort', stop, { once: true })
    if (limits.signal?.aborted) stop()
    return promise
  }

  return {
    get size() {
      return waiting.size
    },
    wait,
    tellServed() {
      for (const waiter of [...waiting.values()]) {
        const found = waiter.find()
        if (found !== undefined) waiter.resolve(found)
      }
    },
    tellUnserved(errorOf) {
      for (const waiter of [...waiting.values()]) {
        const error = errorOf(waiter.owner)
        if (error !== undefined) waiter.reject(error)
      }
    },
  }
}

/** The error for a caller whose time is over, or who went away. */
export function lateFor(what: string, service: string, owner: Owner, limits: Limits): AllocationError {
  const whom = `interface ${owner.ifName} of container ${owner.containerId}`
  return limits.signal?.aborted
    ? new AllocationError('aborted', `Cannot give ${what} to ${whom}: the caller went away`)
    : new AllocationError('late', `Cannot give ${what} to ${whom}: ${service} did not answer within the caller’s time`)
}
