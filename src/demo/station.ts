// SPDX-License-Identifier: Apache-2.0

import { Worker } from 'node:worker_threads'
import type { Orders, Verb } from './wire.ts'

/** Somebody in a network namespace: a thread that lives there, sends and answers packets, and looks around. */
export type Station = AsyncDisposable & {
  do<V extends Verb>(verb: V, order: Orders[V]['order']): Promise<Orders[V]['answer']>
}

export type Request = { id: number; verb: Verb; order: unknown }
export type Reply = { id: number; answer: unknown } | { id: number; error: string }

/** Puts somebody into the namespace behind a path. Where there is none, the first order is refused. */
export function startStation(netns: string): Station {
  const worker = new Worker(new URL('./station-thread.ts', import.meta.url), { workerData: { netns } })
  const open = new Map<number, PromiseWithResolvers<unknown>>()
  let last = 0
  let ended: Error | undefined
  const end = (error: Error) => {
    ended ??= error
    for (const { reject } of open.values()) reject(ended)
    open.clear()
  }
  worker.on('message', (reply: Reply) => {
    const waiting = open.get(reply.id)
    open.delete(reply.id)
    if ('error' in reply) waiting?.reject(new Error(reply.error))
    else waiting?.resolve(reply.answer)
  })
  worker.on('error', error => end(error as Error))
  worker.on('exit', () => end(new Error(`The station in ${netns} ended`)))
  return {
    do<V extends Verb>(verb: V, order: Orders[V]['order']) {
      if (ended !== undefined) return Promise.reject(ended)
      const id = ++last
      const waiting = Promise.withResolvers<unknown>()
      open.set(id, waiting)
      worker.postMessage({ id, verb, order } satisfies Request)
      return waiting.promise as Promise<Orders[V]['answer']>
    },
    async [Symbol.asyncDispose]() {
      await worker.terminate()
    },
  }
}
