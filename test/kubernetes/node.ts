// SPDX-License-Identifier: Apache-2.0
// A server of the OpenStack lab that is a node of the Kubernetes lab, with Mooring on it as an operator installs it.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { addNode, deleteNode, onNode, root, run, type Worker } from './labs.ts'

const STOP_MS = 10_000
const mooring = `${root}/mooring`

/** What an attachment could leave in a node's kernel. Neighbours that the kernel learns by itself are not among it. */
export interface KernelState {
  readonly links: readonly string[]
  readonly text: string
}

export interface Node extends Worker {
  /** Makes the server a node and installs the plugins; no agent runs and no network is configured yet. */
  join(): void
  startAgent(): void
  /** Ends the agent as a service manager does. @returns its exit status */
  stopAgent(): Promise<number | null>
  signalAgent(signal: string): void
  /** Writes the network's conflist where the runtime looks. */
  configure(conflist: object): void
  unconfigure(): void
  drain(): string
  /** @returns what is left in the directory of the plugins */
  uninstall(): string[]
  /** Ends every process on the node at once, as a power cut does. */
  cutPower(): void
  leave(): void
  /** Runs in the node, in all its namespaces. */
  exec(...command: string[]): string
  /** Rows of the journal. */
  rows(query: string): Record<string, unknown>[]
  kernel(): KernelState
  /** The end of the agent's log. */
  log(): string
  /** Files of the node's state in which a text stands. */
  filesWith(text: string): string[]
}

/** Everything of the node lies in `folder`, seen from inside and outside. */
export function createNode(worker: Worker, folder: string): Node {
  const [conf, bin, data, log] = ['conf', 'bin', 'data', 'agent.log'].map(part => join(folder, part)) as [
    string,
    string,
    string,
    string,
  ]
  for (const path of [conf, bin, data]) mkdirSync(path, { recursive: true })
  const conflistFile = join(conf, '10-mooring.conflist')
  const ip = (...args: string[]) => run('ip', ['-n', worker.name, ...args])
  const exec = (...command: string[]) => onNode(worker, ...command)
  let agent: ChildProcess | undefined

  return {
    ...worker,
    exec,
    join() {
      addNode(worker, { conf, bin })
      exec(mooring, 'install', '--cni-bin', '/opt/cni/bin', '--mode', 'agent', '--data-dir', data)
    },
    startAgent() {
      const output = openSync(log, 'a')
      const script = 'echo $$ > /run/mooring.pid; exec "$@"'
      const command = ['sh', '-c', script, 'sh', mooring, 'agent', '--data-dir', data]
      agent = spawn(`${root}/lab/kubernetes`, ['node', 'exec', worker.name, '--', ...command], {
        stdio: ['ignore', output, output],
      })
    },
    async stopAgent() {
      const running = agent!
      assert.equal(running.exitCode, null, 'the agent runs until it is told to stop')
      const ended = new Promise<number | null>(resolve => running.once('close', resolve))
      exec('sh', '-c', 'kill -TERM $(cat /run/mooring.pid)')
      const late = sleep(STOP_MS, undefined, { ref: false }).then(() =>
        assert.fail(`the agent still runs ${STOP_MS} ms after SIGTERM`),
      )
      return await Promise.race([ended, late])
    },
    signalAgent(signal) {
      exec('sh', '-c', `kill -${signal} $(cat /run/mooring.pid)`)
      // nsenter, which leads into the node, stops itself when its child is stopped.
      if (signal === 'CONT') agent?.kill('SIGCONT')
    },
    configure(conflist) {
      writeFileSync(conflistFile, JSON.stringify(conflist, null, 2))
    },
    unconfigure() {
      rmSync(conflistFile, { force: true })
    },
    drain: () => exec(mooring, 'drain', '--data-dir', data),
    uninstall() {
      exec(mooring, 'uninstall', '--cni-bin', '/opt/cni/bin')
      return readdirSync(bin)
    },
    cutPower() {
      // Process 1 of the node's PID namespace: the kernel ends the others with it.
      const [pid] = readFileSync(
        join(dirname(process.env['KUBECONFIG']!), 'run', worker.name, 'init.pid'),
        'utf8',
      ).split(' ')
      process.kill(Number(pid), 'SIGKILL')
    },
    leave: () => deleteNode(worker),
    rows(query) {
      using journal = new DatabaseSync(join(data, 'journal.db'), { readOnly: true })
      return journal.prepare(query).all()
    },
    kernel() {
      const links = JSON.parse(ip('-j', 'link')) as { ifname: string }[]
      const text = [
        ip('address'),
        ip('route', 'show', 'table', 'all'),
        ip('rule'),
        ip('neighbour', 'show', 'proxy'),
        ip('neighbour', 'show', 'nud', 'permanent'),
        run('ip', ['netns', 'exec', worker.name, 'nft', 'list', 'ruleset']),
      ]
      // dummy0 carries the next hop of every pod; it is made once and kept.
      const names = links.map(link => link.ifname).filter(name => name !== 'dummy0')
      return { links: names.sort(), text: text.join('\n') }
    },
    log: () => readFileSync(log, 'utf8').slice(-3000),
    filesWith(text) {
      const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
      return files
        .map(file => join(file.parentPath, file.name))
        .filter(file => readFileSync(file, 'latin1').includes(text))
    },
  }
}
