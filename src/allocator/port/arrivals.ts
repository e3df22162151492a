// SPDX-License-Identifier: Apache-2.0

import { closeSync, openSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { atMost, type Deadline, deadlineIn, isPast, remainingMs } from '#base'
import { tryLock } from '#libc'
import { type Limits, pause } from './lock.ts'

/**
 * Processes that live for one ADD, between their first instruction and their wish for an address. Each holds a shared lock
 * of one file meanwhile, which the shim takes before it starts Node.js, and which the kernel gives back for whoever dies.
 */
export type Arrivals = {
  /** This process has said what it wants, or will want nothing. */
  arrived(): void
  /** Waits until the others that have begun by now have said so too. They start no slower than this process did. */
  untilOthersArrived(limits: Limits): Promise<void>
}

/** The shim (shim/shim.c) makes it. */
const FILE = 'starting'
/** So long, those who begin meanwhile are waited for as well. */
const GATHER_MS = 1_000
/** Somebody who was stopped, or waits for a cloud of his own, holds up nobody for longer. */
const GATHER_MS_MAX = 10_000
const PAUSE_MS = 10

/** @param descriptor that of the lock which the shim took for this process; nobody else may use it. */
export function joinArrivals(dataDir: string, descriptor?: number | undefined): Arrivals {
  const path = join(dataDir, FILE)
  let held = descriptor
  function arrived(): void {
    if (held !== undefined) closeSync(held)
    held = undefined
  }
  return {
    arrived,
    async untilOthersArrived(limits) {
      arrived()
      const fd = tryOpen(path)
      if (fd === undefined) return
      try {
        const longest = Math.min(GATHER_MS_MAX, remainingMs(limits.deadline) / 4)
        const within = { ...limits, deadline: atMost(limits.deadline, longest) }
        let gathering: Deadline | undefined = deadlineIn(GATHER_MS)
        while (!tryLock(fd) && !isPast(within.deadline)) {
          if (gathering !== undefined && isPast(gathering)) {
            // Who begins from now on locks another file: somewhere somebody may always be starting.
            rmSync(path, { force: true })
            gathering = undefined
          }
          await pause(PAUSE_MS, within)
        }
      } finally {
        closeSync(fd)
      }
    },
  }
}

function tryOpen(path: string): number | undefined {
  try {
    return openSync(path, 'r')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
