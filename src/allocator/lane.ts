// SPDX-License-Identifier: Apache-2.0

import { closeSync, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { tryLockByte } from '#libc'

/** What one process at a time works on: one plugin's work for one interface of one container, in whichever network. */
export type LaneKey = { readonly type: string; readonly containerId: string; readonly ifName: string }

/**
 * Enters the lane of an attachment unless another process is in it. A lane is a byte of one file, so that no two keys share
 * one; the kernel holds the lock, so that a killed process leaves none.
 * @returns undefined while another process is in it
 */
export function tryEnterLane(dataDir: string, { type, containerId, ifName }: LaneKey): Disposable | undefined {
  const fd = openLanes(dataDir)
  if (tryLockByte(fd, placeOf([type, containerId, ifName].join('\0')))) return { [Symbol.dispose]: () => closeSync(fd) }
  closeSync(fd)
  return undefined
}

/** FNV-1a, 62 bits of it: nobody gains by two names that meet, and node:crypto costs every call 7 ms to load. */
function placeOf(name: string): bigint {
  let hash = 0xcbf29ce484222325n
  for (const byte of new TextEncoder().encode(name)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n)
  return hash >> 2n
}

/** Makes the file of the lanes, which stays: for a process that lives long, and whose directory should not change later. */
export const prepareLanes = (dataDir: string): void => closeSync(openLanes(dataDir))

function openLanes(dataDir: string): number {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  return openSync(join(dataDir, 'lanes.lock'), 'a', 0o600)
}
