// SPDX-License-Identifier: Apache-2.0

// A host that speaks TCP and UDP on any port: a thread that lives in one network namespace. A server answers with its own
// name and the address that it sees the client with.

import { createSocket } from 'node:dgram'
import { connect, createServer } from 'node:net'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { setNetworkNamespace } from '#libc'

const ANSWER_MS = 1000

export type Protocol = 'tcp' | 'udp'
type Serve = { serve: Protocol; address: string; port: number; name: string }
type Ask = { ask: Protocol; to: string; port: number; fromPort?: number; timeoutMs?: number }
type Order = { id: number } & (Serve | Ask)
type Answer = { id: number; answer?: string | undefined; error?: string | undefined }

export type Talker = AsyncDisposable & {
  /** Serves TCP or UDP from now on. */
  serve(protocol: Protocol, address: string, port: number, name: string): Promise<void>
  /** `NAME ADDRESS`: who answered, and how it saw us; undefined: nobody did. */
  ask(
    protocol: Protocol,
    to: string,
    port: number,
    more?: { fromPort?: number; timeoutMs?: number },
  ): Promise<string | undefined>
}

/** A talker in the namespace of the descriptor. */
export function startTalker(fd: number): Talker {
  const worker = new Worker(new URL(import.meta.url), { workerData: { talker: fd } })
  const open = new Map<number, PromiseWithResolvers<string | undefined>>()
  worker.on('message', ({ id, answer, error }: Answer) => {
    if (error === undefined) open.get(id)?.resolve(answer)
    else open.get(id)?.reject(new Error(error))
  })
  worker.on('error', error => {
    for (const { reject } of open.values()) reject(error)
  })
  const order = (message: Serve | Ask) => {
    const id = open.size
    const answer = Promise.withResolvers<string | undefined>()
    open.set(id, answer)
    worker.postMessage({ id, ...message } satisfies Order)
    return answer.promise
  }
  return {
    serve: async (protocol, address, port, name) => void (await order({ serve: protocol, address, port, name })),
    ask: (protocol, to, port, more = {}) => order({ ask: protocol, to, port, ...more }),
    async [Symbol.asyncDispose]() {
      await worker.terminate()
    },
  }
}

const familyOf = (address: string) => (address.includes(':') ? 'udp6' : 'udp4')

function serve({ serve: protocol, address, port, name }: Serve): Promise<undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>()
  if (protocol === 'tcp') {
    const server = createServer(socket => {
      socket.on('error', () => undefined)
      socket.end(`${name} ${socket.remoteAddress}`)
    })
    server.once('error', reject)
    server.listen({ port, host: address }, () => resolve(undefined))
    return promise
  }
  const socket = createSocket(familyOf(address))
  socket.once('error', reject)
  socket.on('message', (_message, from) => socket.send(`${name} ${from.address}`, from.port, from.address))
  socket.bind(port, address, () => resolve(undefined))
  return promise
}

function ask({ ask: protocol, to, port, fromPort, timeoutMs = ANSWER_MS }: Ask): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  const timer = setTimeout(resolve, timeoutMs, undefined)
  const end = (close: () => void) =>
    promise.finally(() => {
      clearTimeout(timer)
      close()
    })
  if (protocol === 'tcp') {
    let text = ''
    const socket = connect({ port, host: to })
    socket.setEncoding('utf8').on('data', data => {
      text += data
    })
    socket.on('end', () => resolve(text)).on('error', () => resolve(undefined))
    return end(() => socket.destroy())
  }
  const socket = createSocket(familyOf(to))
  socket.on('message', message => resolve(message.toString())).on('error', () => resolve(undefined))
  // Connected, so that an answer from another address than the one that was asked is none.
  socket.on('connect', () => socket.send('x'))
  socket.bind(fromPort ?? 0, () => socket.connect(port, to))
  return end(() => socket.close())
}

if (!isMainThread && workerData?.talker !== undefined) {
  setNetworkNamespace(workerData.talker)
  parentPort!.on('message', (order: Order) => {
    const work = 'serve' in order ? serve(order) : ask(order)
    work.then(
      answer => parentPort!.postMessage({ id: order.id, answer } satisfies Answer),
      (error: Error) => parentPort!.postMessage({ id: order.id, error: error.message } satisfies Answer),
    )
  })
}
