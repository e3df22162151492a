// SPDX-License-Identifier: Apache-2.0

// Nodes and pods in network namespaces, for the tests of the kernel path: a segment with a gateway, nodes on it, an
// outside host behind the gateway, the installed executables, an agent where a test wants one, and an oracle that tells
// what is left. Everything is made here and goes with the test; the machine's own network is not touched. Needs root.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Station, startStation } from './host/station.ts'

export const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '')
/** Why the tests cannot run here; false where they can. */
export const skip: string | false = process.getuid?.() === 0 ? false : 'needs root'
/** The reference's executables; undefined without lab/peers. */
export const peers: string | undefined = process.env['PEERS_DIR']

export const scratch = mkdtempSync(join(tmpdir(), 'mooring-nodelab-'))
const open = new AsyncDisposableStack()
open.defer(() => rmSync(scratch, { recursive: true, force: true }))
after(() => open.disposeAsync())

/** Runs a tool to its end. @throws {Error} with its output where it fails */
export function run(program: string, args: readonly string[], input = ''): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', input })
  if (status === 0) return stdout
  throw new Error(`${program} ${args.join(' ')}: ${error?.message ?? `status ${status}`}\n${stdout}${stderr}`)
}

let count = 0
/** A new empty directory. */
export function folder(name: string): string {
  const directory = join(scratch, `${name}-${count++}`)
  mkdirSync(directory)
  return directory
}

export type Netns = {
  readonly name: string
  readonly path: string
  /** Runs `ip` there; a text is split at its spaces. */
  ip(args: string): string
  /** Runs a tool there. */
  run(program: string, ...args: string[]): string
  /** A host there that speaks UDP, see host/station.ts; it ends with the test file. */
  station(): Station
  /** Removes the namespace now. */
  remove(): void
}

/** A new namespace with `lo` up. */
export function makeNetns(kind: string): Netns {
  const name = `nl${process.pid}-${kind}${count++}`
  run('ip', ['netns', 'add', name])
  run('ip', ['-n', name, 'link', 'set', 'lo', 'up'])
  const netns = netnsOf(name)
  open.defer(netns.remove)
  return netns
}

/** A namespace that is there already. */
export function netnsOf(name: string): Netns {
  const path = `/run/netns/${name}`
  return {
    name,
    path,
    ip: args => run('ip', ['-n', name, ...args.split(' ')]),
    run: (program, ...args) => run('nsenter', [`--net=${path}`, program, ...args]),
    station() {
      const fd = openSync(path, 'r')
      open.defer(() => closeSync(fd))
      return open.use(startStation(fd))
    },
    remove: () => void spawnSync('ip', ['netns', 'del', name]),
  }
}

/** Paths of many new namespaces, made at once. */
export function makeManyNetns(kind: string, wanted: number): string[] {
  const names = Array.from({ length: wanted }, () => `nl${process.pid}-${kind}${count++}`)
  const batch = (verb: string) => names.map(name => `netns ${verb} ${name}\n`).join('')
  run('ip', ['-batch', '-'], batch('add'))
  open.defer(() => void spawnSync('ip', ['-force', '-batch', '-'], { input: batch('del') }))
  return names.map(name => `/run/netns/${name}`)
}

/** Runs `ip` commands, one a line, in one process. */
function configure(netns: Netns, commands: string): void {
  run('ip', ['-n', netns.name, '-batch', '-'], commands)
}

/** Of links that are not up yet: `default` is every link that comes. */
function detectNoDuplicates(netns: Netns, link: string): void {
  netns.run('sysctl', '-qw', `net.ipv6.conf.${link}.accept_dad=0`)
}

export type Outcome = { code: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string; ms: number }
export type Running = { readonly child: ChildProcess; readonly outcome: Promise<Outcome> }

export type Execution = {
  env?: Record<string, string> | undefined
  stdin?: string | Uint8Array | undefined
  /** Leaves stdin open after it was written. */
  holdStdin?: boolean | undefined
  timeoutMs?: number | undefined
}

/** Starts a program with nothing in its environment but what is given. */
export function start(command: readonly string[], options: Execution = {}): Running {
  const { env = {}, stdin = '', holdStdin = false, timeoutMs = 60_000 } = options
  const started = performance.now()
  const child = spawn(command[0]!, command.slice(1), { env, timeout: timeoutMs, killSignal: 'SIGKILL' })
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
  const outcome = new Promise<Outcome>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr, ms: performance.now() - started }))
  })
  return { child, outcome }
}

/** The error object of a call: exit code 1 and exactly one JSON object on stdout. */
export function errorOf(outcome: Outcome): { cniVersion: string; code: number; msg: string; details?: string } {
  assert.equal(outcome.code, 1, `exit code; stdout ${outcome.stdout}, stderr ${outcome.stderr}`)
  const error = JSON.parse(outcome.stdout)
  assert.equal(typeof error.code, 'number')
  assert.equal(typeof error.msg, 'string')
  return error
}

/** The result of a call that has to succeed. */
// biome-ignore lint/suspicious/noExplicitAny: the shape of a result is what the tests look at
export function resultOf(outcome: Outcome): any {
  assert.equal(outcome.code, 0, `exit code; stdout ${outcome.stdout}, stderr ${outcome.stderr}`)
  return outcome.stdout === '' ? undefined : JSON.parse(outcome.stdout)
}

export type Verb = 'ADD' | 'DEL' | 'CHECK' | 'STATUS' | 'GC' | 'VERSION'
export type Attachment = {
  readonly containerId: string
  /** Value of CNI_NETNS. */
  readonly netns: string
  readonly ifName?: string
  readonly config?: object | string
  /** Name of the executable. */
  readonly type?: string
}
export type CallOptions = Execution & {
  /** What the executable is run by, for example strace. */
  prefix?: readonly string[] | undefined
  /** Keys of the configuration, added or replaced. */
  more?: object | undefined
}

export type AgentOptions = {
  env?: Record<string, string>
  /** Seconds between two rounds of reconciliation. */
  reconcile?: number
  prefix?: readonly string[]
  args?: readonly string[]
  /** As an operator starts it. Tests that count what the agent does, or that start many, do without. @default false */
  warmUp?: boolean
}
export type RunningAgent = AsyncDisposable & {
  readonly pid: number
  /** What it logged, line by line. */
  readonly log: readonly string[]
  /** Resolves when the agent has ended. */
  readonly ended: Promise<Outcome>
  kill(signal: NodeJS.Signals): Promise<Outcome>
}

export type Node = Netns & {
  readonly mode: 'standalone' | 'agent'
  readonly dataDir: string
  readonly socket: string
  /** Directory of the host-local reservations of `config`. */
  readonly leases: string
  /** Environment that leads an executable to this node. */
  readonly env: Record<string, string>
  /** A configuration of veth-route with host-local, addresses from the segment. */
  config(more?: object): Record<string, unknown>
  start(verb: Verb, attachment: Attachment, options?: CallOptions): Running
  call(verb: Verb, attachment: Attachment, options?: CallOptions): Promise<Outcome>
  /** Starts an agent and waits until it is ready. */
  startAgent(options?: AgentOptions): Promise<RunningAgent>
  /** Everything that calls could leave on the node and in the given namespaces, one line each. */
  state(...pods: Netns[]): string[]
}

let installed: string | undefined
/** The directory with the executables, as `mooring install` makes it. */
export function cniBin(): string {
  if (installed !== undefined) return installed
  const directory = folder('cni-bin')
  run(join(root, 'mooring'), ['install', '--cni-bin', directory, '--config', join(scratch, 'mode')])
  installed = directory
  return directory
}

export type NodeLab = { readonly router: Netns; readonly outside: Netns; readonly nodes: readonly Node[] }

/**
 * A segment 10.10.10.0/24 and fd00:10::/64 with a gateway at .1, nodes from .8 on, and a host outside at 192.0.2.2.
 * Nothing has to wait for duplicate detection: not for link-local addresses either, without which a node asks for no neighbour
 * of a pod's. Links that plugins make later on a node have the kernel's own setting.
 */
export function makeLab(options: { nodes?: number; mode?: Node['mode'] } = {}): NodeLab {
  const { nodes: wanted = 1, mode = 'standalone' } = options
  const [router, outside] = [makeNetns('router'), makeNetns('outside')]
  for (const netns of [router, outside]) detectNoDuplicates(netns, 'default')
  configure(
    router,
    `link add br0 type bridge
     addr add 10.10.10.1/24 dev br0
     addr add fd00:10::1/64 dev br0 nodad
     link set br0 up
     link add out0 type veth peer name eth0 netns ${outside.name}
     addr add 192.0.2.1/24 dev out0
     addr add 2001:db8:ff::1/64 dev out0 nodad
     link set out0 up`,
  )
  configure(
    outside,
    `addr add 192.0.2.2/24 dev eth0
     addr add 2001:db8:ff::2/64 dev eth0 nodad
     link set eth0 up
     route add default via 192.0.2.1
     route add default via 2001:db8:ff::1`,
  )
  router.run('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1')
  const nodes = Array.from({ length: wanted }, (_, index) => {
    const node = makeNetns('node')
    configure(
      router,
      `link add p${index} type veth peer name eth0 netns ${node.name}\nlink set p${index} master br0 up`,
    )
    detectNoDuplicates(node, 'eth0')
    configure(
      node,
      `addr add 10.10.10.${8 + index}/24 dev eth0
       addr add fd00:10::${8 + index}/64 dev eth0 nodad
       link set eth0 up
       route add default via 10.10.10.1
       route add default via fd00:10::1`,
    )
    return nodeOf(node, mode)
  })
  return { router, outside, nodes }
}

/** A node in a namespace that has its NIC and default route. */
export function nodeOf(netns: Netns, mode: Node['mode']): Node {
  const base = folder('node')
  const dataDir = join(base, 'data')
  const socket = join(base, 'run', 'agent.sock')
  const leases = join(base, 'leases')
  const env = {
    MOORING_CONFIG: join(scratch, 'mode'),
    MOORING_MODE: mode,
    MOORING_SOCKET: socket,
    MOORING_DATA_DIR: dataDir,
  }
  const config = (more: object = {}) => ({
    cniVersion: '1.0.0',
    name: 'podnet',
    type: 'veth-route',
    ipam: {
      type: 'host-local',
      dataDir: leases,
      ranges: [[{ subnet: '10.10.10.0/24', rangeStart: '10.10.10.19', rangeEnd: '10.10.10.199' }]],
      routes: [{ dst: '0.0.0.0/0' }],
    },
    ...more,
  })
  const agents = new Set<number>()
  const startCall: Node['start'] = (verb, attachment, { prefix = [], more, ...execution } = {}) => {
    const { containerId, netns: path, ifName = 'eth0', config: given = config(), type = 'veth-route' } = attachment
    const text = typeof given === 'string' ? given : JSON.stringify({ ...given, ...more })
    // What needs the node's namespace enters it; through an agent nothing does.
    const enter = mode === 'standalone' ? ['/usr/bin/nsenter', `--net=${netns.path}`] : []
    return start([...enter, ...prefix, join(cniBin(), type)], {
      stdin: text,
      ...execution,
      env: {
        CNI_COMMAND: verb,
        CNI_CONTAINERID: containerId,
        CNI_NETNS: path,
        CNI_IFNAME: ifName,
        CNI_PATH: cniBin(),
        ...env,
        ...execution.env,
      },
    })
  }
  return {
    ...netns,
    mode,
    dataDir,
    socket,
    leases,
    env,
    config,
    start: startCall,
    call: (verb, attachment, options) => startCall(verb, attachment, options).outcome,
    startAgent: options => startAgent(netns, { dataDir, socket, agents }, options),
    state: (...pods) => [
      ...[netns, ...pods].flatMap(stateOfKernel),
      ...filesBelow(dataDir).filter(name => !/\/(journal\.db.*|(agent|lanes)\.lock|starting)$/.test(name)),
      ...filesBelow(leases).filter(name => !/\/(lock|last_reserved_ip\.\d+)$/.test(name)),
      ...rowsOf(dataDir),
      ...processesOf(dataDir)
        .filter(each => !agents.has(each.pid))
        .map(each => `process ${each.command}`),
    ],
  }
}

async function startAgent(
  netns: Netns,
  node: { dataDir: string; socket: string; agents: Set<number> },
  { env = {}, reconcile = 3600, prefix = [], args = [], warmUp = false }: AgentOptions = {},
): Promise<RunningAgent> {
  const command = [...prefix, join(root, 'mooring'), 'agent', '--netns', netns.path]
  const paths = ['--socket', node.socket, '--data-dir', node.dataDir, '--reconcile', String(reconcile)]
  const { child, outcome } = start([...command, ...paths, ...(warmUp ? [] : ['--no-warm-up']), ...args], {
    env: { PATH: process.env['PATH'] ?? '', ...env },
    timeoutMs: 600_000,
  })
  const log: string[] = []
  const ready = Promise.withResolvers<void>()
  let rest = ''
  child.stderr!.on('data', text => {
    const lines = (rest + text).split('\n')
    rest = lines.pop()!
    log.push(...lines)
    if (lines.some(line => line.includes('agent is ready'))) ready.resolve()
  })
  const ended = outcome.then(value => {
    node.agents.delete(child.pid!)
    ready.reject(new Error(`the agent ended: ${value.code ?? value.signal}\n${value.stderr}`))
    return value
  })
  node.agents.add(child.pid!)
  const kill = (signal: NodeJS.Signals) => {
    child.kill(signal)
    return ended
  }
  // Waited for, so that it makes no file any more when the directory goes.
  open.defer(async () => void (await kill('SIGKILL')))
  await ready.promise
  return {
    pid: child.pid!,
    log,
    ended,
    kill,
    async [Symbol.asyncDispose]() {
      await kill('SIGTERM')
    },
  }
}

/** Asked by every test, so by one process of this one's: that is what costs most. */
const SHOW_STATE = `
  for family in -4 -6; do
    ip $family -o -batch - << END
link show
addr show
route show table all
rule show
neigh show proxy
neigh show nud permanent
END
  done
  echo of nft
  exec nft -s list ruleset`
/**
 * What follows from a link that has a carrier: the address of its MAC, its route, and what the kernel adds after duplicate
 * detection. When it comes depends on what else the kernel does with links.
 */
const FOLLOWS = /^((local|anycast) fe80::|fe80::\/64 dev \S+ proto kernel|.* inet6 fe80::\S*ff:fe\S*\/64 scope link)/

/** Links, addresses, routes, rules, neighbours and the rules of nftables in a namespace. */
export function stateOfKernel({ name, path }: Netns): string[] {
  if (!existsSync(path)) return []
  const [lines, firewall] = run('nsenter', [`--net=${path}`, 'sh', '-ec', SHOW_STATE])
    .split('of nft\n')
    .map(text => text.split('\n')) as [string[], string[]]
  return [...lines.map(line => line.replace(/ (tentative|expires \S+|state \w+)/g, '').trim()), ...firewall]
    .filter(line => line !== '' && !FOLLOWS.test(line))
    .map(line => `${name}: ${line.trim()}`)
}

function filesBelow(directory: string): string[] {
  if (!existsSync(directory)) return []
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter(entry => !entry.isDirectory())
    .map(entry => join(entry.parentPath, entry.name))
    .sort()
}

/** What the journal remembers. */
export function rowsOf(dataDir: string): string[] {
  const path = join(dataDir, 'journal.db')
  if (!existsSync(path)) return []
  const db = new DatabaseSync(path)
  try {
    db.exec('PRAGMA busy_timeout = 5000')
    return ['attachment', 'reservation', 'port_intent', 'port_want'].flatMap(table =>
      db
        .prepare(`SELECT * FROM ${table}`)
        .all()
        .map(row => `${table} ${JSON.stringify(row)}`),
    )
  } finally {
    db.close()
  }
}

/** Processes that were started for a node: its data directory is in their environment. */
function processesOf(dataDir: string): { pid: number; command: string }[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .flatMap(pid => {
      try {
        if (!readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`MOORING_DATA_DIR=${dataDir}\0`)) return []
        return [{ pid: Number(pid), command: readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ') }]
      } catch {
        return [] // it has just ended
      }
    })
}

/** Asserts that two states are the same, and shows what is more and what is less. */
export function assertSameState(now: readonly string[], before: readonly string[], when = ''): void {
  const [more, less] = [now.filter(line => !before.includes(line)), before.filter(line => !now.includes(line))]
  assert.deepEqual({ more, less }, { more: [], less: [] }, `something is left ${when}`.trim())
}

/** Waits until a condition holds, looking often. @throws {Error} when the time is over */
export async function eventually(what: string, holds: () => boolean, timeoutMs = 10_000): Promise<void> {
  for (const end = performance.now() + timeoutMs; !holds(); await new Promise(resolve => setTimeout(resolve, 20)))
    if (performance.now() > end) throw new Error(`Waited ${timeoutMs} ms in vain: ${what}`)
}
