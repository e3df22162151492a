// SPDX-License-Identifier: Apache-2.0

// A node of a schedule: journal, kernel and cloud, and the process of Mooring on it: an agent, or one per call.

import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { encodeRequest, type Serving, spoolOf, startServing } from '#agent'
import { type Journal, openJournal, tryEnterLane } from '#allocator'
import { deadlineIn } from '#base'
import { dispatch } from '#cni'
import { findOwnPlugin, holdNamespaces, openSessions, startPorts, toCniError, type World, worldOf } from '#plugins'
import type { Simulator } from '#simulator'
import type { Kernel } from './kernel.ts'
import type { Mode } from './mode.ts'
import { type Mortal, mortal } from './mortal.ts'
import type { Fuse, Schedule } from './schedule.ts'

export const NETWORK = 'cni0'

/** What a call printed; `undefined` where its process was killed before it answered. */
export type Answer = { readonly exitCode: number; readonly json: Printed } | undefined
export type Printed = Partial<{
  readonly ips: readonly { readonly address: string }[]
  readonly code: number
  readonly msg: string
  readonly details: string
}>

/** A container's namespace, as CNI_NETNS names it. */
export type Sandbox = { readonly path: string; remove(): void }

export type CallOptions = {
  readonly sandbox?: Sandbox | undefined
  readonly signal?: AbortSignal
  readonly timeoutMs?: number
  readonly config?: object
}

export type Node = AsyncDisposable & {
  /** For who looks from outside. */
  readonly journal: Journal
  readonly directory: string
  makeSandbox(containerId: string): Sandbox
  call(verb: 'ADD' | 'DEL' | 'GC', containerId: string, options?: CallOptions): Promise<Answer>
  /** The shim's promise of a DEL while no agent runs. */
  promise(containerId: string): void
  /** The next process, or the one that runs, dies at that moment. */
  arm(fuse: Fuse | undefined): void
  /** What goes on without being asked. */
  keepUp(): Promise<void>
  stop(how: 'in order' | 'killed'): Promise<void>
  start(options?: { bootId: string }): Promise<void>
}

type Process = {
  readonly mortal: Mortal
  readonly world: World
  readonly clouds: AsyncDisposable
  readonly stack: AsyncDisposableStack
  serving?: Serving
}

const CALL_MS = 30_000
/** In memory where that can be: a schedule is about what is written, not about how long a disk takes. */
const base = () => {
  try {
    return mkdtempSync('/dev/shm/mooring-schedule-')
  } catch {
    return mkdtempSync(join(tmpdir(), 'mooring-schedule-'))
  }
}

export async function startNode(
  schedule: Schedule,
  { simulator, kernel, mode, warn }: { simulator: Simulator; kernel: Kernel; mode: Mode; warn(text: string): void },
): Promise<Node> {
  const { process: kind, reserve, coolDownMs } = schedule
  const directory = base()
  mkdirSync(join(directory, 'sandbox'))
  const watching = openJournal(directory)
  let bootId = 'boot-1'
  let armed: Fuse | undefined
  let agent: Process | undefined
  let [sandboxes, promises] = [0, 0]
  const logger = pino({ level: 'error' }, { write: warn })

  const { username, password, project } = simulator.accounts.demo
  const config = {
    cniVersion: '1.1.0',
    name: NETWORK,
    type: mode.type,
    ipam: {
      type: 'tcnp-ipam',
      openstackConf: { username, password, project, domain: 'default', authUrl: simulator.authUrl },
      neutronConf: {
        networks: [simulator.demo().network_id],
        hostPort: simulator.demo().servers['worker-1']!.ports[0]!.id,
        reserve,
        coolDownMs,
        usableAfterMs: 0,
        ...mode.neutronConf(schedule),
      },
      routes: [{ dst: '0.0.0.0/0' }],
    },
  }

  function startProcess(longLived: boolean): Process {
    const stack = new AsyncDisposableStack()
    const process = mortal()
    process.arm(armed)
    armed = undefined
    const journal = process.journal(stack.use(openJournal(directory)))
    const clouds = stack.use(openSessions({ dataDir: directory, warn: () => {} }))
    const [host, watched] = [process.host(kernel.host), process.clouds(clouds)]
    const world = worldOf({ host, journal, clouds: watched, bootId, longLived, dataDir: directory })
    return { mortal: process, world, clouds, stack }
  }

  /** What is left of a dead process goes: the kernel closes what it had open. */
  async function bury({ mortal, clouds, serving, stack }: Process): Promise<void> {
    if (mortal.isDead()) await mortal.kernelDone()
    if (mortal.isDead()) await clouds[Symbol.asyncDispose]()
    await Promise.resolve(serving?.[Symbol.asyncDispose]()).catch(() => {})
    await stack.disposeAsync().catch(() => {})
    if (agent === undefined) kernel.abandon?.()
  }

  async function startAgent(): Promise<void> {
    while (agent === undefined) {
      const process = startProcess(true)
      try {
        process.stack.use(holdNamespaces(process.world))
        process.stack.use(startPorts(process.world, error => warn(String(error))))
        process.serving = await startServing(process.world, { dataDir: directory, reconcileMs: 2 ** 30, logger })
        agent = process
      } catch (error) {
        if (!process.mortal.isDead()) throw error
        await bury(process)
      }
    }
  }

  async function inProcess(longLived: boolean, work: (process: Process) => Promise<Answer>): Promise<Answer> {
    const process = longLived ? agent! : startProcess(false)
    const working = work(process)
    const answer = await Promise.race([working, process.mortal.death.then(() => undefined)])
    const isDead = process.mortal.isDead()
    if (isDead) {
      if (agent === process) agent = undefined
      await bury(process)
      await working.catch(() => {})
    } else if (!longLived) await bury(process)
    return isDead ? undefined : answer
  }

  const parse = (reply: { exitCode: number; stdout: Uint8Array }): Answer => {
    const text = new TextDecoder().decode(reply.stdout)
    return { exitCode: reply.exitCode, json: text === '' ? {} : (JSON.parse(text) as Printed) }
  }

  function requestOf(verb: string, containerId: string, options: CallOptions) {
    const { sandbox, config: more } = options
    const args = mode.argsOf?.(containerId) ?? ''
    const ofPod = { CNI_CONTAINERID: containerId, CNI_IFNAME: 'eth0', CNI_NETNS: sandbox?.path ?? '', CNI_ARGS: args }
    const env = {
      CNI_COMMAND: verb,
      CNI_PATH: '/opt/cni/bin',
      CNI_NETNS_OVERRIDE: '1',
      ...(verb === 'GC' ? {} : ofPod),
    }
    return { env, stdin: new TextEncoder().encode(JSON.stringify({ ...config, ...more })) }
  }

  async function serve(
    process: Process,
    { env, stdin }: ReturnType<typeof requestOf>,
    options: CallOptions,
  ): Promise<Answer> {
    const signal = options.signal ?? new AbortController().signal
    if (process.serving !== undefined) {
      const netnsFd = tryOpen(options.sandbox?.path)
      try {
        return parse(await process.serving.serve({ type: mode.type, env, stdin, netnsFd, signal }))
      } finally {
        if (netnsFd !== undefined) closeSync(netnsFd)
      }
    }
    using _lane = await enterLane(directory, mode.type, env)
    const deadline = deadlineIn(options.timeoutMs ?? CALL_MS)
    return parse(
      await dispatch(findOwnPlugin(mode.type)!, { env, stdin }, process.world, { deadline, signal, toCniError }),
    )
  }

  const node: Node = {
    journal: watching,
    directory,
    makeSandbox(containerId) {
      const { target, remove } = kernel.makeSandbox(containerId)
      const path = join(directory, 'sandbox', `${containerId}-${sandboxes++}`)
      symlinkSync(target, path)
      return {
        path,
        remove() {
          rmSync(path)
          remove()
          if (agent === undefined) kernel.abandon?.()
        },
      }
    },
    async call(verb, containerId, options = {}) {
      if (kind === 'agent' && agent === undefined) await startAgent()
      const request = requestOf(verb, containerId, options)
      return await inProcess(kind === 'agent', process => serve(process, request, options))
    },
    promise(containerId) {
      const { env, stdin } = requestOf('DEL', containerId, {})
      const name = `${BigInt(Date.now()) * 1_000_000n}-${promises++}`
      mkdirSync(spoolOf(directory), { recursive: true, mode: 0o700 })
      writeFileSync(join(spoolOf(directory), name), encodeRequest({ type: mode.type, env, stdin }))
    },
    arm(fuse) {
      if (agent === undefined) armed = fuse
      else agent.mortal.arm(fuse)
    },
    async keepUp() {
      if (kind !== 'agent') return
      if (agent === undefined) await startAgent()
      await agent?.serving?.keepUp()
    },
    async stop(how) {
      const process = agent
      agent = undefined
      if (process === undefined) return
      if (how === 'killed') process.mortal.kill()
      await bury(process)
    },
    async start(options) {
      bootId = options?.bootId ?? bootId
      if (kind === 'agent' && agent === undefined) await startAgent()
    },
    async [Symbol.asyncDispose]() {
      await node.stop('in order')
      watching[Symbol.dispose]()
      rmSync(directory, { recursive: true, force: true })
    },
  }
  await node.start()
  return node
}

function tryOpen(path: string | undefined): number | undefined {
  try {
    return path === undefined ? undefined : openSync(path, 'r')
  } catch {
    return undefined // it is gone
  }
}

/** As a process of its own does it: one at a time per attachment. */
async function enterLane(dataDir: string, type: string, env: Record<string, string>): Promise<Disposable> {
  for (;;) {
    const key = { type, containerId: env['CNI_CONTAINERID'] ?? '', ifName: env['CNI_IFNAME'] ?? '' }
    const lane = tryEnterLane(dataDir, key)
    if (lane !== undefined) return lane
    await new Promise(resolve => setTimeout(resolve, 2))
  }
}
