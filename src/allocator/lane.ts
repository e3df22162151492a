// SPDX-License-Identifier: Apache-2.0

import { createHash } from 'node:crypto'
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { tryLock } from '#libc'

const LANE_FILES = 64

/** What one process at a time works on: one plugin's work for one interface of one container, in whichever network. */
export type LaneKey = { readonly type: string; readonly containerId: string; readonly ifName: string }

/**
 * Enters the lane of an attachment unless another process is in it. The kernel holds the lock, so that a killed process
 * leaves none; keys that share one of the files merely wait for each other.
 * @returns undefined while another process is in it
 */
export function tryEnterLane(dataDir: string, { type, containerId, ifName }: LaneKey): Disposable | undefined {
  const hash = createHash('sha256').update([type, containerId, ifName].join('\0')).digest()
  const fd = openLane(dataDir, hash[0]! % LANE_FILES)
  if (tryLock(fd)) return { [Symbol.dispose]: () => closeSync(fd) }
  closeSync(fd)
  return undefined
}

/** Makes the files of all lanes, which stay: for a process that lives long, and whose directory should not change later. */
export function prepareLanes(dataDir: string): void {
  for (let lane = 0; lane < LANE_FILES; lane++) closeSync(openLane(dataDir, lane))
}

function openLane(dataDir: string, lane: number): number {
  const directory = join(dataDir, 'lanes')
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  return openSync(join(directory, String(lane)), 'a', 0o600)
}
