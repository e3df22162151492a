// SPDX-License-Identifier: Apache-2.0

import { chmodSync, closeSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { peerOf, tryOpenPeerDescriptor } from './peer.ts'
import { cannotListen } from './socket-path.ts'
import { decodeRequest, encodeAnswer, REQUEST_BYTES_MAX, type ShimRequest } from './wire.ts'

/** A call as it came in: its namespace is open and is closed when `serve` has ended. */
export type Incoming = Omit<ShimRequest, 'netns'> & {
  readonly netnsFd: number | undefined
  readonly signal: AbortSignal
}
export type Answer = { exitCode: number; stdout: Uint8Array; stderr: string }

const CONNECTIONS_MAX = 512
const READ_MS = 5_000

/** Listens for shims, where nobody else does (socket-path.ts). `onError` hears of connections that failed. */
export async function listen(
  path: string,
  serve: (incoming: Incoming) => Promise<Answer>,
  onError: (error: unknown) => void,
  { readMs = READ_MS }: { readMs?: number } = {},
): Promise<Server> {
  const server = createServer({ allowHalfOpen: false }, socket => {
    socket.on('error', onError)
    serveConnection(socket, serve, readMs).catch(error => {
      onError(error)
      socket.destroy()
    })
  })
  server.maxConnections = CONNECTIONS_MAX
  await new Promise<void>((resolve, reject) => {
    server.once('error', error => reject(cannotListen(path, error.message)))
    server.listen({ path, backlog: CONNECTIONS_MAX }, resolve)
  })
  server.on('error', onError)
  chmodSync(path, 0o600)
  return server
}

async function serveConnection(
  socket: Socket,
  serve: (incoming: Incoming) => Promise<Answer>,
  readMs: number,
): Promise<void> {
  const peer = peerOf(socket)
  if (peer.uid !== process.getuid!()) throw new Error(`Cannot serve user ${peer.uid}: only the agent's own`)
  const { netns, ...request } = decodeRequest(await readFrame(socket, readMs))
  const netnsFd = netns === undefined ? undefined : tryOpenPeerDescriptor(peer, netns)
  try {
    const gone = new AbortController()
    const onGone = () => gone.abort()
    socket.once('close', onGone)
    // The shim sends nothing more; reading on is how its end is noticed.
    socket.resume()
    const answer = await serve({ ...request, netnsFd, signal: gone.signal })
    socket.off('close', onGone)
    // The shim reads all of it and ends: to close by halves, and to wait for its end, would be work for nobody.
    // Not within the callback: Node.js would make an error for each who waits for more of the stream, also where nobody does.
    socket.write(encodeAnswer(answer), () => queueMicrotask(() => socket.destroy()))
  } finally {
    if (netnsFd !== undefined) closeSync(netnsFd)
  }
}

/** One frame without its leading length. @throws {Error} when it is too large, late or cut off */
function readFrame(socket: Socket, readMs: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    let data: Buffer | undefined
    const late = () => finish(new Error(`Cannot read request: not there after ${readMs} ms`))
    // A turn later, because a process that got no turn for so long hears of its timers before it hears of its sockets.
    const timer = setTimeout(() => setImmediate(late), readMs)
    function finish(outcome: Error | Uint8Array): void {
      clearTimeout(timer)
      socket.off('data', onData)
      socket.off('close', onClose)
      if (outcome instanceof Error) reject(outcome)
      else resolve(outcome)
    }
    function onClose(): void {
      finish(new Error('Cannot read request: the caller went away'))
    }
    function onData(chunk: Buffer): void {
      data = data === undefined ? chunk : Buffer.concat([data, chunk])
      if (data.length < 4) return
      const length = data.readUInt32LE(0)
      if (length > REQUEST_BYTES_MAX) finish(new Error(`Cannot read request of ${length} bytes: too large`))
      else if (data.length >= 4 + length) finish(new Uint8Array(data.buffer, data.byteOffset + 4, length))
    }
    socket.on('data', onData)
    socket.on('close', onClose)
  })
}
