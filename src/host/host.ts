// SPDX-License-Identifier: Apache-2.0

import { Worker } from 'node:worker_threads'
import { HostContext } from './context.ts'
import type { OwnedLink } from './links.ts'
import { threadLost, tryOpenNetns } from './netns.ts'
import type { HostPort } from './portmap.ts'
import { type BlockingVerb, blockingVerbs, type Verbs, verbs } from './verbs.ts'
import { reviveError, type WireError } from './wire-error.ts'

/** What can be done to a node, whoever does it: this thread, or another on its behalf. */
export type Host = {
  readonly [V in keyof Verbs]: (
    ...args: Parameters<Verbs[V]> extends [unknown, infer A] ? [A] : []
  ) => Promise<Awaited<ReturnType<Verbs[V]>>>
}

/** The node worked on by the calling thread: for one-shot processes. */
export function inlineHost(context: HostContext): Host {
  const run = (name: keyof Verbs) => async (args?: unknown) =>
    context.onNode(() => (verbs[name] as (context: HostContext, args: unknown) => unknown)(context, args))
  return Object.fromEntries(Object.keys(verbs).map(name => [name, run(name as keyof Verbs)])) as unknown as Host
}

export type WorkerCall = { id: number; verb: keyof Verbs; args: unknown }
export type WorkerReply = { id: number; value: unknown } | { id: number; error: WireError } | { ready: true }

/** At most this many links in one group: whoever needs the kernel meanwhile waits 2.5 ms behind 16, 35 behind 200. */
const GROUP_LINKS_MAX = 16
/** Calls whose ports are looked for in one walk through all connections. */
const GROUP_PORTS_MAX = 64

/**
 * The node worked on by the calling thread, which pays less for a verb than for a message to another one. Verbs that block
 * have threads of their own (`blockingVerbs`); removals that wait for theirs join the next group.
 * @param netnsPath the node's namespace, where it is not the process's own: the calling thread is there during a verb only
 */
export async function threadedHost(netnsPath?: string): Promise<Host & ThreadedHost> {
  await using undo = new AsyncDisposableStack()
  const threads = undo.use(new KernelThreads(netnsPath))
  await threads.start('removals')
  const host = inlineHost(undo.use(openContext(netnsPath)))
  const elsewhere = Object.fromEntries(
    Object.keys(blockingVerbs).map(name => [name, (args: unknown) => threads.call(name as BlockingVerb, args)]),
  ) as unknown as Pick<Host, BlockingVerb>
  const removeLinks = together<OwnedLink>(links => elsewhere.removeLinks({ links }), GROUP_LINKS_MAX)
  const forgetFlows = together<HostPort>(ports => elsewhere.forgetFlows({ ports }), GROUP_PORTS_MAX)
  const owned = undo.move()
  return {
    ...host,
    ...elsewhere,
    ended: Promise.race([threadLost, threads.ended]),
    findUplink: rememberBriefly(host.findUplink, UPLINK_MS),
    awaitLinkChange: shareWhileRunning(elsewhere.awaitLinkChange),
    removeLinks: ({ links }) => removeLinks(links),
    forgetFlows: ({ ports }) => forgetFlows(ports),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

function openContext(netnsPath: string | undefined): HostContext {
  if (netnsPath === undefined) return new HostContext()
  const fd = tryOpenNetns(netnsPath)
  if (fd === undefined) throw new Error(`Cannot work in the namespace "${netnsPath}": no network namespace is there`)
  return new HostContext(fd)
}

/** `ended` resolves with the reason when a thread was lost: nothing can be done to the node any more. */
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

type Waiting<T> = { items: readonly T[]; resolve: () => void; reject: (error: unknown) => void }

/** Group commit: the first call goes at once, those that come meanwhile go together with the next, `max` of them. */
function together<T>(work: (items: T[]) => Promise<void>, max: number): (items: readonly T[]) => Promise<void> {
  const queue: Waiting<T>[] = []
  let busy = false
  async function workOff(): Promise<void> {
    busy = true
    while (queue.length > 0) {
      const group = queue.splice(0, max)
      try {
        await work(group.flatMap(waiting => waiting.items))
        for (const waiting of group) waiting.resolve()
      } catch (error) {
        // One bad link must not fail the others: each goes alone, and knows its own error.
        for (const waiting of group)
          if (group.length === 1) waiting.reject(error)
          else await work([...waiting.items]).then(waiting.resolve, waiting.reject)
      }
    }
    busy = false
  }
  return items =>
    new Promise((resolve, reject) => {
      queue.push({ items, resolve, reject })
      if (!busy) void workOff()
    })
}

/** Threads by what they are for, each started when it is first needed. */
class KernelThreads implements AsyncDisposable {
  readonly #netnsPath: string | undefined
  readonly #running = new Map<string, KernelThread>()
  readonly #ending = Promise.withResolvers<Error>()

  constructor(netnsPath: string | undefined) {
    this.#netnsPath = netnsPath
  }

  /** Resolves with the reason when one of them has died. */
  get ended(): Promise<Error> {
    return this.#ending.promise
  }

  async start(name: string): Promise<KernelThread> {
    let thread = this.#running.get(name)
    if (thread === undefined) {
      thread = kernelThread(this.#netnsPath)
      this.#running.set(name, thread)
      void thread.ended.then(this.#ending.resolve)
    }
    await thread.ready
    return thread
  }

  async call(verb: BlockingVerb, args: unknown): Promise<unknown> {
    const thread = await this.start(blockingVerbs[verb])
    return await thread.call(verb, args)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#running.values()].map(thread => thread.end()))
  }
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
