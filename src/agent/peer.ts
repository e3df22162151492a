// SPDX-License-Identifier: Apache-2.0

import { constants, openSync } from 'node:fs'
import type { Socket } from 'node:net'
import { peerCredentials } from '#libc'

/** The process at the other end of a connection. */
export type Peer = { readonly pid: number; readonly uid: number }

/** Asks the kernel who connected. `node:net` does not tell the descriptor; its handle does. */
export function peerOf(socket: Socket): Peer {
  const { _handle: handle } = socket as unknown as { _handle?: { fd?: number } }
  if (handle?.fd === undefined || handle.fd < 0) throw new Error('Cannot ask for the peer: the connection is closed')
  return peerCredentials(handle.fd)
}

/**
 * Opens a descriptor of the peer again, as ours: the same open file, whatever namespaces the peer lives in.
 * @returns undefined where the peer is gone
 */
export function tryOpenPeerDescriptor({ pid }: Peer, descriptor: number): number | undefined {
  try {
    return openSync(`/proc/${pid}/fd/${descriptor}`, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
