// SPDX-License-Identifier: Apache-2.0
// The labs of lab/ as the test runner sees them: started when they are missing, stopped when the runner started them.
import { spawn, spawnSync } from 'node:child_process'

export type LabName = 'openstack' | 'kubernetes' | 'peers' | 'vmlab'

interface Lab {
  /** Said before it starts: what a start brings onto the machine. */
  readonly brings: string
  /** Only makes files and installs packages, so it may run long before the lab is needed; instant when they are there. */
  readonly build?: readonly string[]
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
    build: ['setup', 'plugins', 'cnitool', 'bench'],
    start: [],
  },
  openstack: {
    brings:
      'Keystone, Neutron, Nova, Placement, MariaDB, RabbitMQ as Debian packages (lab/openstack purge-packages removes them), ' +
      'state in /var/lib/oslab, network namespaces oslab-* and vm-* (3 to 5 minutes)',
    build: ['setup'],
    start: [['up', '--dataplane'], ['demo']],
    isUp: ['status'],
    stop: ['down'],
    env: ['env'],
  },
  kubernetes: {
    brings:
      'Kubernetes, containerd and etcd, built from Go modules, runc and nftables as Debian packages ' +
      '(cache: ~/.cache/mooring-lab/kubernetes; 5 to 8 minutes the first time)',
    build: ['setup'],
    start: [['up', '--dual-stack']],
    isUp: ['status'],
    stop: ['down'],
    env: ['env'],
  },
  vmlab: {
    brings: 'QEMU and a Debian kernel as packages (cache: ~/.cache/vmlab; 165 MB)',
    build: ['setup'],
    start: [],
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
  readonly #builds = new Map<LabName, Promise<string>>()
  readonly #tried = new Map<LabName, Promise<Record<string, string>>>()
  readonly #own: LabName[] = []
  /** Process groups of builds that go on beside the tests. */
  readonly #building = new Set<number>()
  #ended = false

  constructor(root: string) {
    this.#root = root
  }

  /**
   * Builds what the labs need, one after the other, while tests run: as an idle task of the kernel's scheduler, so that
   * it has the time only that nobody else wants. `require` waits for it and tells of a failure.
   */
  buildAhead(names: readonly LabName[]): void {
    let before: Promise<unknown> = Promise.resolve()
    for (const name of names) {
      const { build } = LABS[name]
      if (build === undefined) continue
      const built = before.then(() => (this.#ended ? 'not started' : this.#run(name, build, ['chrt', '--idle', '0'])))
      this.#builds.set(
        name,
        built.then(status => complaint(name, build, status)),
      )
      before = built
    }
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

  /** Nothing is built while `work` runs, which measures times. */
  async undisturbed(work: () => Promise<void>): Promise<void> {
    for (const group of this.#building) process.kill(-group, 'SIGSTOP')
    try {
      await work()
    } finally {
      for (const group of this.#building) process.kill(-group, 'SIGCONT')
    }
  }

  /** Stops the labs that `require` started, the last one first. Those that ran before stay. */
  async stop(): Promise<void> {
    this.#ended = true
    for (const group of this.#building) process.kill(-group, 'SIGINT')
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
    const { build, start } = LABS[name]
    // Its failure is no reason to give up: the build comes again now, as it does where nothing was built ahead.
    const ahead = await this.#builds.get(name)
    this.#builds.delete(name)
    for (const command of build === undefined || ahead === '' ? start : [build, ...start]) {
      const failure = complaint(name, command, await this.#run(name, command))
      if (failure !== '') return failure
    }
    return ''
  }

  #environment(name: LabName): Record<string, string> {
    if (name === 'peers') {
      const versions = this.#ask(name, ['versions']).stdout.matchAll(/^(plugins|cnitool) +\S+ +(\S+)/gm)
      const told = [...versions].map(([, program, version]) => `${program} ${version}`).join(', ')
      return { PEERS_DIR: this.#ask(name, ['dir']).stdout.trim(), PEERS_VERSIONS: told }
    }
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
  #run(name: LabName, command: readonly string[], under: readonly string[] = []): Promise<number | string> {
    const { promise, resolve } = Promise.withResolvers<number | string>()
    const [program, ...args] = [...under, `${this.#root}/lab/${name}`, ...command] as [string, ...string[]]
    const detached = under.length > 0
    const child = spawn(program, args, { stdio: ['ignore', 2, 2], timeout: START_LIMIT_MS, detached })
    const group = detached ? child.pid : undefined
    if (group !== undefined) this.#building.add(group)
    child.on('error', error => resolve(error.message))
    child.on('close', (status, signal) => resolve(status ?? signal ?? 'no status'))
    return promise.finally(() => group !== undefined && this.#building.delete(group))
  }
}

/** Empty where all went well. */
const complaint = (name: LabName, command: readonly string[], status: number | string): string =>
  status === 0 ? '' : `lab/${name} ${command.join(' ')} ended with ${status}`
