// SPDX-License-Identifier: Apache-2.0

/** A place in a network namespace from which packets are sent, with a UDP echo that says as whom one is seen. */
import { Worker } from 'node:worker_threads'

export type Order =
  | { readonly what: 'ask'; readonly from?: string; readonly to: string; readonly timeoutMs: number }
  | { readonly what: 'addAddress' | 'removeAddress'; readonly link: string; readonly prefix: string }
  | { readonly what: 'up'; readonly link: string }
  | { readonly what: 'fetch'; readonly url: string }
  | { readonly what: 'links' | 'routes' }

export type Station = {
  /** As whom the target sees us; undefined if no answer came in time. */
  readonly ask: (to: string, from?: string) => Promise<string | undefined>
  readonly addAddress: (prefix: string, link?: string) => Promise<void>
  readonly removeAddress: (prefix: string, link?: string) => Promise<void>
  readonly up: (link: string) => Promise<void>
  /** The status of a GET from here. */
  readonly fetch: (url: string) => Promise<number>
  readonly links: () => Promise<{ name: string; mac: string }[]>
  readonly routes: () => Promise<{ destination: string; nexthop: string | undefined }[]>
  readonly close: () => Promise<void>
}

const ANSWER_MS = 400

/** Opens a station in the namespace of that name. */
export async function openStation(netns: string): Promise<Station> {
  const worker = new Worker(new URL('./station-thread.ts', import.meta.url), {
    workerData: { path: `/run/netns/${netns}` },
  })
  const waiting = new Map<number, { resolve: (answer: unknown) => void; reject: (error: Error) => void }>()
  let last = 0
  const wait = (id: number): Promise<unknown> =>
    new Promise((resolve, reject) => {
      waiting.set(id, { resolve, reject })
    })
  worker.on('message', ({ id, answer, error }: { id: number; answer?: unknown; error?: string }) => {
    const waiter = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) waiter?.resolve(answer)
    else waiter?.reject(new Error(`${netns}: ${error}`))
  })
  worker.on('error', error => {
    for (const { reject } of waiting.values()) reject(error as Error)
  })
  await wait(0)
  const send = <T>(order: Order): Promise<T> => {
    const id = ++last
    const answer = wait(id)
    worker.postMessage({ id, order })
    return answer as Promise<T>
  }
  return {
    ask: (to, from) => send({ what: 'ask', to, timeoutMs: ANSWER_MS, ...(from !== undefined && { from }) }),
    addAddress: (prefix, link = 'eth0') => send({ what: 'addAddress', link, prefix }),
    removeAddress: (prefix, link = 'eth0') => send({ what: 'removeAddress', link, prefix }),
    fetch: url => send({ what: 'fetch', url }),
    up: link => send({ what: 'up', link }),
    links: () => send({ what: 'links' }),
    routes: () => send({ what: 'routes' }),
    close: async () => {
      await worker.terminate()
    },
  }
}
