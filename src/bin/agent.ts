// SPDX-License-Identifier: Apache-2.0

import { createLogger, startAgent } from '#agent'

export type AgentArguments = {
  socket: string
  dataDir: string
  netns?: string
  reconcile: string
  logLevel: string
  warmUp: boolean
  requestsPerSecond?: string
}

/** Runs the agent until SIGTERM or SIGINT, then ends what is under way. @throws {Error} for a bad option */
export async function runAgent(options: AgentArguments): Promise<void> {
  const { socket, dataDir, netns, reconcile, logLevel, warmUp, requestsPerSecond: share } = options
  const seconds = Number(reconcile)
  if (!(seconds >= 1 && seconds <= 3600))
    throw new Error(`Cannot start the agent: --reconcile is "${reconcile}", want 1 to 3600 seconds`)
  const requestsPerSecond = share === undefined ? undefined : Number(share)
  if (requestsPerSecond !== undefined && !(requestsPerSecond >= 0.01 && requestsPerSecond <= 1000))
    throw new Error(`Cannot start the agent: --requests-per-second is "${share}", want 0.01 to 1000`)
  if (process.getuid?.() !== 0)
    throw new Error('Cannot start the agent: it changes links and namespaces, run it as root')
  const logger = createLogger(logLevel)
  const stopped = Promise.withResolvers<void>()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stopped.resolve())
  await using agent = await startAgent({
    socket,
    dataDir,
    netns,
    reconcileMs: seconds * 1000,
    requestsPerSecond,
    logger,
    warmUp,
  })
  const failure = await Promise.race([stopped.promise, agent.failed])
  if (failure !== undefined) {
    logger.fatal({ err: failure }, 'agent cannot go on')
    process.exit(1)
  }
  logger.info('agent stops')
}
