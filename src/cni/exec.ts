// SPDX-License-Identifier: Apache-2.0

import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Deadline, remainingMs } from '#base'
import { codes } from './codes.ts'
import { anything, decode, integer, object, optional, string } from './decode.ts'
import { CniError } from './error.ts'
import { jsonBytesMax, parseJson } from './json.ts'
import { systemErrorOf } from './system-error.ts'

export type ExecOptions = {
  readonly deadline: Deadline
  readonly signal: AbortSignal
  /** Gets what the plugin writes to stderr, also where it succeeds. */
  readonly onStderr?: ((text: string) => void) | undefined
}

/**
 * The file of a plugin: the first regular one of this name in the directories. As in the reference library, its mode is not looked at.
 *
 * @throws {CniError} 7 for a name that is a path, 105 if there is none.
 */
export async function findPlugin(type: string, path: readonly string[]): Promise<string> {
  if (type === '') throw new CniError(codes.invalidConfig, 'no plugin name provided')
  if (type.includes('/')) throw new CniError(codes.invalidConfig, `invalid plugin name: ${type}`)
  if (path.length === 0) throw new CniError(codes.delegate, 'no paths provided', { details: 'set CNI_PATH' })
  for (const directory of path) {
    const file = join(directory, type)
    // Whatever cannot be looked at is not there.
    if (isFile(file)) return file
  }
  throw new CniError(codes.delegate, `failed to find plugin "${type}" in path [${path.join(' ')}]`)
}

// Synchronous: a look at an inode takes microseconds, the way to the thread pool and back a hundred times that.
function isFile(file: string): boolean {
  try {
    return statSync(file, { throwIfNoEntry: false })?.isFile() ?? false
  } catch {
    return false
  }
}

/**
 * Runs a plugin in a process group of its own and answers its stdout.
 *
 * @throws {CniError} the plugin's own error, 105 if it failed without one, 11 if it was stopped by deadline or signal.
 */
export async function execPlugin(
  file: string,
  env: Readonly<Record<string, string>>,
  stdin: Uint8Array,
  options: ExecOptions,
): Promise<Uint8Array> {
  const end = await runRetrying(file, env, stdin, options)
  if (end.stderr !== '') options.onStderr?.(end.stderr)
  if (end.stopped !== undefined)
    throw new CniError(codes.tryAgainLater, `plugin ${file} was killed: ${end.stopped}`, {
      details: end.stderr === '' ? undefined : end.stderr,
    })
  if (end.exit !== undefined) throw pluginError(end.stdout, end.stderr, end.exit)
  return end.stdout
}

type End = {
  readonly stdout: Uint8Array
  readonly stderr: string
  /** How it failed, in Go's words; undefined after exit status 0. */
  readonly exit: string | undefined
  /** Why we killed it. */
  readonly stopped: string | undefined
}

// Longer ones fire at once (Node keeps a timer's time in 31 bits).
const timerMsMax = 2 ** 31 - 1

// A plugin that is being replaced cannot be executed (ETXTBSY) until its writer has closed it.
async function runRetrying(...call: Parameters<typeof run>): Promise<End> {
  const [file, , , { deadline, signal }] = call
  for (let attempt = 0; ; attempt++) {
    try {
      return await run(...call)
    } catch (error) {
      const system = systemErrorOf(error)
      if (system === undefined) throw error
      const busy = system.code === 'ETXTBSY'
      if (!busy || attempt === 5 || remainingMs(deadline) <= 1000)
        throw new CniError(
          passing.has(system.code) ? codes.tryAgainLater : codes.delegate,
          `Cannot start plugin ${file}: ${system.text}`,
          {
            cause: error,
          },
        )
      await sleep(1000, undefined, { signal })
    }
  }
}

const passing = new Set(['EAGAIN', 'EMFILE', 'ENFILE', 'ENOMEM', 'ETXTBSY'])

async function run(
  file: string,
  env: Readonly<Record<string, string>>,
  stdin: Uint8Array,
  { deadline, signal }: ExecOptions,
): Promise<End> {
  // Loaded here, because most processes of ours never start another.
  const { spawn } = await import('node:child_process')
  signal.throwIfAborted()
  const child = spawn(file, [], { env, detached: true, stdio: 'pipe' })
  const ended = new Promise<string | undefined>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signalName) => resolve(describeExit(code, signalName)))
  })
  // Where there are no descriptors for pipes, Node makes no streams, against its types; the error follows.
  if (child.stdin === undefined) throw await ended.catch(error => error)
  const stdout = collect(child.stdout, jsonBytesMax)
  const stderr = collect(child.stderr, 64 * 1024)
  // A plugin may end without reading its configuration.
  child.stdin.on('error', () => undefined)
  child.stdin.end(stdin)
  let stopped: string | undefined
  const stop = (reason: string) => {
    stopped ??= reason
    killGroup(child)
  }
  stdout.onOverflow = () => stop(`it wrote more than ${jsonBytesMax} bytes`)
  const timer = setTimeout(() => stop('it did not answer in time'), Math.min(remainingMs(deadline), timerMsMax))
  const onAbort = () => stop('the caller went away')
  signal.addEventListener('abort', onAbort)
  try {
    const exit = await ended
    return { stdout: stdout.bytes(), stderr: new TextDecoder().decode(stderr.bytes()), exit, stopped }
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', onAbort)
  }
}

// The group has the plugin's children too; gone is gone.
function killGroup(child: ChildProcessWithoutNullStreams): void {
  if (child.pid === undefined) return
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch (error) {
    if (systemErrorOf(error)?.code !== 'ESRCH') throw error
  }
}

function describeExit(code: number | null, signalName: NodeJS.Signals | null): string | undefined {
  if (code === 0) return undefined
  return code === null ? `signal: ${signalName}` : `exit status ${code}`
}

type Collector = { bytes(): Uint8Array; onOverflow: () => void }

/** Keeps the first `bytesMax` bytes of a stream, and reads on so that the writer is not stopped. */
function collect(stream: NodeJS.ReadableStream, bytesMax: number): Collector {
  const chunks: Uint8Array[] = []
  let length = 0
  const collector: Collector = { bytes: () => concat(chunks, length), onOverflow: () => undefined }
  stream.on('data', (chunk: Uint8Array) => {
    if (length + chunk.length > bytesMax) collector.onOverflow()
    const kept = chunk.subarray(0, bytesMax - length)
    chunks.push(kept)
    length += kept.length
  })
  return collector
}

function concat(chunks: readonly Uint8Array[], length: number): Uint8Array {
  const all = new Uint8Array(length)
  let offset = 0
  for (const chunk of chunks) {
    all.set(chunk, offset)
    offset += chunk.length
  }
  return all
}

const errorObject = object({
  code: optional(integer(0, 0xffff_ffff), codes.delegate),
  msg: optional(string, ''),
  details: optional(anything),
})

// The texts are the reference library's: people look for them in logs.
function pluginError(stdout: Uint8Array, stderr: string, exit: string): CniError {
  if (stdout.length === 0)
    return new CniError(
      codes.delegate,
      stderr === ''
        ? `netplugin failed with no error message: ${exit}`
        : `netplugin failed: ${JSON.stringify(stderr)}: ${exit}`,
    )
  try {
    const { code, msg, details } = decode(errorObject, parseJson(stdout, 'error of the plugin'), 'error of the plugin')
    return new CniError(code, msg, { details: typeof details === 'string' ? details : undefined })
  } catch (error) {
    if (!(error instanceof CniError)) throw error
    const text = JSON.stringify(new TextDecoder().decode(stdout))
    return new CniError(
      codes.delegate,
      `netplugin failed but error parsing its diagnostic message ${text}: ${error.message}`,
    )
  }
}
