// SPDX-License-Identifier: Apache-2.0

/** Makes the API reachable inside the servers' namespaces, at the address that it has outside. */
import { Worker } from 'node:worker_threads'

export type ForwardOrder = { readonly id: number; readonly open: readonly string[]; readonly shut: readonly string[] }

export type Forwarder = {
  /** Makes it so that exactly these namespaces (paths) reach the API. */
  readonly follow: (paths: readonly string[]) => Promise<void>
  readonly close: () => Promise<void>
}

/** @param socket path of the UNIX socket on which the API listens as well */
export function startForwarder(socket: string, port: number): Forwarder {
  const worker = new Worker(new URL('./forward-thread.ts', import.meta.url), { workerData: { socket, port } })
  worker.unref()
  const waiting = new Map<number, { resolve: () => void; reject: (error: Error) => void }>()
  worker.on('message', ({ id, error }: { id: number; error?: string }) => {
    const waiter = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) waiter?.resolve()
    else waiter?.reject(new Error(`Cannot make the API reachable in a namespace: ${error}`))
  })
  let ended: Error | undefined
  worker.on('error', error => {
    ended = error as Error
    for (const { reject } of waiting.values()) reject(ended)
    waiting.clear()
  })
  let last = 0
  let had: readonly string[] = []
  return {
    follow: paths => {
      const order: ForwardOrder = {
        id: ++last,
        open: paths.filter(path => !had.includes(path)),
        shut: had.filter(path => !paths.includes(path)),
      }
      had = [...paths]
      if (order.open.length + order.shut.length === 0) return Promise.resolve()
      if (ended !== undefined) return Promise.reject(ended)
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      waiting.set(order.id, { resolve, reject })
      worker.postMessage(order)
      return promise
    },
    close: async () => {
      await worker.terminate()
    },
  }
}
