// SPDX-License-Identifier: Apache-2.0

import { closeSync, constants, fstatSync, openSync, statfsSync } from 'node:fs'
import { setNetworkNamespace, unshareNetwork } from '#libc'

/** What makes a namespace the same one, whatever path or process it was reached by. */
export type NetnsIdentity = { readonly device: number; readonly inode: number }

/** The calling thread's network namespace, as a descriptor that the caller closes. */
export const openOwnNetns = (): number => openSync('/proc/thread-self/ns/net', constants.O_RDONLY)

/**
 * Opens a network namespace by path: a bind mount below /run/netns, `/proc/PID/ns/net`, or a link to either.
 * @returns a descriptor that the caller closes; undefined where the path leads nowhere or to something else.
 */
export function tryOpenNetns(path: string): number | undefined {
  let fd: number
  try {
    // A FIFO would block an open for reading; a namespace never does.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP' || code === 'ESRCH' || code === 'ENXIO')
      return undefined
    throw error
  }
  if (isNetns(fd)) return fd
  closeSync(fd)
  return undefined
}

/** Opens the namespace at the path if it is still that one. @returns a descriptor that the caller closes */
export function tryOpenSameNetns(path: string, { device, inode }: NetnsIdentity): number | undefined {
  const fd = path === '' ? undefined : tryOpenNetns(path)
  if (fd === undefined) return undefined
  const found = identifyNetns(fd)
  if (found.device === device && found.inode === inode) return fd
  closeSync(fd)
  return undefined
}

/** linux/magic.h; only network namespaces are ever looked for by these paths. */
const NSFS_MAGIC = 0x6e736673

/** True if the descriptor is a namespace. */
export const isNetns = (fd: number): boolean => statfsSync(`/proc/self/fd/${fd}`).type === NSFS_MAGIC

/** Device and inode of the namespace behind the descriptor. */
export function identifyNetns(fd: number): NetnsIdentity {
  const { dev, ino } = fstatSync(fd)
  return { device: dev, inode: ino }
}

/** Makes a network namespace that has no name: it is gone when its last descriptor is closed, which is the caller's to do. */
export function makeAnonymousNetns(): number {
  const home = openOwnNetns()
  try {
    return inNetns(home, home, () => {
      unshareNetwork()
      return openOwnNetns()
    })
  } finally {
    closeSync(home)
  }
}

/**
 * Runs something with the calling thread in the namespace `fd`, then returns to `home`.
 *
 * What runs must be synchronous: after an `await` the thread would be somebody else's.
 */
export function inNetns<T>(fd: number, home: number, run: () => T): T {
  setNetworkNamespace(fd)
  try {
    return run()
  } finally {
    try {
      setNetworkNamespace(home)
    } catch (cause) {
      lost ??= new LostThreadError('Cannot return from a namespace: this thread must end', { cause })
      losing.resolve(lost)
      // biome-ignore lint/correctness/noUnsafeFinally: nothing may be done by this thread any more, whatever was before
      throw lost
    }
  }
}

/** The thread is in a namespace that is not its own, and what it does next would be done there. */
export class LostThreadError extends Error {
  override readonly name = 'LostThreadError'
}

let lost: LostThreadError | undefined
const losing = Promise.withResolvers<LostThreadError>()

/** Resolves when the calling thread could not return from a namespace. */
export const threadLost: Promise<LostThreadError> = losing.promise

/** @throws {LostThreadError} where the calling thread is in a namespace that is not its own */
export function refuseLostThread(): void {
  if (lost !== undefined) throw lost
}
