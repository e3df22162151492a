// SPDX-License-Identifier: Apache-2.0

import { createLogger, startAgent } from '#agent'
import { tryParseIp } from '#base'
import { secondsOf } from './command.ts'

export type AgentArguments = {
  socket: string
  dataDir: string
  netns?: string
  reconcile: string
  logLevel: string
  warmUp: boolean
  requestsPerSecond?: string
  metrics?: string
}

/** Runs the agent until SIGTERM or SIGINT, then ends what is under way. @throws {Error} for a bad option */
export async function runAgent(options: AgentArguments): Promise<void> {
  const { socket, dataDir, netns, reconcile, logLevel, warmUp, requestsPerSecond: share } = options
  const seconds = secondsOf('--reconcile', reconcile, 'start the agent')
  const requestsPerSecond = share === undefined ? undefined : Number(share)
  if (requestsPerSecond !== undefined && !(requestsPerSecond >= 0.05 && requestsPerSecond <= 1000))
    throw new Error(`Cannot start the agent: --requests-per-second is "${share}", want 0.05 to 1000`)
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
    metrics: options.metrics === undefined ? undefined : addressOf(options.metrics),
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

/** `ADDRESS:PORT`, an IPv6 address in brackets. @throws {Error} */
function addressOf(text: string): { host: string; port: number } {
  const [, v6, v4, port] = /^(?:\[([0-9a-f:]+)\]|([\d.]+)):(\d{1,5})$/i.exec(text) ?? []
  const host = v6 ?? v4 ?? ''
  if (tryParseIp(host) === undefined || Number(port) > 65_535)
    throw new Error(`Cannot start the agent: --metrics is "${text}", want ADDRESS:PORT, such as 127.0.0.1:9464`)
  return { host, port: Number(port) }
}
