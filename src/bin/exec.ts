// SPDX-License-Identifier: Apache-2.0

import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { openTarget } from '#inspect'
import { setNetworkNamespace } from '#libc'
import { type NodeOptions, openNode } from './node.ts'

// As shells have it.
const CANNOT_EXECUTE = 126
const NOT_FOUND = 127
const BY_SIGNAL = 128

/**
 * Runs a command in a container's network namespace; files, processes and users are the caller's.
 * @returns its exit code
 */
export async function runIn(text: string, command: readonly string[], options: NodeOptions): Promise<number> {
  const [program, ...args] = command
  if (program === undefined) throw new Error('Cannot run nothing: mooring exec TARGET -- COMMAND')
  {
    await using node = openNode(options)
    using target = openTarget(text, node.journal)
    if (target.netnsFd === undefined) throw new Error(`Cannot run ${program}: the namespace ${target.path} is gone`)
    setNetworkNamespace(target.netnsFd)
  }
  // What is started from this thread inherits its namespace.
  const child = spawn(program, args, { stdio: 'inherit' })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal))
  return await new Promise(resolve => {
    child.on('error', (error: NodeJS.ErrnoException) => {
      console.error(`mooring: Cannot run ${program}: ${error.message}`)
      resolve(error.code === 'ENOENT' ? NOT_FOUND : CANNOT_EXECUTE)
    })
    child.on('exit', (code, signal) => resolve(code ?? BY_SIGNAL + constants.signals[signal!]))
  })
}
