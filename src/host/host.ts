// SPDX-License-Identifier: Apache-2.0

import { Worker } from 'node:worker_threads'
import type { HostContext } from './context.ts'
import type { OwnedLink } from './links.ts'
import type { SettledAddresses } from './pod-link.ts'
import { type Verbs, verbs } from './verbs.ts'
import { reviveError, type WireError } from './wire-error.ts'

/** What can be done to a node, whoever does it: this thread, or others on its behalf. */
export type Host = {
  readonly [V in keyof Verbs]: (
    ...args: Parameters<Verbs[V]> extends [unknown, infer A] ? [A] : []
  ) => Promise<ReturnType<Verbs[V]>>
}

/** The node worked on by the calling thread: for one-shot processes. */
export function inlineHost(context: HostContext): Host {
  const run = (name: keyof Verbs) => async (args?: unknown) =>
    (verbs[name] as (context: HostContext, args: unknown) => unknown)(context, args)
  return Object.fromEntries(Object.keys(verbs).map(name => [name, run(name as keyof Verbs)])) as unknown as Host
}

export type WorkerCall = { id: number; verb: keyof Verbs; args: unknown }
export type WorkerReply = { id: number; value: unknown } | { id: number; error: WireError } | { ready: true }

/** At most this many links in one group: whoever needs the kernel meanwhile waits 2.5 ms behind 16, 35 behind 200. */
const GROUP_LINKS_MAX = 16

/**
 * The node worked on by threads of its own, so that the caller's stays free for messages: one for link removals, which
 * block 13-20 ms in the kernel, one for all else, and, once something waits for the segment, one for that. Removals that
 * wait for the thread join the next group.
 * @param netnsPath the node's namespace, where it is not the process's own
 */
export async function threadedHost(netnsPath?: string): Promise<Host & ThreadedHost> {
  const additions = kernelThread(netnsPath)
  const removals = kernelThread(netnsPath)
  let waits: KernelThread | undefined
  const died = Promise.withResolvers<Error>()
  void Promise.race([additions.ended, removals.ended]).then(died.resolve)
  /** Made when it is first needed: what waits there one after the other has been asked by the kernel at the same time. */
  const waiting = async (): Promise<KernelThread> => {
    if (waits === undefined) {
      waits = kernelThread(netnsPath)
      void waits.ended.then(died.resolve)
    }
    await waits.ready
    return waits
  }
  await Promise.all([additions.ready, removals.ready])
  const host = Object.fromEntries(
    Object.keys(verbs).map(name => [name, (args: unknown) => additions.call(name as keyof Verbs, args)]),
  ) as unknown as Host
  return {
    ...host,
    ended: died.promise,
    findUplink: rememberBriefly(host.findUplink, UPLINK_MS),
    awaitLinkChange: shareWhileRunning(async args => (await waiting()).call('awaitLinkChange', args) as Promise<void>),
    // Each waits for RCU as a removal does.
    moveNicIn: args => removals.call('moveNicIn', args) as ReturnType<Host['moveNicIn']>,
    bringNicHome: args => removals.call('bringNicHome', args) as ReturnType<Host['bringNicHome']>,
    removeLinks: groupRemovals(links => removals.call('removeLinks', { links }) as Promise<void>),
    awaitPodAddresses: async args => (await waiting()).call('awaitPodAddresses', args) as Promise<SettledAddresses>,
    async [Symbol.asyncDispose]() {
      await Promise.all([additions.end(), removals.end(), waits?.end()])
    },
  }
}

/** Who asks while another's answer is under way gets that one. */
function shareWhileRunning<A, T>(ask: (args: A) => Promise<T>): (args: A) => Promise<T> {
  let running: Promise<T> | undefined
  return args => {
    running ??= ask(args).finally(() => {
      running = undefined
    })
    return running
  }
}

/** `ended` resolves with the reason when a thread has died: nothing can be done to the node any more. */
export type ThreadedHost = AsyncDisposable & { readonly ended: Promise<Error> }

/** For this long the uplink is what it was: a burst of pods asks once. A NIC that is gone meanwhile fails the attachment. */
const UPLINK_MS = 2_000

/** Asks again once what was found is older than `ms`; what failed is not kept. */
function rememberBriefly<A, T>(ask: (args: A) => Promise<T>, ms: number): (args: A) => Promise<T> {
  const found = new Map<string, { value: Promise<T>; untilMs: number }>()
  return args => {
    const key = JSON.stringify(args)
    const known = found.get(key)
    if (known !== undefined && performance.now() < known.untilMs) return known.value
    const value = ask(args)
    found.set(key, { value, untilMs: performance.now() + ms })
    value.catch(() => found.delete(key))
    return value
  }
}

type Waiting = { links: OwnedLink[]; resolve: () => void; reject: (error: unknown) => void }

/** Group commit: the first removal goes at once, those that come meanwhile go together with the next. */
function groupRemovals(remove: (links: OwnedLink[]) => Promise<void>): Host['removeLinks'] {
  const queue: Waiting[] = []
  let busy = false
  async function work(): Promise<void> {
    busy = true
    while (queue.length > 0) {
      const together = queue.splice(0, GROUP_LINKS_MAX)
      try {
        await remove(together.flatMap(waiting => waiting.links))
        for (const waiting of together) waiting.resolve()
      } catch (error) {
        // One bad link must not fail the others: each goes alone, and knows its own error.
        for (const waiting of together)
          if (together.length === 1) waiting.reject(error)
          else await remove(waiting.links).then(waiting.resolve, waiting.reject)
      }
    }
    busy = false
  }
  return ({ links }) =>
    new Promise((resolve, reject) => {
      queue.push({ links, resolve, reject })
      if (!busy) void work()
    })
}

type KernelThread = ReturnType<typeof kernelThread>

function kernelThread(netnsPath: string | undefined) {
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { workerData: { netnsPath } })
  const open = new Map<number, { resolve: (value: unknown) => void; reject: (error: unknown) => void }>()
  let next = 1
  let dead: Error | undefined
  const { promise: ready, resolve: beReady, reject: fail } = Promise.withResolvers<void>()
  const { promise: ended, resolve: end } = Promise.withResolvers<Error>()
  worker.on('message', (reply: WorkerReply) => {
    if ('ready' in reply) return beReady()
    const call = open.get(reply.id)
    open.delete(reply.id)
    if ('error' in reply) call?.reject(reviveError(reply.error))
    else call?.resolve(reply.value)
  })
  const die = (error: Error) => {
    dead ??= error
    end(error)
    fail(error)
    for (const call of open.values()) call.reject(error)
    open.clear()
  }
  worker.on('error', die)
  worker.on('exit', () => die(new Error('Cannot work on the node: its thread has ended')))
  return {
    ready,
    ended,
    call: (verb: keyof Verbs, args: unknown) =>
      new Promise((resolve, reject) => {
        if (dead !== undefined) return reject(dead)
        const id = next++
        open.set(id, { resolve, reject })
        worker.postMessage({ id, verb, args } satisfies WorkerCall)
      }),
    end: () => worker.terminate(),
  }
}
