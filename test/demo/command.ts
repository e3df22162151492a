// SPDX-License-Identifier: Apache-2.0
// The command `mooring demo` as a user types it, and what its result must be on any cloud.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const launcher = `${root}mooring`

type Ended = { code: number | null; stdout: string; stderr: string }
type Demo = { child: ChildProcess; said: (text: string) => Promise<void>; ended: Promise<Ended> }

/** Runs `mooring demo` under a name of its own. */
export function start(name: string, ...args: string[]): Demo {
  const child = spawn(launcher, ['demo', '--name', name, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const output = { stdout: '', stderr: '' }
  const waiting: (() => void)[] = []
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream]!.setEncoding('utf8').on('data', (text: string) => {
      output[stream] += text
      for (const look of waiting) look()
    })
  const ended = new Promise<Ended>(resolve => child.once('close', code => resolve({ code, ...output })))
  const said = (text: string) =>
    new Promise<void>((resolve, reject) => {
      const look = () => output.stderr.includes(text) && resolve()
      waiting.push(look)
      look()
      void ended.then(() => reject(new Error(`it ended before it said "${text}":\n${output.stderr}${output.stdout}`)))
    })
  return { child, said, ended }
}

/** What a demo of this name has on the machine. */
export function traces(name: string): string[] {
  const namespaces = existsSync('/run/netns') ? readdirSync('/run/netns').filter(each => each.startsWith(name)) : []
  const processes = readdirSync('/proc')
    .filter(each => /^\d+$/.test(each))
    .filter(pid => commandLine(pid).some(word => word.includes(`/run/${name}/`)))
  return [...namespaces, ...processes, ...(existsSync(`/run/${name}`) ? [`/run/${name}`] : [])]
}

function commandLine(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  } catch {
    return [] // it has ended
  }
}

type Result = {
  ok: boolean
  pods: { name: string; machine: string; address: string; netns: string; addMs: number; fromReserve: boolean }[]
  paths: { what: string; from: string; to: string; passes: boolean; fault?: string; way: string[] }[]
  leftovers: string[]
  failure?: string
}

/** The result of a run in which everything was as promised. */
export function assertAsPromised({ code, stdout, stderr }: Ended): Result {
  const result = JSON.parse(stdout) as Result
  assert.deepEqual(result.leftovers, [], stderr)
  assert.equal(result.failure, undefined)
  for (const path of result.paths)
    assert.ok(path.passes, `${path.what}: ${path.from} > ${path.to}: ${path.fault}, by ${path.way.join(' > ')}`)
  assert.equal(result.ok, true)
  assert.equal(code, 0)
  assert.equal(result.pods.length, 4)
  assert.equal(new Set(result.pods.map(({ address }) => address)).size, 4, 'every pod has an address of its own')
  return result
}

/** The way of every packet, servers called VM1 and VM2. */
export const waysOf = ({ paths }: Result) =>
  paths.map(({ way }) => way.join(' > ').replaceAll(/worker-\d/g, name => (name === 'worker-1' ? 'VM1' : 'VM2')))

export const EVERY_WAY = [
  'pod-1 > VM1 > pod-2',
  'pod-1 > VM1 > VM2 > pod-3',
  'pod-3 > VM2 > VM1 > pod-1',
  'pod-1 > VM1',
  'pod-1 > VM1 > VM2',
  'VM1 > pod-1',
  'VM2 > VM1 > pod-1',
  'pod-1 > VM1 > edge > outside',
  'pod-3 > VM2 > edge > outside',
  'outside > edge > VM1 > pod-1',
]
