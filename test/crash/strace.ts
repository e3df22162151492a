// SPDX-License-Identifier: Apache-2.0

// What crash and fault tests share: strace, which kills a process at its Nth call of a kind, or lets that call fail.

import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { folder } from '../nodelab.ts'

/** Why these tests cannot run here; false where they can. */
export const withoutStrace: string | false = spawnSync('strace', ['-V']).status === 0 ? false : 'needs strace'

export type Trace = {
  /** What to run the traced program by. */
  readonly prefix: readonly string[]
  /** The traced calls so far, in short: `sendto RTM_NEWLINK`. */
  calls(): string[]
}

/** Traces calls of these kinds, of all threads and children. `inject` as in strace(1), for example `signal=SIGKILL:when=3`. */
export function trace(syscalls: string, inject?: string): Trace {
  const file = join(folder('trace'), 'calls')
  const options = ['-f', '-qq', '-s', '200', '-o', file, '-e', `trace=${syscalls}`]
  // Faster, but strace 6.1 sends no signals then.
  if (!inject?.includes('signal')) options.push('--seccomp-bpf')
  if (inject !== undefined) options.push('-e', `inject=${syscalls}:${inject}`)
  return { prefix: ['/usr/bin/strace', ...options], calls: () => callsIn(file) }
}

/** After so long strace lets go by force: 6.1 waits for ever where it is told to let go of a process that dies in that moment. */
const LET_GO_MS = 1_000

/** The same for a process that runs already; resolves when strace has all its threads. */
export async function attach(
  pid: number,
  syscalls: string,
  inject?: string,
): Promise<Trace & { received(): number; stop(): void; ended: Promise<void> }> {
  const file = join(folder('trace'), 'calls')
  const options = ['-f', '-s', '200', '-o', file, '-e', `trace=${syscalls}`]
  if (inject !== undefined) options.push('-e', `inject=${syscalls}:${inject}`)
  const child = spawn('strace', [...options, '-p', String(pid)], { stdio: ['ignore', 'ignore', 'pipe'] })
  const ended = new Promise<void>(resolve => child.on('exit', () => resolve()))
  await Promise.race([
    new Promise<void>(resolve => child.stderr.on('data', text => String(text).includes('attached') && resolve())),
    ended.then(() => {
      throw new Error(`strace could not attach to process ${pid}`)
    }),
  ])
  const stop = () => {
    child.kill('SIGTERM')
    const force = setTimeout(() => child.kill('SIGKILL'), LET_GO_MS)
    void ended.then(() => clearTimeout(force))
  }
  return { prefix: [], calls: () => callsIn(file), received: () => receivedIn(file), stop, ended }
}

/** The bytes that calls of recvfrom brought so far: of Node.js's own sockets none does. */
const receivedIn = (file: string): number =>
  [...readFileSync(file, 'utf8').matchAll(/\brecvfrom(?:\(| resumed>).* = (\d+)$/gm)]
    .map(([, bytes]) => Number(bytes))
    .reduce((sum, bytes) => sum + bytes, 0)

function callsIn(file: string): string[] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .flatMap(line => {
      const [, name] = /^\d+ +([a-z0-9_]+)\(/.exec(line) ?? []
      if (name === undefined) return []
      const what = /nlmsg_type=(NFNL_SUBSYS_NFTABLES<<8\|)?(NFNL_MSG_BATCH_BEGIN|[A-Z]+_?[A-Z_]+|0x[0-9a-f]+)/.exec(
        line,
      )?.[2]
      return [what === undefined ? name : `${name} ${what}`]
    })
}

/** `sendto RTM_GETLINK 4, pwrite64 12`: how often each. */
export function tally(calls: readonly string[]): string {
  const counts = new Map<string, number>()
  for (const call of calls) counts.set(call, (counts.get(call) ?? 0) + 1)
  return [...counts].map(([call, count]) => `${call} ${count}`).join(', ')
}
