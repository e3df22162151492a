// SPDX-License-Identifier: Apache-2.0

import { readSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type Arrivals,
  DATA_DIR,
  type Journal,
  joinArrivals,
  type LaneKey,
  type Limits,
  openJournal,
  tryEnterLane,
} from '#allocator'
import { type Deadline, deadlineIn, isPast, remainingMs } from '#base'
import { CniError, codes, dispatch, printError, type Reply, readAttachment } from '#cni'
import { type Host, HostContext, inlineHost, readBootId } from '#host'
import { waitReadable } from '#libc'
import { type CloudSessions, findOwnPlugin, openSessions, toCniError, worldOf } from '#plugins'

/** As in the agent: the runtime waits two minutes or more. */
const CALL_MS = 100_000
const STDIN_MS = 10_000
const STDIN_BYTES_MAX = 1 << 20
const LANE_RETRY_MS = 5

/** Runs one call of the plugin and answers on stdout. @returns the exit code */
export async function runPlugin(type: string, environment: NodeJS.ProcessEnv, starting?: string): Promise<number> {
  const deadline = deadlineIn(CALL_MS)
  const stop = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, () => stop.abort())
  await using world = new LazyWorld(environment['MOORING_DATA_DIR'] ?? DATA_DIR, starting)
  const reply = await answer(type, environment, world, deadline, stop.signal)
  if (reply.stderr !== '') process.stderr.write(reply.stderr)
  return writeAll(reply.stdout) ? reply.exitCode : 1
}

async function answer(
  type: string,
  environment: NodeJS.ProcessEnv,
  parts: LazyWorld,
  deadline: Deadline,
  signal: AbortSignal,
): Promise<Reply> {
  const fail = (error: unknown): Reply => ({ exitCode: 1, stdout: printError(toCniError(error), '1.1.0'), stderr: '' })
  try {
    const plugin = findOwnPlugin(type)
    if (plugin === undefined) throw new CniError(codes.invalidConfig, `Cannot run "${type}": no plugin of this release`)
    const env = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== undefined)) as Record<
      string,
      string
    >
    const needsStdin = !['', 'VERSION'].includes(env['CNI_COMMAND'] ?? '')
    const stdin = needsStdin ? readStdin() : new Uint8Array(0)
    const key = { type: plugin.type, ...readAttachment(env) }
    using _lane = needsStdin ? await enterLane(parts, key, { deadline, signal }) : undefined
    return await dispatch(plugin, { env, stdin }, worldOf(parts), { deadline, signal, toCniError })
  } catch (error) {
    return fail(error)
  }
}

/**
 * Opened when first used: most errors, STATUS and VERSION need neither kernel nor journal. Sockets and journal end with the
 * process, as after a kill: to close the journal would be to move its log into its file and wait for the disk.
 */
class LazyWorld {
  readonly dataDir: string
  readonly bootId = readBootId()
  readonly longLived = false
  readonly arrivals: Arrivals
  readonly warn = (message: string): void => void process.stderr.write(`${message}\n`)
  #context: HostContext | undefined
  #host: Host | undefined
  #journal: Journal | undefined
  #clouds: CloudSessions | undefined

  constructor(dataDir: string, starting: string | undefined) {
    this.dataDir = dataDir
    this.arrivals = joinArrivals(dataDir, /^\d+$/.test(starting ?? '') ? Number(starting) : undefined)
  }

  get host(): Host {
    this.#context ??= new HostContext()
    this.#host ??= inlineHost(this.#context)
    return this.#host
  }

  get journal(): Journal {
    this.#journal ??= openJournal(this.dataDir)
    return this.#journal
  }

  get clouds(): CloudSessions {
    this.#clouds ??= openSessions({ dataDir: this.dataDir, warn: this.warn })
    return this.#clouds
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#context?.abandon()
    await this.#clouds?.[Symbol.asyncDispose]()
  }
}

/** Waits until no other process works on the same attachment. @throws {CniError} 11 */
async function enterLane(
  { dataDir, arrivals }: LazyWorld,
  key: LaneKey,
  { deadline, signal }: Limits,
): Promise<Disposable> {
  for (;;) {
    const lane = tryEnterLane(dataDir, key)
    if (lane !== undefined) return lane
    // Whoever is in the lane may be waiting for the wishes of all who have begun.
    arrivals.arrived()
    if (isPast(deadline) || signal?.aborted)
      throw new CniError(codes.tryAgainLater, 'Cannot start: another call for this container is running')
    await sleep(LANE_RETRY_MS)
  }
}

/** Everything on stdin. Read directly: a stream costs 10 ms to load. @throws {CniError} 5 when it stays open, 6 when it is too large */
function readStdin(): Uint8Array {
  const end = deadlineIn(STDIN_MS)
  const stdin = new Uint8Array(STDIN_BYTES_MAX + 1)
  for (let length = 0; ; ) {
    // A regular file is always readable.
    if (!waitReadable(0, remainingMs(end)))
      throw new CniError(codes.io, 'Cannot read the network configuration: stdin stays open')
    const received = readSync(0, stdin, length, stdin.length - length, null)
    if (received === 0) return stdin.subarray(0, length)
    length += received
    if (length > STDIN_BYTES_MAX)
      throw new CniError(codes.decode, 'Cannot read the network configuration: it has more than 1 MiB')
  }
}

/** Writes to stdout, waiting where it is a full pipe. @returns false where nobody can read it */
function writeAll(data: Uint8Array): boolean {
  try {
    for (let offset = 0; offset < data.length; ) {
      try {
        offset += writeSync(1, data, offset)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
      }
    }
    return true
  } catch {
    return false
  }
}
