// SPDX-License-Identifier: Apache-2.0
// What the conformance tests share: executables under test, fake plugins, network namespaces, and an oracle for leaks.
// Everything is seen from outside: exit code, stdout, stderr, files, kernel state. Needs root.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')

/** Why the tests cannot run here; undefined where they can. */
export const missing: string | undefined = process.getuid?.() === 0 ? undefined : 'needs root'

/** Where the reference programs are, undefined without lab/peers. */
export const peers: string | undefined = process.env['PEERS_DIR']

/** Everything that a test file makes lies here, and goes when it ends. */
export const scratch = mkdtempSync(join(tmpdir(), 'mooring-conformance-'))
const namespaces: string[] = []
after(() => {
  for (const name of namespaces) spawnSync('ip', ['netns', 'del', name])
  rmSync(scratch, { recursive: true, force: true })
})

let count = 0
/** A new empty directory. */
export function folder(name = 'folder'): string {
  const directory = join(scratch, `${name}-${count++}`)
  mkdirSync(directory)
  return directory
}

/** A new network namespace. */
export function netns(kind: string): { name: string; path: string } {
  const name = `cf-${process.pid}-${kind}-${count++}`
  run('ip', ['netns', 'add', name])
  namespaces.push(name)
  return { name, path: `/run/netns/${name}` }
}

let shared: string | undefined
/** The path of a namespace for calls that do not change it. */
export const pod = (): string => (shared ??= missing === undefined ? netns('pod').path : '')

/** Runs a tool to its end. @throws {Error} with its output where it fails */
export function run(program: string, args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' })
  if (status === 0) return stdout
  throw new Error(`${program} ${args.join(' ')}: ${error?.message ?? `status ${status}`}\n${stdout}${stderr}`)
}

export type Outcome = { rc: number | null; stdout: string; stderr: string; ms: number }

export type Execution = {
  env?: Record<string, string> | undefined
  stdin?: string | Uint8Array | undefined
  /** Runs inside of this network namespace instead of the test's. */
  inNetns?: string | undefined
  cwd?: string | undefined
  /** Variables that `plugin` does not add by itself. */
  bare?: readonly string[] | undefined
  /** Leaves stdin open after it was written. */
  holdStdin?: boolean | undefined
  timeoutMs?: number | undefined
}

/** Runs a program with nothing in its environment but what is given. */
export function execute(command: readonly string[], options: Execution = {}): Promise<Outcome> {
  const { env = {}, stdin = '', inNetns, cwd, holdStdin = false, timeoutMs = 30_000 } = options
  const [program = '', ...args] = inNetns === undefined ? command : ['nsenter', `--net=${inNetns}`, ...command]
  const started = performance.now()
  return new Promise((resolve, reject) => {
    // nsenter itself is found on this test's path.
    const path = inNetns === undefined ? {} : { PATH: process.env['PATH'] ?? '' }
    const child = spawn(program, args, { env: { ...path, ...env }, cwd, timeout: timeoutMs, killSignal: 'SIGKILL' })
    let [stdout, stderr] = ['', '']
    child.stdout.setEncoding('utf8').on('data', text => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', text => {
      stderr += text
    })
    child.stdin.on('error', () => undefined)
    child.stdin.write(stdin)
    if (!holdStdin) child.stdin.end()
    child.on('error', reject)
    child.on('close', rc => resolve({ rc, stdout, stderr, ms: performance.now() - started }))
  })
}

/** The error object of a call: exit code 1 and exactly one JSON object on stdout. */
export function errorOf(outcome: Outcome): { cniVersion?: string; code: number; msg: string; details?: string } {
  assert.equal(outcome.rc, 1, `exit code; stdout ${outcome.stdout}, stderr ${outcome.stderr}`)
  const error = JSON.parse(outcome.stdout)
  assert.equal(typeof error.code, 'number')
  assert.equal(typeof error.msg, 'string')
  return error
}

/** The result of a call that has to succeed. */
// biome-ignore lint/suspicious/noExplicitAny: the shape of a result is what the tests look at
export function resultOf(outcome: Outcome): any {
  assert.equal(outcome.rc, 0, `exit code; stdout ${outcome.stdout}, stderr ${outcome.stderr}`)
  return outcome.stdout === '' ? undefined : JSON.parse(outcome.stdout)
}

/** Asserts exit code 0 and nothing on stdout. */
export function assertSilent(outcome: Outcome): void {
  assert.deepEqual([outcome.rc, outcome.stdout], [0, ''], outcome.stderr)
}

/**
 * The plugin that makes interfaces in tests for which any will do: one with a veth pair and an IPAM plugin.
 * MOORING_CONFORMANCE_MAIN names another one, for example upstream's ptp.
 */
export const mainPlugin: string = process.env['MOORING_CONFORMANCE_MAIN'] ?? 'veth-route'

let installed: string | undefined
/**
 * The directory with the plugins under test, as `mooring install` makes it. MOORING_CONFORMANCE_PLUGINS names another one,
 * for example that of the reference plugins.
 */
export function pluginDirectory(): string {
  installed ??= process.env['MOORING_CONFORMANCE_PLUGINS'] ?? install()
  return installed
}

function install(): string {
  const directory = folder('cni-bin')
  const { MOORING_CONFIG: config = '', MOORING_DATA_DIR: dataDir = '' } = stateEnv()
  run(join(root, 'mooring'), [
    ...['install', '--cni-bin', directory, '--mode', 'standalone'],
    ...['--config', config, '--data-dir', dataDir, '--socket', join(dataDir, 'none.sock')],
  ])
  return directory
}

/** Runs a plugin under test, CNI_PATH leading to all of them. */
export const plugin = (type: string, env: Record<string, string>, config: object | string, options: Execution = {}) =>
  execute([join(pluginDirectory(), type)], {
    ...options,
    env: { ...(options.bare?.includes('CNI_PATH') ? {} : { CNI_PATH: pluginDirectory() }), ...stateEnv(), ...env },
    stdin: typeof config === 'string' ? config : JSON.stringify(config),
  })

let state: string | undefined
/**
 * Keeps settings and journal of the plugins under test apart from those of this machine. MOORING_CONFORMANCE_SOCKET names the
 * socket of an agent, running in the namespace of the tests, by which the plugins work then.
 */
export function stateEnv(): Record<string, string> {
  state ??= folder('state')
  const socket = process.env['MOORING_CONFORMANCE_SOCKET']
  return {
    MOORING_CONFIG: join(state, 'mode'),
    MOORING_DATA_DIR: state,
    ...(socket === undefined ? {} : { MOORING_MODE: 'agent', MOORING_SOCKET: socket }),
  }
}

/** Without the keys whose value is undefined: an environment from which a variable was taken. */
export const without = (env: Record<string, string>, ...names: string[]): Record<string, string> =>
  Object.fromEntries(Object.entries(env).filter(([name]) => !names.includes(name)))

export type FakeCall = { name: string; verb: string; stdin: string; env: Record<string, string> }

/** A directory of shell scripts that write down how they were called, for CNI_PATH. */
export class Fakes {
  readonly directory = folder('fakes')
  readonly #calls = folder('calls')

  /** Makes a plugin; `does` is shell per verb. Without one ADD prints an empty result, others nothing. */
  add(name: string, does: Record<string, string> = {}): this {
    const file = join(this.directory, name)
    const cases = Object.entries({ ADD: "echo '{}'", ...does }).map(([verb, shell]) => `${verb})\n${shell}\n;;`)
    const dump = `call=${this.#calls}/$(printf %04d $(ls ${this.#calls} | wc -l))-$CNI_COMMAND-${name}`
    writeFileSync(
      file,
      `#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n${dump}\nmkdir $call\ncat > $call/stdin\nenv -0 > $call/env\n` +
        `case $CNI_COMMAND in\n${cases.join('\n')}\nesac\n`,
    )
    chmodSync(file, 0o755)
    return this
  }

  /** The calls since the last time, oldest first. */
  take(): FakeCall[] {
    const names = readdirSync(this.#calls).sort()
    return names.map(each => {
      const [, verb = '', name = ''] = /^\d+-([^-]*)-(.*)$/.exec(each) ?? []
      const lines = readFileSync(join(this.#calls, each, 'env'), 'utf8')
        .split('\0')
        .filter(line => line !== '')
      const env = Object.fromEntries(lines.map(line => line.split(/=(.*)/s, 2) as [string, string]))
      const stdin = readFileSync(join(this.#calls, each, 'stdin'), 'utf8')
      rmSync(join(this.#calls, each), { recursive: true })
      return { name, verb, stdin, env }
    })
  }

  /** As `take`, in short: `name VERB`. */
  order(): string[] {
    return this.take().map(({ name, verb }) => `${name} ${verb}`)
  }
}

/** Shell that prints JSON. */
export const print = (value: unknown): string => `cat <<'END'\n${JSON.stringify(value)}\nEND`
/** Shell that fails with an error object. */
export const fail = (code: number, msg: string, details?: string): string =>
  `${print({ cniVersion: '1.0.0', code, msg, details })}\nexit 1`

/**
 * The cnitool under test: what `mooring cni` runs once everything is built. MOORING_CONFORMANCE_CNITOOL names another one, for
 * example upstream's.
 */
export const cnitoolCommand = (): readonly string[] => {
  const other = process.env['MOORING_CONFORMANCE_CNITOOL']
  return other === undefined ? [process.execPath, join(root, 'build/mooring.mjs'), 'cni'] : [other]
}

/** A directory of configurations, a cache of its own, and cnitool with both. */
export class Bench {
  readonly fakes = new Fakes()
  readonly confDirectory = folder('net.d')
  /** Stands for /var/lib, in a mount namespace of the tool's own. */
  readonly varLib = folder('var-lib')

  /** Writes a configuration file; an object is written as JSON, a text as it is. */
  conf(name: string, content: object | string): this {
    const file = join(this.confDirectory, name)
    mkdirSync(join(file, '..'), { recursive: true })
    writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content))
    return this
  }

  /** A list of plugins that consist of a type only, or of a whole object. */
  list(name: string, cniVersion: string, plugins: readonly (string | object)[], more: object = {}): this {
    const objects = plugins.map(each => (typeof each === 'string' ? { type: each } : each))
    return this.conf(`${name}.conflist`, { cniVersion, name, plugins: objects, ...more })
  }

  /** Runs cnitool, or another `tool`, with `prefix` before it. */
  cnitool(
    args: readonly string[],
    env: Record<string, string> = {},
    options: Execution & { tool?: readonly string[]; prefix?: readonly string[] } = {},
  ): Promise<Outcome> {
    const { tool = cnitoolCommand(), prefix = [], ...execution } = options
    const ownVarLib = ['unshare', '--mount', 'sh', '-c', `mount --bind ${this.varLib} /var/lib && exec "$@"`, 'sh']
    return execute([...ownVarLib, ...prefix, ...tool, ...args], {
      ...execution,
      env: {
        PATH: process.env['PATH'] ?? '',
        NETCONFPATH: this.confDirectory,
        CNI_PATH: this.fakes.directory,
        ...env,
      },
    })
  }

  /** The files of the result cache. */
  cached(): string[] {
    const results = join(this.varLib, 'cni', 'results')
    return existsSync(results) ? readdirSync(results).sort() : []
  }

  cacheFile(name: string): string {
    return join(this.varLib, 'cni', 'results', name)
  }
}

/**
 * A node and a container, each a namespace of its own, and veth-route between them with a fake IPAM plugin. `call` runs a verb,
 * with a configuration or environment other than the usual where wanted.
 */
export function routedPod(ipam: Record<string, string>, more: object = {}) {
  const [node, container] = [netns('node'), netns('pod')]
  const fakes = new Fakes().add('fake-ipam', ipam)
  // The journal is one for all of a file's tests.
  const containerId = `c${count++}`
  const environment = {
    CNI_CONTAINERID: containerId,
    CNI_IFNAME: 'eth0',
    CNI_NETNS: container.path,
    CNI_PATH: `${fakes.directory}:${pluginDirectory()}`,
  }
  const object = { cniVersion: '1.1.0', name: 'n', type: mainPlugin, ipam: { type: 'fake-ipam' }, ...more }
  const config = JSON.stringify(object)
  const call = (verb: string, options: { env?: Record<string, string>; config?: string | object } = {}) =>
    plugin(mainPlugin, { ...environment, CNI_COMMAND: verb, ...options.env }, options.config ?? config, {
      inNetns: node.path,
    })
  return { node, container, containerId, fakes, config, call }
}

/** What a plugin could leave: links, addresses, routes, rules, nft tables of a namespace, and files. */
export function leftovers(inNetns: readonly string[], directories: readonly string[] = []): string {
  const kernel = inNetns.flatMap(name => [
    run('ip', ['-n', name, '-o', 'link']).replace(/ state \w+/g, ''),
    run('ip', ['-n', name, '-o', 'addr']),
    run('ip', ['-n', name, 'route', 'show', 'table', 'all']),
    run('ip', ['-n', name, '-6', 'route', 'show', 'table', 'all']),
    run('ip', ['-n', name, 'rule']),
    run('ip', ['-n', name, 'neigh', 'show', 'proxy']),
  ])
  const files = directories.flatMap(directory =>
    existsSync(directory)
      ? (readdirSync(directory, { recursive: true }) as string[]).map(each => `${directory}/${each}`)
      : [],
  )
  return [...kernel, ...files.sort()].join('\n')
}
