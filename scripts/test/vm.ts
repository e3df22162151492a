// SPDX-License-Identifier: Apache-2.0
// Test files under a stock Debian kernel: some kernels have no dummy, ipvlan or vlan. The runner outside starts this very
// file inside of lab/vmlab; the events of the tests travel as lines on stdout.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { finished, Readable } from 'node:stream'
import { run } from 'node:test'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import { deserialize, serialize } from 'node:v8'

const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')

export interface VmRun {
  readonly files: readonly string[]
  /** Tests whose name has this text are left out. */
  readonly without: string
  /** Only tests whose name has this text; empty: all. */
  readonly only: string
  /** What the tests find in their environment besides. */
  readonly env: Readonly<Record<string, string>>
  readonly timeoutMs: number
}

/** The events of test files that run inside the VM. The stream fails where the VM ends before the tests do. */
export function runInVm({ files, without, only, env, timeoutMs }: VmRun): Readable {
  const seconds = String(Math.ceil(timeoutMs / 1000))
  const inside = [process.execPath, fileURLToPath(import.meta.url), without, only, ...files]
  const variables = Object.entries(env).flatMap(([name, value]) => ['--env', `${name}=${value}`])
  const vm = spawn(`${root}/lab/vmlab`, ['--timeout', seconds, '--nic', '--nic', ...variables, '--', ...inside], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise<number | null>((resolve, reject) => vm.on('error', reject).on('close', resolve))
  async function* events() {
    let complete = false
    for await (const line of createInterface({ input: vm.stdout })) {
      const event = deserialize(Buffer.from(line, 'base64'))
      complete ||= event.type === 'test:summary' && event.data.file === undefined
      yield event
    }
    const status = await ended
    if (!complete) throw new Error(`lab/vmlab ended with ${status} before the tests did`)
  }
  const stream = Readable.from(events())
  finished(stream, () => vm.kill())
  return stream
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
  const [without = '', only = '', ...names] = process.argv.slice(2)
  const files = names.map(name => `${root}/${name}`)
  const options = {
    ...(without === '' ? {} : { testSkipPatterns: [without] }),
    ...(only === '' ? {} : { testNamePatterns: [only] }),
  }
  for await (const event of run({ files, cwd: root, concurrency: 1, ...options })) {
    process.stdout.write(`${serialize(portable(event)).toString('base64')}\n`)
  }
}
