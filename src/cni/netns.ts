// SPDX-License-Identifier: Apache-2.0

import { closeSync, constants, fstatSync, openSync, readlinkSync, type Stats, statSync } from 'node:fs'
import { codes } from './codes.ts'
import { CniError } from './error.ts'
import { systemErrorOf } from './system-error.ts'

/** The namespace that the process began in, in which it always is but for moments in which nothing of this room runs. */
let ownNetns: Stats | undefined
function findOwnNetns(): Stats {
  ownNetns ??= statSync('/proc/self/ns/net')
  return ownNetns
}

/**
 * Opens the namespace behind CNI_NETNS: a file under /run/netns, /proc/PID/ns/net, or a link to either. The caller closes it.
 *
 * @throws {CniError} 8 where the path leads to no network namespace.
 */
export function openNetns(path: string): number {
  let fd: number
  try {
    // Without O_NONBLOCK a fifo under that name would stop the whole process.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    const system = systemErrorOf(error)
    if (system === undefined || exhausted.has(system.code)) throw error
    throw notOpened(path, system.text, error)
  }
  try {
    checkNetns(fd, path)
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** @param path names the descriptor in errors. @throws {CniError} 8 if it is no network namespace. */
export function checkNetns(fd: number, path: string): void {
  const reason = whyNoNetns(fd)
  if (reason !== undefined) throw notOpened(path, reason)
}

/** What the function answers, undefined where it meets no network namespace: gone, or a name left over from before a reboot. */
export function unlessGone<T>(find: () => T): T | undefined {
  try {
    return find()
  } catch (error) {
    if (error instanceof CniError && error.code === codes.invalidNetns) return undefined
    throw error
  }
}

/** True if the descriptor is the namespace that the other path names, or the process's own (device and inode). */
export function isSameNetns(fd: number, path: string | undefined): boolean {
  const [given, other] = [fstatSync(fd), path === undefined ? findOwnNetns() : statSync(path)]
  return given.dev === other.dev && given.ino === other.ino
}

// Running out of descriptors says nothing about the path.
const exhausted = new Set(['EMFILE', 'ENFILE', 'ENOMEM', 'EINTR'])

function whyNoNetns(fd: number): string | undefined {
  const found = fstatSync(fd)
  // All namespaces are files of one file system of the kernel's.
  if (found.dev !== findOwnNetns().dev)
    return `it is a ${found.isDirectory() ? 'directory' : 'file'}, not a network namespace`
  // A namespace that is mounted somewhere shows that path here, one that is not shows its kind.
  const kind = /^(\w+):\[\d+\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1]
  return kind === undefined || kind === 'net'
    ? undefined
    : `it is a namespace of kind "${kind}", not a network namespace`
}

const notOpened = (path: string, reason: string, cause?: unknown) =>
  new CniError(codes.invalidNetns, `failed to open netns "${path}": ${reason}`, { cause })
