// SPDX-License-Identifier: Apache-2.0

// A thread that goes into the namespaces of the servers, listens there on 127.0.0.1, and passes every connection to the
// simulator's UNIX socket, which no network namespace hides. See forward.ts.

import { closeSync } from 'node:fs'
import { connect, createServer, type Server } from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'
import { tryOpenNetns } from '#host'
import { setNetworkNamespace } from '#libc'
import type { ForwardOrder } from './forward.ts'

const { socket: target, port } = workerData as { socket: string; port: number }
const servers = new Map<string, Server>()

/** The listener is made in the namespace in which the thread is then, and stays there. */
async function open(path: string): Promise<void> {
  if (servers.has(path)) return
  const fd = tryOpenNetns(path)
  if (fd === undefined) return
  setNetworkNamespace(fd)
  closeSync(fd)
  const server = createServer(client => {
    const upstream = connect(target)
    client.pipe(upstream).pipe(client)
    client.on('error', () => upstream.destroy())
    upstream.on('error', () => client.destroy())
  })
  servers.set(path, server)
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen(port, '127.0.0.1', resolve)
  await promise
}

let turn: Promise<void> = Promise.resolve()
parentPort!.on('message', ({ id, open: opened, shut }: ForwardOrder) => {
  // One after the other: a listener is made asynchronously, and the thread must not move on meanwhile.
  turn = turn
    .then(async () => {
      for (const path of shut) {
        servers.get(path)?.close()
        servers.delete(path)
      }
      for (const path of opened) await open(path)
    })
    .then(
      () => parentPort!.postMessage({ id }),
      (error: unknown) => parentPort!.postMessage({ id, error: (error as Error).message }),
    )
})
