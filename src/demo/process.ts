// SPDX-License-Identifier: Apache-2.0

import { spawn } from 'node:child_process'
import type { Finished, Orders } from './wire.ts'

/** Runs a process from the calling thread, whose namespace it gets. */
export function run({ file, env, stdin, timeoutMs }: Orders['run']['order']): Promise<Finished> {
  const child = spawn(file, [], { env, stdio: 'pipe' })
  // spawn() returns when the new program has begun.
  const begin = performance.now()
  const output = { stdout: '', stderr: '' }
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      output[stream] += text
    })
  child.stdin.on('error', () => undefined)
  child.stdin.end(stdin)
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
  return new Promise((resolve, reject) => {
    let ms = 0
    child.once('error', reject)
    child.once('exit', () => {
      ms = performance.now() - begin
    })
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      if (signal !== null) output.stderr += `\nended by ${signal}`
      resolve({ exitCode: code ?? 1, ...output, ms })
    })
  })
}
