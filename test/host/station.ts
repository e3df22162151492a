// SPDX-License-Identifier: Apache-2.0

// A host on the test's wire: a thread that lives in one network namespace, echoes UDP and sends it. An echo's payload is
// the address that the sender was seen with.

import { createSocket, type Socket } from 'node:dgram'
import { closeSync, openSync } from 'node:fs'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { setNetworkNamespace, unshareNetwork } from '#libc'

const PORT = 7
const ANSWER_MS = 400

export type Station = AsyncDisposable & {
  /** Echoes from now on what reaches this address. */
  listen(address: string): Promise<void>
  /** Sends a datagram `from` an address of its own. @returns the address that the other side saw; undefined: no answer. */
  ask(from: string, to: string): Promise<string | undefined>
}

/** Runs something in the namespace of the descriptor; what runs must be synchronous. */
export function inNamespace<T>(fd: number, run: () => T): T {
  const home = openSync('/proc/thread-self/ns/net', 'r')
  setNetworkNamespace(fd)
  try {
    return run()
  } finally {
    setNetworkNamespace(home)
    closeSync(home)
  }
}

/** A new namespace, without anybody in it: a descriptor that the caller closes. */
export function makeNamespace(): number {
  const home = openSync('/proc/thread-self/ns/net', 'r')
  unshareNetwork()
  const fd = openSync('/proc/thread-self/ns/net', 'r')
  setNetworkNamespace(home)
  closeSync(home)
  return fd
}

type Order = { id: number; listen: string } | { id: number; from: string; to: string }

/** A station in the namespace of the descriptor. */
export function startStation(fd: number): Station {
  const worker = new Worker(new URL(import.meta.url), { workerData: { station: fd } })
  const open = new Map<number, PromiseWithResolvers<string | undefined>>()
  worker.on('message', ({ id, answer }: { id: number; answer: string | undefined }) => open.get(id)?.resolve(answer))
  worker.on('error', error => {
    for (const { reject } of open.values()) reject(error)
  })
  const order = (message: { listen: string } | { from: string; to: string }) => {
    const id = open.size
    const answer = Promise.withResolvers<string | undefined>()
    open.set(id, answer)
    worker.postMessage({ id, ...message } satisfies Order)
    return answer.promise
  }
  return {
    listen: async address => void (await order({ listen: address })),
    ask: (from, to) => order({ from, to }),
    async [Symbol.asyncDispose]() {
      await worker.terminate()
    },
  }
}

const familyOf = (address: string) => (address.includes(':') ? 'udp6' : 'udp4')

function bound(address: string, port: number): Promise<Socket> {
  const socket = createSocket(familyOf(address))
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.bind(port, address, () => resolve(socket))
  })
}

async function listen(address: string): Promise<undefined> {
  const socket = await bound(address, PORT)
  socket.on('message', (_, sender) => socket.send(sender.address, sender.port, sender.address))
}

async function ask(from: string, to: string): Promise<string | undefined> {
  const socket = await bound(from, 0)
  try {
    return await new Promise(resolve => {
      socket.on('message', payload => resolve(payload.toString()))
      socket.on('error', () => resolve(undefined))
      socket.send('?', PORT, to, error => error && resolve(undefined))
      setTimeout(resolve, ANSWER_MS, undefined)
    })
  } finally {
    socket.close()
  }
}

if (!isMainThread && workerData?.station !== undefined) {
  setNetworkNamespace(workerData.station as number)
  parentPort!.on('message', async (order: Order) => {
    const answer = 'listen' in order ? await listen(order.listen) : await ask(order.from, order.to)
    parentPort!.postMessage({ id: order.id, answer })
  })
}
