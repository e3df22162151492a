// SPDX-License-Identifier: Apache-2.0

import { lstatSync, mkdirSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname } from 'node:path'

/** `sun_path` of the kernel's sockaddr_un has 108 bytes, the last of which is NUL. */
const PATH_BYTES_MAX = 107

/**
 * Makes the directory of a UNIX socket, and removes the socket of a process that is gone, so that one can listen there. What is
 * no socket stays, and so does one on which somebody listens: taken over, its owner would go on without a caller.
 *
 * @throws {Error} with what the path has
 */
export async function prepareSocketPath(path: string): Promise<void> {
  const reason = await tryPrepare(path).catch((error: NodeJS.ErrnoException) => error.message)
  if (reason !== undefined) throw cannotListen(path, reason)
}

/** The error for a socket path that cannot be had. */
export const cannotListen = (path: string, reason: string): Error =>
  new Error(`Cannot start the agent: cannot listen on "${path}": ${reason}. Name another path with --socket`)

/** @returns why it cannot be had */
async function tryPrepare(path: string): Promise<string | undefined> {
  const length = Buffer.byteLength(path)
  if (length > PATH_BYTES_MAX) return `it has ${length} bytes, and a socket's path ${PATH_BYTES_MAX} at most`
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) return undefined
  if (!found.isSocket()) return 'it is no socket'
  if (await hasListener(path)) return 'another process listens there, mostly an agent, to be stopped first'
  rmSync(path)
  return undefined
}

/** A process that is stopped or busy counts: only where the kernel refuses there is none. */
function hasListener(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(path)
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'))
  })
}
