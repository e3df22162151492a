// SPDX-License-Identifier: Apache-2.0

import { spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Started } from './state.ts'

const root = resolve(import.meta.dirname, '../..')
/** The command that a user types. */
export const LAUNCHER = resolve(root, 'mooring')

const STOP_MS = 15_000
const KILL_MS = 5_000
const POLL_MS = 20

/** The start time of a living process, as the kernel writes it; undefined: there is none, or it has ended. */
function startTimeOf(pid: number): string | undefined {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return undefined
  }
  // proc(5): the name stands in parentheses and may contain anything; after it come fields 3, 4, …, of which 22 is it.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return fields[0] === 'Z' ? undefined : fields[19]
}

/** True while it lives. */
export const isAlive = ({ pid, startTime }: Started): boolean => startTimeOf(pid) === startTime

/**
 * Starts a command of Mooring that goes on: in a session of its own, so that Ctrl-C ends it only when the demo says so.
 * @param log file for all that it prints
 */
export function startCommand(what: string, args: readonly string[], log: string, env = process.env): Started {
  const fd = openSync(log, 'a', 0o600)
  try {
    const child = spawn(LAUNCHER, args, { detached: true, stdio: ['ignore', fd, fd], env })
    child.on('error', () => undefined)
    child.unref()
    const startTime = child.pid === undefined ? undefined : startTimeOf(child.pid)
    if (child.pid === undefined || startTime === undefined)
      throw new Error(`Cannot start ${what}; its output is in ${log}`)
    return { what, pid: child.pid, startTime }
  } finally {
    closeSync(fd)
  }
}

/** Runs a command of Mooring to its end. @throws {Error} with what it printed */
export async function runCommand(what: string, args: readonly string[]): Promise<void> {
  const child = spawn(LAUNCHER, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (part: string) => {
      text += part
    })
  const exitCode = await new Promise<number | null>((done, fail) => child.once('error', fail).once('close', done))
  if (exitCode !== 0) throw new Error(`Cannot ${what}: ${text.trim()}`)
}

/** Waits until `isReady`. @throws {Error} with the end of its log, where the process ends or is too slow */
export async function waitReady(
  process: Started,
  isReady: () => boolean | Promise<boolean>,
  { log, timeoutMs, signal }: { log: string; timeoutMs: number; signal: AbortSignal },
): Promise<void> {
  for (const end = performance.now() + timeoutMs; !(await isReady()); await sleep(POLL_MS)) {
    signal.throwIfAborted()
    if (isAlive(process) && performance.now() < end) continue
    const state = isAlive(process) ? `is not ready after ${timeoutMs / 1000} s` : 'has ended'
    throw new Error(`Cannot go on: ${process.what} ${state}:\n${readFileSync(log, 'utf8').slice(-2000)}`)
  }
}

/** Ends processes, all at once: asks them first. */
export async function stopAll(processes: readonly Started[]): Promise<void> {
  const wait = async (ms: number) => {
    for (const end = performance.now() + ms; processes.some(isAlive) && performance.now() < end; ) await sleep(POLL_MS)
  }
  signalAll(processes, 'SIGTERM')
  await wait(STOP_MS)
  signalAll(processes, 'SIGKILL')
  await wait(KILL_MS)
}

function signalAll(processes: readonly Started[], signal: NodeJS.Signals): void {
  for (const each of processes.filter(isAlive))
    try {
      process.kill(each.pid, signal)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
}
