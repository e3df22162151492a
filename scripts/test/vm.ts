// SPDX-License-Identifier: Apache-2.0
// Test files under a stock Debian kernel: some kernels have no dummy, ipvlan or vlan. The runner outside starts this very
// file inside of lab/vmlab; the events of the tests travel as lines on stdout.
import { spawn } from 'node:child_process'
import type { Abortable } from 'node:events'
import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import { run } from 'node:test'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import { deserialize, serialize } from 'node:v8'

const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')

export interface VmRun {
  /** One VM for each; they start in this order. */
  readonly files: readonly string[]
  /** So many VMs at once. */
  readonly concurrency: number
  /** Tests whose name has this text are left out. */
  readonly without: string
  /** What the tests find in their environment besides. */
  readonly env: Readonly<Record<string, string>>
  /** Limit for one file. */
  readonly timeoutMs: number
}

/** The events of test files, in the order of the files. The stream fails where a VM ends before its tests do. */
export function runInVms({ files, concurrency, ...options }: VmRun): Readable {
  // What a file tells stays together.
  const eventsOf = (file: string, { signal }: Abortable = {}) => Array.fromAsync(runInVm(file, options, signal))
  return Readable.from(files)
    .map(eventsOf, { concurrency })
    .flatMap((events: unknown[]) => events)
}

type Options = Omit<VmRun, 'files' | 'concurrency'>

async function* runInVm(file: string, { without, env, timeoutMs }: Options, signal?: AbortSignal) {
  const seconds = String(Math.ceil(timeoutMs / 1000))
  const inside = [process.execPath, fileURLToPath(import.meta.url), without, file]
  const variables = Object.entries(env).flatMap(([name, value]) => ['--env', `${name}=${value}`])
  const vm = spawn(`${root}/lab/vmlab`, ['--timeout', seconds, '--nic', '--nic', ...variables, '--', ...inside], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
    ...(signal && { signal }),
  })
  const ended = new Promise<number | null>((resolve, reject) => vm.on('error', reject).on('close', resolve))
  let complete = false
  for await (const line of createInterface({ input: vm.stdout })) {
    const event = deserialize(Buffer.from(line, 'base64'))
    complete ||= event.type === 'test:summary' && event.data.file === undefined
    yield event
  }
  const status = await ended
  if (!complete) throw new Error(`lab/vmlab ended with ${status} before the tests of ${file} did`)
}

/** The runner's errors keep their text outside of what can be serialized, so the text goes along as a plain error. */
function portable(event: { type: string; data: unknown }): unknown {
  if (event.type !== 'test:fail') return event
  const data = event.data as { details: { error: Error } }
  const text = inspect(data.details.error.cause ?? data.details.error)
  const error = Object.assign(new Error(text), { stack: text })
  return { type: event.type, data: { ...data, details: { ...data.details, error } } }
}

if (import.meta.main) {
  const [without = '', file] = process.argv.slice(2)
  for await (const event of run({ files: [`${root}/${file}`], cwd: root, testSkipPatterns: [without] })) {
    process.stdout.write(`${serialize(portable(event)).toString('base64')}\n`)
  }
}
