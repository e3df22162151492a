// SPDX-License-Identifier: Apache-2.0

import { Worker } from 'node:worker_threads'
import pino, { type Logger } from 'pino'
import { openJournal } from '#allocator'
import { deadlineIn } from '#base'
import { CniError, codes, dispatch, printError } from '#cni'
import { readBootId, threadedHost } from '#host'
import { findOwnPlugin, openSessions, startPorts, toCniError, type World, worldOf } from '#plugins'
import { createLanes, type Lanes } from './lanes.ts'
import { lockDataDirectory } from './lock.ts'
import { reconcile, type Suspects } from './reconcile.ts'
import { type Answer, type Incoming, listen } from './server.ts'
import { hasNewEntries, spoolOf, workOffSpool } from './spool.ts'

export type AgentOptions = {
  /** UNIX socket to listen on. */
  readonly socket: string
  /** Directory of journal and spool. */
  readonly dataDir: string
  /** Path of the node's network namespace, where it is not the agent's own (labs). */
  readonly netns?: string | undefined
  /** How often records are compared with the node. */
  readonly reconcileMs: number
  readonly logger: Logger
}

export type Agent = AsyncDisposable

/** The shim waits 110 s; what is left is for the way back. */
const CALL_MS = 100_000
/** Calls beyond this many are turned away with "try again later". */
const CALLS_MAX = 1024

/** A logger of the agent: JSON lines on stderr. */
export const createLogger = (level: string): Logger => pino({ level, base: null }, pino.destination(2))

/**
 * Starts the node's agent: the one process that answers shims and writes journal and kernel state.
 *
 * What an earlier one left unfinished is finished, and promised DELs are done, before the first call is answered.
 * @throws {Error} where another agent has the data directory
 */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { dataDir, logger } = options
  await using undo = new AsyncDisposableStack()
  undo.use(lockDataDirectory(dataDir, 'start the agent'))
  const journal = undo.use(openJournal(dataDir))
  journal.sql('PRAGMA wal_autocheckpoint = 0').get()
  const checkpoint = new Worker(new URL('./checkpoint.ts', import.meta.url), { workerData: { path: journal.path } })
  undo.defer(async () => {
    await checkpoint.terminate()
  })
  const host = undo.use(await threadedHost(options.netns))
  const clouds = undo.use(openSessions({ dataDir, warn: message => logger.warn(message) }))
  const world = worldOf({ host, journal, clouds, bootId: readBootId(), longLived: true, dataDir })
  undo.use(startPorts(world, error => logger.warn({ err: error }, 'address pool')))

  const lanes = createLanes()
  const background = new Background(world, lanes, options)
  undo.use(background)
  await background.run()
  const calls = new Calls(world, lanes, options)
  const server = await listen(
    options.socket,
    async incoming => {
      if (incoming.env['CNI_COMMAND'] === 'ADD') await background.keepPromises()
      return await calls.serve(incoming)
    },
    error => logger.warn({ err: error }, 'connection'),
  )
  undo.defer(async () => {
    await new Promise(resolve => server.close(resolve))
    await lanes.idle()
  })
  logger.info({ socket: options.socket, dataDir, netns: options.netns }, 'agent is ready')
  const owned = undo.move()
  return { [Symbol.asyncDispose]: () => owned.disposeAsync() }
}

const laneOf = (key: { network: string; containerId: string; ifName: string; type: string }) =>
  JSON.stringify([key.network, key.containerId, key.ifName, key.type])

/** Answers calls, each in the lane of its attachment. */
class Calls {
  readonly #world: World
  readonly #lanes: Lanes
  readonly #options: AgentOptions
  #running = 0

  constructor(world: World, lanes: Lanes, options: AgentOptions) {
    this.#world = world
    this.#lanes = lanes
    this.#options = options
  }

  async serve(incoming: Pick<Incoming, 'type' | 'env' | 'stdin' | 'netnsFd' | 'signal'>): Promise<Answer> {
    const { type, env, stdin, netnsFd, signal } = incoming
    const plugin = findOwnPlugin(type)
    const begin = performance.now()
    if (plugin === undefined)
      return refuse(new CniError(codes.invalidConfig, `Cannot run "${type}": no plugin of this release`))
    if (this.#running >= CALLS_MAX)
      return refuse(new CniError(codes.tryAgainLater, `Cannot take the call: ${CALLS_MAX} are running`))
    this.#running++
    try {
      const lane = laneOf({
        network: networkOf(stdin),
        containerId: env['CNI_CONTAINERID'] ?? '',
        ifName: env['CNI_IFNAME'] ?? '',
        type: plugin.type,
      })
      const answer = await this.#lanes.run(lane, () =>
        dispatch(plugin, { env, stdin, netnsFd }, this.#world, {
          deadline: deadlineIn(CALL_MS),
          signal,
          toCniError,
          ownNetns: this.#options.netns,
        }),
      )
      this.#log(incoming, answer, performance.now() - begin)
      return answer
    } finally {
      this.#running--
    }
  }

  #log({ type, env }: Pick<Incoming, 'type' | 'env'>, { exitCode, stdout, stderr }: Answer, ms: number): void {
    const command = env['CNI_COMMAND']
    const fields = {
      command,
      type,
      containerId: env['CNI_CONTAINERID'],
      ifName: env['CNI_IFNAME'],
      ms: Math.round(ms * 100) / 100,
    }
    if (exitCode === 0) this.#options.logger[command === 'STATUS' ? 'debug' : 'info'](fields, 'done')
    else this.#options.logger.warn({ ...fields, error: new TextDecoder().decode(stdout), stderr }, 'failed')
  }
}

const refuse = (error: CniError): Answer => ({ exitCode: 1, stdout: printError(error, '1.1.0'), stderr: '' })

/** The network's name for the lane alone; what is no JSON gets its error in `dispatch`. */
function networkOf(stdin: Uint8Array): string {
  try {
    const config = JSON.parse(new TextDecoder().decode(stdin)) as { name?: unknown } | null
    return typeof config?.name === 'string' ? config.name : ''
  } catch {
    return ''
  }
}

/** What goes on without being asked: unfinished work, the spool, attachments that died without a DEL. */
class Background {
  readonly #world: World
  readonly #lanes: Lanes
  readonly #options: AgentOptions
  readonly #suspects: Suspects = new Set()
  readonly #timer: NodeJS.Timeout
  readonly #tried = new Set<string>()
  #running: Promise<void> | undefined
  #keeping: Promise<unknown> | undefined

  constructor(world: World, lanes: Lanes, options: AgentOptions) {
    this.#world = world
    this.#lanes = lanes
    this.#options = options
    this.#timer = setInterval(() => void this.run(), options.reconcileMs)
  }

  /** One round; a second call during it waits for the same. */
  run(): Promise<void> {
    this.#running ??= this.#round().finally(() => {
      this.#running = undefined
    })
    return this.#running
  }

  /** Does the DELs that shims promised since the last look. */
  async keepPromises(): Promise<void> {
    while (hasNewEntries(spoolOf(this.#options.dataDir), this.#tried)) await this.#workOff()
  }

  #workOff(): Promise<unknown> {
    const { logger, dataDir } = this.#options
    const calls = new Calls(this.#world, this.#lanes, this.#options)
    const signal = new AbortController().signal
    this.#keeping ??= workOffSpool(
      spoolOf(dataDir),
      this.#tried,
      async ({ type, env, stdin }) =>
        (await calls.serve({ type, env: { ...env, CNI_NETNS: '' }, stdin, netnsFd: undefined, signal })).exitCode === 0,
      (file, error) => logger.error({ file, err: error }, 'spool entry is no request, set aside'),
    ).finally(() => {
      this.#keeping = undefined
    })
    return this.#keeping
  }

  async #round(): Promise<void> {
    const { logger } = this.#options
    try {
      await this.#workOff()
      const released = await reconcile(this.#world, this.#suspects, (attachment, work) =>
        this.#lanes.run(laneOf(attachment), work),
      )
      for (const { attachment, why, error } of released) {
        const { network, containerId, ifName, type } = attachment
        const fields = { network, containerId, ifName, type, why }
        if (error === undefined) logger.info(fields, 'released')
        else logger.warn({ ...fields, err: error }, 'not released yet')
      }
    } catch (error) {
      logger.error({ err: error }, 'reconcile')
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    await this.#running
  }
}
