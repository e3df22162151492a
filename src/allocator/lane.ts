// SPDX-License-Identifier: Apache-2.0

import { createHash } from 'node:crypto'
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
  const hash = createHash('sha256').update([type, containerId, ifName].join('\0')).digest()
  const fd = openLanes(dataDir)
  if (tryLockByte(fd, hash.readBigUInt64LE() >> 2n)) return { [Symbol.dispose]: () => closeSync(fd) }
  closeSync(fd)
  return undefined
}

/** Makes the file of the lanes, which stays: for a process that lives long, and whose directory should not change later. */
export const prepareLanes = (dataDir: string): void => closeSync(openLanes(dataDir))

function openLanes(dataDir: string): number {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  return openSync(join(dataDir, 'lanes.lock'), 'a', 0o600)
}
