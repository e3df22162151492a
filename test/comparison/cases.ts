// SPDX-License-Identifier: Apache-2.0

// What a plugin has to do, as cases that tell what is wrong in words, or nothing. The same for ours and for theirs.

import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Attachment, makeNetns, type Netns, type Outcome, type Verb } from '../nodelab.ts'
import { emptyIpam, type Side } from './sides.ts'

/** Plugins that make an interface, with what they need besides an IPAM plugin. */
const mains: Readonly<Record<string, object>> = {
  ptp: {},
  bridge: { bridge: 'br-pods', isGateway: true },
  macvlan: { master: 'eth0' },
  ipvlan: { master: 'eth0' },
  'host-device': { device: 'hd0' },
}
export const interfaces = Object.keys(mains)

export type Case = {
  readonly name: string
  readonly plugins: readonly string[]
  /** Plugins of the reference that do it right. */
  readonly theirsRight?: readonly string[]
  /** @returns what is wrong; undefined: nothing */
  run(trial: Trial): Promise<string | undefined>
}

/** One plugin of one side, a container of its own, and what is needed to judge. */
export class Trial {
  readonly side: Side
  readonly type: string
  readonly pod: Netns = makeNetns('pod')
  readonly containerId: string
  #before: string[] = []
  #podIsGone = false

  constructor(side: Side, type: string, number: number) {
    this.side = side
    this.type = type
    this.containerId = `c${number}`
    if (type === 'host-device') {
      this.side.node.ip('link add hd0 type veth peer name hd1')
      this.side.node.ip('link set hd1 up')
    }
    this.settle()
  }

  /** From here on, what is more is left over. */
  settle(): void {
    this.#before = this.state()
  }

  /** Without what follows from a carrier that comes and goes. */
  state(): string[] {
    const { node } = this.side
    return (this.#podIsGone ? node.state() : node.state(this.pod))
      .filter(line => !/\bfe80::|\bff00::|^\S+: \d+: br-pods: /.test(line))
      .map(line => line.replace(/ linkdown|<\S+>/g, ''))
  }

  removePod(): void {
    this.pod.remove()
    this.#podIsGone = true
  }

  /** What is there more than before, in words. A namespace that was deleted takes its links along a moment later. */
  async left(): Promise<string | undefined> {
    for (const end = performance.now() + 400; ; await sleep(20)) {
      const more = this.state().filter(line => !this.#before.includes(line))
      if (more.length === 0) return undefined
      if (performance.now() > end) return `left: ${more.join('; ')}`
    }
  }

  /** A configuration of the plugin with addresses by host-local. */
  config(more: object = {}, ipam: object = {}): Record<string, unknown> {
    const base = { cniVersion: '1.1.0', name: 'podnet', type: this.type }
    if (this.type === 'loopback') return { ...base, ...more }
    const hostLocal = {
      type: 'host-local',
      dataDir: this.side.node.leases,
      ranges: [[{ subnet: '10.60.0.0/24', rangeStart: '10.60.0.50', rangeEnd: '10.60.0.90' }]],
      routes: [{ dst: '0.0.0.0/0' }],
    }
    return { ...base, ...mains[this.type], ipam: { ...hostLocal, ...ipam }, ...more }
  }

  call(
    verb: Verb,
    config: object,
    {
      netns = this.pod.path,
      env,
      ifName = 'eth0',
    }: Partial<Pick<Attachment, 'netns' | 'ifName'>> & { env?: Record<string, string> } = {},
  ): Promise<Outcome> {
    return this.side.call(
      verb,
      { type: this.type, containerId: this.containerId, netns, ifName, config },
      env === undefined ? {} : { env },
    )
  }

  /** ADD that has to work. @returns the configuration with the result as prevResult */
  async add(config: object = this.config()): Promise<Record<string, unknown>> {
    const outcome = await this.call('ADD', config)
    if (outcome.code !== 0) throw new Error(`ADD: ${outcome.stdout}${outcome.stderr}`)
    return { ...config, prevResult: JSON.parse(outcome.stdout) }
  }

  /** ADD of ptp, then of the plugin, with a port. */
  async addChained(): Promise<Record<string, unknown>> {
    const config = { ...this.config(), type: 'ptp' }
    const attachment = { containerId: this.containerId, netns: this.pod.path }
    const outcome = await this.side.call('ADD', { ...attachment, type: 'ptp', config })
    this.settle()
    const portMappings = [{ hostPort: 18080, containerPort: 80, protocol: 'tcp' }]
    const prevResult = JSON.parse(outcome.stdout)
    return await this.add({
      ...{ cniVersion: '1.1.0', name: 'podnet', type: this.type },
      ...{ runtimeConfig: { portMappings }, prevResult },
    })
  }

  /** Takes away what a case may have left, so that the next one starts as this one did. */
  async clear(): Promise<void> {
    await this.call('DEL', this.config()).catch(() => undefined)
    this.pod.remove()
    const { node } = this.side
    if (this.type === 'host-device') node.run('sh', '-c', 'ip link del hd0; ip link del hd1; true')
    rmSync(node.leases, { recursive: true, force: true })
    node.run('sh', '-c', 'ip -o link | sed -n "s/^[0-9]*: \\(veth[0-9a-f]*\\)@.*/\\1/p" | xargs -rn1 ip link del; true')
    if (this.side.name === 'theirs') node.run('nft', 'flush', 'ruleset')
  }
}

const succeeded = ({ code, stdout }: Outcome, what: string) => (code === 0 ? undefined : `${what}: ${stdout}`)
const failed = ({ code }: Outcome, what: string) => (code === 0 ? `${what} succeeds` : undefined)
const withNames = ['ptp', 'bridge', 'macvlan', 'host-device']

/** A deviation that CHECK has to notice, made in the container. */
const deviation = (what: string, break_: (trial: Trial) => void, rest: Omit<Case, 'name' | 'run'>): Case => ({
  name: `CHECK notices that ${what}`,
  ...rest,
  async run(trial) {
    const added = await trial.add()
    const sound = succeeded(await trial.call('CHECK', added), 'CHECK right after ADD')
    if (sound !== undefined) return sound
    break_(trial)
    return failed(await trial.call('CHECK', added), 'CHECK')
  },
})

/** DEL when something is not there any more: it succeeds, and nothing stays. */
const deletion = (
  when: string,
  change: (trial: Trial) => Promise<object> | object,
  rest: Omit<Case, 'name' | 'run'>,
): Case => ({
  name: `DEL ${when}`,
  ...rest,
  async run(trial) {
    if (rest.plugins.includes('loopback') && trial.type === 'loopback') trial.pod.ip('link set lo down')
    trial.settle()
    const added = await trial.add()
    const { netns, ...config } = { ...added, ...(await change(trial)) } as Record<string, unknown> & { netns?: string }
    return (
      succeeded(await trial.call('DEL', config, netns === undefined ? {} : { netns }), 'DEL') ?? (await trial.left())
    )
  },
})

/** ADD that cannot work: an error, and nothing stays. */
const refusal = (what: string, prepare: (trial: Trial) => object, rest: Omit<Case, 'name' | 'run'>): Case => ({
  name: `ADD, ${what}: an error, and nothing is left`,
  ...rest,
  async run(trial) {
    const config = prepare(trial)
    trial.settle()
    return failed(await trial.call('ADD', config), 'ADD') ?? (await trial.left())
  },
})

export const cases: readonly Case[] = [
  {
    name: 'ADD, CHECK after it, DEL leaves nothing',
    plugins: interfaces,
    theirsRight: interfaces,
    async run(trial) {
      const added = await trial.add()
      const checked = succeeded(await trial.call('CHECK', added), 'CHECK')
      return checked ?? succeeded(await trial.call('DEL', added), 'DEL') ?? (await trial.left())
    },
  },
  deviation('the address is gone', ({ pod }) => pod.ip('addr flush dev eth0'), {
    plugins: interfaces,
    theirsRight: interfaces,
  }),
  deviation('the MAC is another', ({ pod }) => pod.ip('link set eth0 address 02:00:00:00:00:99'), {
    plugins: withNames,
    theirsRight: withNames,
  }),
  deviation('the link is down', ({ pod }) => pod.ip('link set eth0 down'), {
    plugins: interfaces,
    theirsRight: interfaces,
  }),
  deviation(
    'the default route leads elsewhere',
    ({ pod }) => pod.ip('route replace default via 10.60.0.77 dev eth0 onlink'),
    { plugins: interfaces },
  ),
  {
    name: 'CHECK notices that another address is reserved than prevResult says',
    plugins: ['host-local'],
    async run(trial) {
      const added = await trial.add()
      const result = JSON.stringify(added['prevResult']).replaceAll(/10\.60\.0\.\d+\/24/g, '10.60.0.89/24')
      return failed(await trial.call('CHECK', { ...added, prevResult: JSON.parse(result) }), 'CHECK')
    },
  },
  {
    name: 'STATUS notices that ADD is impossible',
    plugins: [...interfaces, 'host-local'],
    async run(trial) {
      const gone = { ...(trial.type === 'host-device' ? { device: 'gone0' } : { master: 'gone0' }) }
      const impossible = { dataDir: '/dev/null/x' }
      const onIpam = ['ptp', 'bridge', 'host-local'].includes(trial.type)
      const config = onIpam ? trial.config({}, impossible) : trial.config(gone)
      return (
        succeeded(await trial.call('STATUS', trial.config()), 'STATUS where all is well') ??
        failed(await trial.call('STATUS', config), 'STATUS')
      )
    },
  },
  {
    name: 'GC frees what no valid attachment owns',
    plugins: [...interfaces, 'host-local'],
    async run(trial) {
      await trial.add()
      await sleep(150) // younger than the list might be
      const outcome = await trial.call('GC', trial.config({ 'cni.dev/valid-attachments': [] }))
      return succeeded(outcome, 'GC') ?? (await trial.left())
    },
  },
  {
    name: 'GC frees what no valid attachment owns, chained',
    plugins: ['portmap'],
    async run(trial) {
      await trial.addChained()
      await sleep(150)
      const config = { cniVersion: '1.1.0', name: 'podnet', type: 'portmap', 'cni.dev/valid-attachments': [] }
      return succeeded(await trial.call('GC', config), 'GC') ?? (await trial.left())
    },
  },
  {
    name: 'DEL twice, and without ADD',
    plugins: [...interfaces, 'host-local', 'loopback'],
    theirsRight: ['ptp', 'bridge', 'macvlan', 'ipvlan', 'host-local', 'loopback'],
    async run(trial) {
      const early = succeeded(await trial.call('DEL', trial.config()), 'DEL without ADD')
      if (early !== undefined) return early
      const added = await trial.add()
      return succeeded(await trial.call('DEL', added), 'DEL') ?? succeeded(await trial.call('DEL', added), 'second DEL')
    },
  },
  deletion(
    'after the namespace was deleted',
    trial => {
      trial.removePod()
      return {}
    },
    {
      plugins: [...interfaces, 'host-local', 'loopback'],
      theirsRight: ['ptp', 'bridge', 'macvlan', 'ipvlan', 'host-local', 'loopback'],
    },
  ),
  {
    name: 'DEL after the namespace was deleted takes masquerade along',
    plugins: ['ptp', 'bridge'],
    async run(trial) {
      const added = await trial.add(trial.config({ ipMasq: true }))
      trial.removePod()
      return succeeded(await trial.call('DEL', added), 'DEL') ?? (await trial.left())
    },
  },
  deletion(
    'without a namespace',
    trial => {
      trial.removePod()
      return { netns: '' }
    },
    {
      plugins: [...interfaces, 'host-local', 'loopback'],
      theirsRight: ['ptp', 'bridge', 'macvlan', 'ipvlan', 'host-local', 'loopback'],
    },
  ),
  deletion(
    'where the path is a plain file',
    trial => {
      trial.removePod()
      writeFileSync(trial.pod.path, '')
      return {}
    },
    { plugins: [...interfaces, 'host-local', 'loopback'], theirsRight: ['host-local'] },
  ),
  deletion(
    'where the subnet is not valid any more',
    trial => ({ ipam: { ...(trial.config()['ipam'] as object), ranges: [[{ subnet: '10.60.0.0/99' }]] } }),
    { plugins: ['ptp', 'bridge', 'host-local'] },
  ),
  refusal(
    'interface name exists',
    trial => {
      trial.pod.ip('link add eth0 type bridge')
      return trial.config()
    },
    { plugins: interfaces, theirsRight: ['ptp', 'bridge', 'macvlan', 'host-device'] },
  ),
  refusal('a route is refused', trial => trial.config({}, { routes: [{ dst: '10.99.0.0/16', gw: '203.0.113.1' }] }), {
    plugins: interfaces,
  }),
  refusal('IPAM cannot write', trial => trial.config({}, { dataDir: '/dev/null/x' }), {
    plugins: interfaces,
    theirsRight: ['ptp'],
  }),
  {
    name: 'ADD, IPAM gives no address: link and IPAM are undone',
    plugins: interfaces,
    async run(trial) {
      const { directory, calls } = emptyIpam()
      const config = trial.config({ ipam: { type: 'empty-ipam' } })
      const outcome = await trial.call('ADD', config, { env: { CNI_PATH: `${directory}:${trial.side.path}` } })
      const error = failed(outcome, 'ADD') ?? (await trial.left())
      if (error !== undefined) return error
      return existsSync(calls) && readFileSync(calls, 'utf8').includes('DEL') ? undefined : 'the IPAM gets no DEL'
    },
  },
  {
    name: 'ADD twice: an error, and the first stays whole',
    plugins: [...interfaces, 'host-local'],
    theirsRight: ['ptp', 'bridge', 'macvlan', 'host-device'],
    async run(trial) {
      await trial.add()
      trial.settle()
      const wanted = trial.type === 'host-local' ? { env: { CNI_ARGS: 'IP=10.60.0.88' } } : {}
      const outcome = await trial.call('ADD', trial.config(), wanted)
      const now = await trial.left()
      return failed(outcome, 'second ADD') ?? now
    },
  },
  {
    name: "ADD into the plugin's own namespace: refused, nothing done",
    plugins: interfaces,
    theirsRight: ['host-device'],
    async run(trial) {
      const { node } = trial.side
      const outcome = await trial.call('ADD', trial.config(), { netns: node.path, ifName: 'own0' })
      if (outcome.code === 0) return 'ADD succeeds'
      try {
        JSON.parse(outcome.stdout)
      } catch {
        return `not one JSON object on stdout: ${outcome.stdout}`
      }
      return await trial.left()
    },
  },
  {
    name: 'an error has the cniVersion of the configuration',
    plugins: [...interfaces, 'host-local', 'loopback', 'static', 'portmap'],
    async run(trial) {
      // Not the plugin itself, which the reference would execute without end.
      const ipam = { type: 'static', addresses: [{ address: 'none' }] }
      const config = { cniVersion: '0.4.0', name: 'n', type: trial.type, ipam }
      const outcome = await trial.call('ADD', config, { netns: '/nowhere/at/all' })
      if (outcome.code === 0) return 'ADD succeeds'
      const { cniVersion } = JSON.parse(outcome.stdout) as { cniVersion?: string }
      return cniVersion === '0.4.0' ? undefined : `cniVersion is ${cniVersion}`
    },
  },
]
