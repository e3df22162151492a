// SPDX-License-Identifier: Apache-2.0

import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { runCommand, startCommand, waitReady } from './children.ts'
import type { Place, Started } from './state.ts'

const READY_MS = 20_000

/** Where one machine's agent and its plugins are. */
export type AgentPaths = {
  readonly socket: string
  readonly dataDir: string
  readonly log: string
  /** The directory of plugins, and the file that tells them where the agent is. */
  readonly cniBin: string
  readonly settings: string
}

export const agentPaths = (place: Place, machine: string): AgentPaths => ({
  socket: place.file(machine, 'agent.sock'),
  dataDir: place.file(machine, 'data'),
  log: place.file(machine, 'agent.log'),
  cniBin: place.file(machine, 'bin'),
  settings: place.file(machine, 'mode'),
})

export const agentName = (machine: string) => `the agent of ${machine}`

/** Starts the agent of a machine, whose kernel work is done in the machine's namespace. */
export function startAgent(
  place: Place,
  { name, netns }: { name: string; netns: string },
  env: NodeJS.ProcessEnv,
): { process: Started; ready: (signal: AbortSignal) => Promise<void> } {
  const { socket, dataDir, log } = agentPaths(place, name)
  mkdirSync(place.file(name), { recursive: true, mode: 0o700 })
  // The socket of an agent that was killed would say that this one is ready.
  rmSync(socket, { force: true })
  const args = ['agent', '--netns', netns, '--socket', socket, '--data-dir', dataDir]
  const process = startCommand(agentName(name), args, log, env)
  const ready = (signal: AbortSignal) =>
    waitReady(process, () => existsSync(socket), { log, timeoutMs: READY_MS, signal })
  return { process, ready }
}

/** Puts the plugins of a machine into its directory, as an operator does. */
export async function installPlugins(place: Place, machine: string): Promise<void> {
  const { socket, dataDir, cniBin, settings } = agentPaths(place, machine)
  const where = ['--cni-bin', cniBin, '--config', settings, '--socket', socket, '--data-dir', dataDir]
  await runCommand(`install the plugins of ${machine}`, ['install', '--mode', 'agent', ...where])
}
