// SPDX-License-Identifier: Apache-2.0

// A host on the test's wire: a thread that lives in one network namespace, answers UDP and TCP and sends it. An answer is
// the address that the sender was seen with, and as long as the question.

import { createSocket, type Socket } from 'node:dgram'
import { closeSync, openSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { setNetworkNamespace, unshareNetwork } from '#libc'

const PORT = 7
const ANSWER_MS = 400

export type Station = AsyncDisposable & {
  /** Answers from now on what reaches this address. */
  listen(address: string): Promise<void>
  /** Asks `from` an address of its own. @returns the address that the other side saw; undefined: no answer. */
  ask(from: string, to: string, how?: Question): Promise<string | undefined>
}
export type Question = {
  /** @default 7 */
  port?: number
  /** @default 'udp' */
  protocol?: 'udp' | 'tcp'
  /** Payload of question and answer. @default 1 */
  bytes?: number
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

type Order = { id: number } & ({ listen: string } | { from: string; to: string; how?: Question | undefined })

type Report = { id: number; answer?: string | undefined; error?: Error }

/** A station in the namespace of the descriptor. */
export function startStation(fd: number): Station {
  const worker = new Worker(new URL(import.meta.url), { workerData: { station: fd } })
  const open: PromiseWithResolvers<string | undefined>[] = []
  worker.on('message', ({ id, answer, error }: Report) => (error ? open[id]!.reject(error) : open[id]!.resolve(answer)))
  const order = (message: { listen: string } | { from: string; to: string; how?: Question | undefined }) => {
    const answer = Promise.withResolvers<string | undefined>()
    worker.postMessage({ id: open.push(answer) - 1, ...message } satisfies Order)
    return answer.promise
  }
  return {
    listen: async address => void (await order({ listen: address })),
    ask: (from, to, how) => order({ from, to, how }),
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

/** The address, padded to the length of the question. */
const answerTo = (address: string | undefined, bytes: number) => (address ?? '').replace('::ffff:', '').padEnd(bytes)

async function listen(address: string): Promise<undefined> {
  const socket = await bound(address, PORT)
  socket.on('message', (question, { address, port }) => socket.send(answerTo(address, question.length), port, address))
  const server = createServer({ allowHalfOpen: true }, connection => {
    let bytes = 0
    connection.on('data', data => {
      bytes += data.length
    })
    connection.on('end', () => connection.end(answerTo(connection.remoteAddress, bytes)))
    connection.on('error', () => connection.destroy())
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(PORT, address, resolve)
  })
}

/**
 * Each question has a port of its own, none of them one of a node's: conntrack remembers a flow for minutes, and would send
 * a later one with the same port where services led before they were changed.
 */
let lastPort = 32_768

async function ask(from: string, to: string, how: Question = {}): Promise<string | undefined> {
  const { port = PORT, protocol = 'udp', bytes = 1 } = how
  const question = '?'.repeat(bytes)
  return protocol === 'udp' ? askDatagram(from, to, port, question) : askStream(from, to, port, question)
}

async function askDatagram(from: string, to: string, port: number, question: string): Promise<string | undefined> {
  const socket = await bound(from, ++lastPort)
  try {
    return await new Promise(resolve => {
      socket.on('message', payload => resolve(payload.toString().trimEnd()))
      socket.on('error', () => resolve(undefined))
      socket.send(question, port, to, error => error && resolve(undefined))
      setTimeout(resolve, ANSWER_MS, undefined)
    })
  } finally {
    socket.close()
  }
}

function askStream(from: string, to: string, port: number, question: string): Promise<string | undefined> {
  const connection = connect({ host: to, port, localAddress: from, localPort: ++lastPort, allowHalfOpen: true })
  let answer = ''
  return new Promise<string | undefined>(resolve => {
    connection.setTimeout(ANSWER_MS * 2, () => resolve(undefined))
    connection.on('connect', () => connection.end(question))
    connection.on('data', data => {
      answer += data
    })
    connection.on('error', () => resolve(undefined))
    connection.on('end', () => resolve(answer.length === question.length ? answer.trimEnd() : answer))
  }).finally(() => connection.destroy())
}

if (!isMainThread && workerData?.station !== undefined) {
  setNetworkNamespace(workerData.station as number)
  // A question that cannot be put is that question's failure alone: the station lives on for the next.
  parentPort!.on('message', async (order: Order) => {
    const report: Report = { id: order.id }
    try {
      report.answer = 'listen' in order ? await listen(order.listen) : await ask(order.from, order.to, order.how)
    } catch (error) {
      report.error = error as Error
    }
    parentPort!.postMessage(report)
  })
}
