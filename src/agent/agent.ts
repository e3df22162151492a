// SPDX-License-Identifier: Apache-2.0

import type { Logger } from 'pino'
import { listAttachmentTypes, openJournal, prepareLanes } from '#allocator'
import { readBootId, threadedHost } from '#host'
import { holdNamespaces, openSessions, startPorts, worldOf } from '#plugins'
import { startCheckpoints } from './checkpoints.ts'
import { watchLevels } from './levels.ts'
import { lockDataDirectory } from './lock.ts'
import { listen } from './server.ts'
import { startServing } from './serving.ts'
import { prepareSocketPath } from './socket-path.ts'
import { warmUp } from './warm-up.ts'

export type AgentOptions = {
  /** UNIX socket to listen on. */
  readonly socket: string
  /** Directory of journal and spool. */
  readonly dataDir: string
  /** Path of the node's network namespace, where it is not the agent's own (labs). */
  readonly netns?: string | undefined
  /** How often records are compared with the node. */
  readonly reconcileMs: number
  /** The node's share of the requests per second that its cloud permits, where somebody knows it. */
  readonly requestsPerSecond?: number | undefined
  readonly logger: Logger
  /** Where Prometheus may ask; nowhere if left out. */
  readonly metrics?: { readonly host: string; readonly port: number } | undefined
  /** Attach pods of nobody after the start, so that the first real ones are fast. @default true */
  readonly warmUp?: boolean
}

/** `failed` resolves with the reason when the agent cannot serve any more: its process should end, and be started again. */
export type Agent = AsyncDisposable & { readonly failed: Promise<Error> }

/**
 * Starts the node's agent: the one process that answers shims and writes journal and kernel state.
 *
 * What an earlier one left unfinished is finished, and promised DELs are done, before the first call is answered.
 * @throws {Error} where another agent has the data directory or the socket, or one of them cannot be used
 */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { dataDir, logger } = options
  await using undo = new AsyncDisposableStack()
  undo.use(lockDataDirectory(dataDir, 'start the agent'))
  await prepareSocketPath(options.socket)
  prepareLanes(dataDir)
  const journal = undo.use(openJournal(dataDir))
  // Asked before those of an earlier boot are cleared away.
  const used = listAttachmentTypes(journal)
  undo.use(startCheckpoints(journal, error => logger.error({ err: error }, 'checkpoints')))
  const host = undo.use(await threadedHost(options.netns))
  const metrics = options.metrics === undefined ? undefined : (await import('./metrics.ts')).createMetrics()
  const warn = (message: string) => logger.warn(message)
  const gate = { watchful: true, sharePerSecond: options.requestsPerSecond }
  const clouds = undo.use(openSessions({ dataDir, warn, gate, onSent: metrics?.sent }))
  undo.use(watchLevels(clouds, logger))
  if (metrics !== undefined) {
    const warnOfMetrics = (error: unknown) => logger.warn({ err: error }, 'metrics')
    undo.use(await metrics.serve(options.metrics!, { journal, clouds, warn: warnOfMetrics }))
  }
  const world = worldOf({ host, journal, clouds, bootId: readBootId(), longLived: true, dataDir, warn })
  undo.use(startPorts(world, error => logger.warn({ err: error }, 'address pool')))
  undo.use(holdNamespaces(world))

  const serving = undo.use(await startServing(world, { ...options, observer: metrics }))
  const server = await listen(options.socket, serving.serve, error => logger.warn({ err: error }, 'connection'))
  undo.defer(async () => void (await new Promise(resolve => server.close(resolve))))
  logger.info({ socket: options.socket, dataDir, netns: options.netns }, 'agent is ready')
  logger.flush()
  const stop = new AbortController()
  const warming = options.warmUp === false ? Promise.resolve() : warmUp(stop.signal, used)
  const warm = warming.catch(error => logger.warn({ err: error }, 'warm-up'))
  undo.defer(async () => {
    stop.abort()
    await warm
  })
  const owned = undo.move()
  return { failed: host.ended, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}
