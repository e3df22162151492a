// SPDX-License-Identifier: Apache-2.0
// The labs of lab/ as the test runner sees them: started when they are missing, stopped when the runner started them.
import { spawn, spawnSync } from 'node:child_process'

export type LabName = 'openstack' | 'kubernetes' | 'peers' | 'vmlab'

interface Lab {
  /** Said before it starts: what a start brings onto the machine. */
  readonly brings: string
  readonly start: readonly (readonly string[])[]
  /** Exit status 0 while it is up. A lab without it consists of files only. */
  readonly isUp?: readonly string[]
  readonly stop?: readonly string[]
  /** Prints shell exports for those who use it. */
  readonly env?: readonly string[]
}

const LABS: Readonly<Record<LabName, Lab>> = {
  peers: {
    brings:
      'the reference CNI plugins and cnitool, built from Go modules (cache: ~/.cache/mooring-lab/peers; half a minute)',
    start: [['setup', 'plugins', 'cnitool', 'bench']],
  },
  openstack: {
    brings:
      'Keystone, Neutron, Nova, Placement, MariaDB, RabbitMQ as Debian packages (lab/openstack purge-packages removes them), ' +
      'state in /var/lib/oslab, network namespaces oslab-* and vm-* (3 to 5 minutes)',
    start: [['up', '--dataplane'], ['demo']],
    isUp: ['status'],
    stop: ['down'],
    env: ['env'],
  },
  kubernetes: {
    brings:
      'Kubernetes, containerd and etcd, built from Go modules, runc and nftables as Debian packages ' +
      '(cache: ~/.cache/mooring-lab/kubernetes; 5 to 8 minutes the first time)',
    start: [['setup'], ['up']],
    isUp: ['status'],
    stop: ['down'],
    env: ['env'],
  },
  vmlab: {
    brings: 'QEMU and a Debian kernel as packages (cache: ~/.cache/vmlab; 165 MB)',
    start: [['setup']],
  },
}

const START_LIMIT_MS = 25 * 60_000

/** Prints what the labs bring onto this machine, before any of it happens. */
export function announce(names: readonly LabName[]): void {
  for (const name of names) console.error(`test: needs lab/${name}: ${LABS[name].brings}`)
}

/** Starts labs on demand and remembers which of them are its own. */
export class Labs {
  readonly #root: string
  readonly #tried = new Map<LabName, Promise<Record<string, string>>>()
  readonly #own: LabName[] = []

  constructor(root: string) {
    this.#root = root
  }

  /** Makes sure that a lab is up. Gives the environment for those who use it; throws after the second failure. */
  require(name: LabName): Promise<Record<string, string>> {
    let started = this.#tried.get(name)
    if (started === undefined) {
      started = this.#startTwice(name)
      this.#tried.set(name, started)
    }
    return started
  }

  /** Stops the labs that `require` started, the last one first. Those that ran before stay. */
  async stop(): Promise<void> {
    for (const name of this.#own.splice(0).reverse()) {
      console.error(`test: stopping lab/${name}`)
      const status = await this.#run(name, LABS[name].stop ?? [])
      if (status !== 0) console.error(`test: lab/${name} ${LABS[name].stop?.join(' ')} ended with ${status}`)
    }
  }

  async #startTwice(name: LabName): Promise<Record<string, string>> {
    const lab = LABS[name]
    const wasUp = lab.isUp !== undefined && this.#ask(name, lab.isUp).status === 0
    if (lab.stop && !wasUp) this.#own.push(name)
    let failure = ''
    for (const attempt of [1, 2]) {
      console.error(`test: starting lab/${name}${attempt === 2 ? ' once more' : ''}`)
      failure = await this.#start(name)
      if (failure === '') return this.#environment(name)
      console.error(`test: ${failure}`)
      if (lab.stop && !wasUp) await this.#run(name, lab.stop)
    }
    throw new Error(`Cannot start lab/${name}: ${failure}, twice; its output stands above`)
  }

  async #start(name: LabName): Promise<string> {
    for (const command of LABS[name].start) {
      const status = await this.#run(name, command)
      if (status !== 0) return `lab/${name} ${command.join(' ')} ended with ${status}`
    }
    return ''
  }

  #environment(name: LabName): Record<string, string> {
    if (name === 'peers') return { PEERS_DIR: this.#ask(name, ['dir']).stdout.trim() }
    const { env } = LABS[name]
    if (env === undefined) return {}
    const printed = this.#ask(name, env).stdout
    const script = 'eval "$1"; exec env -0'
    const { stdout } = spawnSync('sh', ['-c', script, 'sh', printed], {
      encoding: 'utf8',
      env: { PATH: process.env['PATH'] },
    })
    const pairs = stdout.split('\0').map(line => line.split(/=(.*)/s, 2) as [string, string])
    return Object.fromEntries(pairs.filter(([key]) => key !== '' && !['PWD', 'OLDPWD', 'SHLVL', '_'].includes(key)))
  }

  #ask(name: LabName, command: readonly string[]) {
    return spawnSync(`${this.#root}/lab/${name}`, command, { encoding: 'utf8' })
  }

  /** What a lab says belongs to stderr: stdout is for the tests. */
  #run(name: LabName, command: readonly string[]): Promise<number | string> {
    const { promise, resolve } = Promise.withResolvers<number | string>()
    const child = spawn(`${this.#root}/lab/${name}`, command, { stdio: ['ignore', 2, 2], timeout: START_LIMIT_MS })
    child.on('error', error => resolve(error.message))
    child.on('close', (status, signal) => resolve(status ?? signal ?? 'no status'))
    return promise
  }
}
