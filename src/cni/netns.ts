// SPDX-License-Identifier: Apache-2.0

import { closeSync, constants, fstatSync, openSync, readlinkSync, statfsSync, statSync } from 'node:fs'
import { codes } from './codes.ts'
import { CniError } from './error.ts'
import { systemErrorOf } from './system-error.ts'

// linux/magic.h
const NSFS_MAGIC = 0x6e736673

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

/** True if the descriptor is the namespace that the other path names (device and inode). */
export function isSameNetns(fd: number, path: string): boolean {
  const [given, other] = [fstatSync(fd, { bigint: true }), statSync(path, { bigint: true })]
  return given.dev === other.dev && given.ino === other.ino
}

// Running out of descriptors says nothing about the path.
const exhausted = new Set(['EMFILE', 'ENFILE', 'ENOMEM', 'EINTR'])

function whyNoNetns(fd: number): string | undefined {
  const link = `/proc/self/fd/${fd}`
  if (statfsSync(link).type !== NSFS_MAGIC)
    return `it is a ${fstatSync(fd).isDirectory() ? 'directory' : 'file'}, not a network namespace`
  // A namespace that is mounted somewhere shows that path here, one that is not shows its kind.
  const kind = /^(\w+):\[\d+\]$/.exec(readlinkSync(link))?.[1]
  return kind === undefined || kind === 'net'
    ? undefined
    : `it is a namespace of kind "${kind}", not a network namespace`
}

const notOpened = (path: string, reason: string, cause?: unknown) =>
  new CniError(codes.invalidNetns, `failed to open netns "${path}": ${reason}`, { cause })
