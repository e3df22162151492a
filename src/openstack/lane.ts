// SPDX-License-Identifier: Apache-2.0
import { type Limits, timerMs } from './limits.ts'

/** Lets a bounded number of requests to one address run at once, and a bounded number wait, in order. */
export type Lane = {
  /** Waits for a place, which is free again when it is disposed. `full`: too many wait already; `late`: the limits ended. */
  enter(limits: Limits): Promise<Place | 'full' | 'late'>
}
export type Place = Disposable

export function createLane(options: { readonly runningMax: number; readonly waitingMax: number }): Lane {
  let running = 0
  const waiting = new Set<() => void>()

  const leave = (): void => {
    running--
    const [next] = waiting
    if (next === undefined) return
    waiting.delete(next)
    next()
  }

  const take = (): Place => {
    running++
    let left = false
    return {
      [Symbol.dispose]: () => {
        if (left) return
        left = true
        leave()
      },
    }
  }

  const wait = (limits: Limits): Promise<Place | 'late'> => {
    const { promise, resolve } = Promise.withResolvers<Place | 'late'>()
    const stop = () => {
      clearTimeout(timer)
      limits.signal?.removeEventListener('abort', giveUp)
    }
    const proceed = () => {
      stop()
      resolve(take())
    }
    const giveUp = () => {
      stop()
      waiting.delete(proceed)
      resolve('late')
    }
    const timer = setTimeout(giveUp, timerMs(limits.deadline))
    limits.signal?.addEventListener('abort', giveUp, { once: true })
    waiting.add(proceed)
    return promise
  }

  return {
    async enter(limits) {
      if (limits.signal?.aborted || timerMs(limits.deadline) === 0) return 'late'
      if (running < options.runningMax) return take()
      return waiting.size < options.waitingMax ? wait(limits) : 'full'
    },
  }
}
