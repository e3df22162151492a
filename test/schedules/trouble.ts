// SPDX-License-Identifier: Apache-2.0

// What a kernel does to those who ask it for links: it takes its time, before a change is made and after, and now and then
// it refuses. From a seed, so that the same schedule meets the same.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Host } from '#host'
import { EBUSY } from '#libc'
import { NetlinkError } from '#netlink'
import { randomFrom } from './schedule.ts'

/** What makes a container's link, and what takes it away. */
export type LinkWork = 'attach' | 'detach'

export type Trouble = {
  /** The same host, whose verbs of the two kinds take their time. */
  readonly host: Host
  /** The next so many of each kind fail. They change nothing; but what makes a link may leave it there. */
  refuse(times: Readonly<Record<LinkWork, number>>): void
  /** How many have failed so. */
  refusals(): number
  /** From now on nothing is refused. */
  heal(): void
}

/** Before the change, in ms: a kernel that removes a link waits for an RCU grace period. */
const BEFORE_MS: Readonly<Record<LinkWork, readonly number[]>> = { attach: [0, 0, 1, 4], detach: [0, 1, 4, 15] }
const AFTER_MS = [0, 0, 0, 3]

type Verbs = Readonly<Record<LinkWork, readonly (keyof Host)[]>>

/** @param verbs those of each kind */
export function troubled(host: Host, verbs: Verbs, seed: number): Trouble {
  const random = randomFrom(seed)
  const pause = async (from: readonly number[]) => {
    const ms = from[random(from.length)]!
    if (ms > 0) await sleep(ms)
  }
  const left: Record<LinkWork, number> = { attach: 0, detach: 0 }
  let refused = 0

  const slow = (work: LinkWork, name: keyof Host) => {
    const verb = host[name] as (args: unknown) => Promise<unknown>
    return async (args: unknown) => {
      await pause(BEFORE_MS[work])
      if (left[work] > 0) {
        left[work]--
        refused++
        if (work === 'attach' && random(2) === 0) await verb(args)
        throw new NetlinkError(`${work} by ${name}`, EBUSY)
      }
      const value = await verb(args)
      await pause(AFTER_MS)
      return value
    }
  }
  const slowed = (['attach', 'detach'] as const).flatMap(work => verbs[work].map(name => [name, slow(work, name)]))
  return {
    host: { ...host, ...Object.fromEntries(slowed) },
    refuse({ attach, detach }) {
      left.attach += attach
      left.detach += detach
    },
    refusals: () => refused,
    heal() {
      left.attach = 0
      left.detach = 0
    },
  }
}
