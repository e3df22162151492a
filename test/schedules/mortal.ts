// SPDX-License-Identifier: Apache-2.0

// A process of Mooring that can be killed between any two things that it does, inside this one: from then on it changes
// neither journal nor kernel nor cloud. What a killed process really leaves to the kernel (locks, sockets) is in test/crash.

import type { Journal } from '#allocator'
import type { Host } from '#host'
import type { CloudSession } from '#openstack'
import type { CloudSessions } from '#plugins'
import type { Fuse } from './schedule.ts'

class Killed extends Error {
  override readonly name = 'Killed'
}

export type Mortal = {
  /** Resolves when it is dead. */
  readonly death: Promise<void>
  isDead(): boolean
  /** Resolves when the kernel has ended what it had begun for it: before that no killed process is gone. */
  kernelDone(): Promise<void>
  kill(): void
  /** Kills it at a moment that is still to come, instead of the one before. */
  arm(fuse: Fuse | undefined): void
  journal(live: Journal): Journal
  host(live: Host): Host
  clouds(live: CloudSessions): CloudSessions
}

/** A request is with the cloud by then. */
const ON_THE_WAY_MS = 4

export function mortal(): Mortal {
  const { promise: death, resolve } = Promise.withResolvers<void>()
  const inKernel = new Set<Promise<unknown>>()
  let dead = false
  let armed: Fuse | undefined
  let passed = 0

  function kill(): void {
    dead = true
    resolve()
  }
  function live(): void {
    if (dead) throw new Killed('killed')
  }
  /** Counts one thing that is about to be done. @returns the moment at which this one kills, if it does */
  function meet(at: Fuse['at']): Fuse['moment'] | undefined {
    live()
    if (armed?.at !== at || ++passed < armed.count) return undefined
    const { moment } = armed
    armed = undefined
    return moment
  }
  function die(): never {
    kill()
    throw new Killed('killed')
  }

  function runSync<T>(at: Fuse['at'], run: () => T): T {
    const moment = meet(at)
    if (moment === 'before') die()
    const value = run()
    return moment === undefined ? value : die()
  }

  async function run<T>(at: Fuse['at'], work: () => Promise<T>): Promise<T> {
    const moment = meet(at)
    if (moment === 'before') die()
    const working = work()
    if (moment === 'during') {
      working.catch(() => {})
      await new Promise(resolve => setTimeout(resolve, ON_THE_WAY_MS))
      die()
    }
    const value = await working
    if (moment !== undefined) die()
    live()
    return value
  }

  return {
    death,
    isDead: () => dead,
    async kernelDone() {
      await Promise.allSettled(inKernel)
    },
    kill,
    arm(fuse) {
      armed = fuse
      passed = 0
    },
    journal(journal) {
      let depth = 0
      const isRead = (text: string) => /^\s*SELECT/i.test(text)
      return {
        path: journal.path,
        // A write outside of a transaction is one of its own.
        sql(text) {
          live()
          if (depth === 0 && !isRead(text) && meet('journal') !== undefined) die()
          return journal.sql(text)
        },
        transaction(work, options) {
          if (depth > 0) return journal.transaction(work, options)
          return runSync('journal', () => {
            depth++
            try {
              return journal.transaction(work, options)
            } finally {
              depth--
            }
          })
        },
        [Symbol.dispose]: () => journal[Symbol.dispose](),
      }
    },
    host: host =>
      wrapped(host, work =>
        run('kernel', () => {
          const working = work().finally(() => inKernel.delete(working))
          inKernel.add(working)
          return working
        }),
      ),
    clouds: clouds => ({
      open: async (reference, options) => {
        const opened = await clouds.open(reference, options)
        return { ...opened, session: { ...opened.session, ...guarded(opened.session) } }
      },
      list: () => clouds.list(),
      reach: async access => {
        const session = await clouds.reach(access)
        return session === undefined ? undefined : { ...session, ...guarded(session) }
      },
      [Symbol.asyncDispose]: () => clouds[Symbol.asyncDispose](),
    }),
  }

  /** The resources of the services, with every call watched. */
  function guarded({ neutron, nova }: CloudSession): Pick<CloudSession, 'neutron' | 'nova'> {
    return wrapped({ neutron, nova }, work => run('cloud', work))
  }
}

/** The same functions, each run by `run`, also those of objects within. */
function wrapped<T extends object>(target: T, run: (work: () => Promise<unknown>) => Promise<unknown>): T {
  const each = ([name, value]: [string, unknown]) => {
    if (typeof value === 'function')
      return [name, (...args: unknown[]) => run(async () => await value.apply(target, args))]
    return [name, typeof value === 'object' && value !== null ? wrapped(value, run) : value]
  }
  return Object.fromEntries(Object.entries(target).map(each)) as T
}
