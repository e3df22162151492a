// SPDX-License-Identifier: Apache-2.0

// A data directory of `host-local` and calls of the plugin: the installed executable, upstream's, or in this process.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { openJournal } from '#allocator'
import { deadlineIn } from '#base'
import { dispatch } from '#cni'
import { findOwnPlugin, type World } from '#plugins'
import {
  assertSilent,
  errorOf,
  execute,
  folder,
  missing,
  netns,
  type Outcome,
  peers,
  plugin,
  resultOf,
  run,
} from './harness.ts'

export type Ipam = { [key: string]: unknown }
const pod = missing === undefined ? netns('hl') : { name: '', path: '' }

/** A data directory of its own, and calls with one IPAM configuration in it. */
export class Network {
  readonly dataDir = folder('networks')
  readonly directory = join(this.dataDir, 'net')
  ipam: Ipam
  more: object = {}

  constructor(ipam: Ipam = { subnet: '10.1.2.0/24' }) {
    this.ipam = ipam
  }

  config(more: object = {}): object {
    const ipam = { type: 'host-local', dataDir: this.dataDir, ...this.ipam }
    return { cniVersion: '1.1.0', name: 'net', type: 'none', ipam, ...this.more, ...more }
  }

  env(verb: string, id: string, env: Record<string, string> = {}): Record<string, string> {
    const attachment = { CNI_CONTAINERID: id, CNI_IFNAME: 'eth0', CNI_NETNS: pod.path }
    return { CNI_COMMAND: verb, ...(id === '' ? {} : attachment), ...env }
  }

  call(verb: string, id: string, env: Record<string, string> = {}, more: object = {}): Promise<Outcome> {
    return plugin('host-local', this.env(verb, id, env), this.config(more))
  }

  /** The same by upstream's executable. */
  upstream(verb: string, id: string, env: Record<string, string> = {}): Promise<Outcome> {
    return execute([join(peers ?? '', 'host-local')], {
      env: { CNI_PATH: peers ?? '', ...this.env(verb, id, env) },
      stdin: JSON.stringify(this.config()),
    })
  }

  async add(id: string, env: Record<string, string> = {}, more: object = {}): Promise<string[]> {
    return addressesOf(await this.call('ADD', id, env, more))
  }

  async refusal(id: string, env: Record<string, string> = {}, more: object = {}): Promise<string> {
    return errorOf(await this.call('ADD', id, env, more)).msg
  }

  async del(id: string, env: Record<string, string> = {}): Promise<void> {
    assertSilent(await this.call('DEL', id, env))
  }

  gc(...valid: string[]): Promise<Outcome> {
    return this.call(
      'GC',
      '',
      {},
      {
        'cni.dev/valid-attachments': valid.map(containerID => ({ containerID, ifname: 'eth0' })),
      },
    )
  }

  /** The addresses that are reserved. */
  reserved(): string[] {
    if (!existsSync(this.directory)) return []
    return readdirSync(this.directory)
      .filter(name => name !== 'lock' && !name.startsWith('last_reserved_ip.'))
      .sort()
  }

  file(name: string): string {
    return join(this.directory, name)
  }

  owner(name: string): string {
    return this.text(name).replace(/\r\n.*/, '')
  }

  text(name: string): string {
    return readFileSync(this.file(name), 'latin1')
  }
}

export const addressesOf = (outcome: Outcome): string[] =>
  resultOf(outcome).ips.map((each: { address: string }) => each.address.replace(/\/.*/, ''))

export const twoSets = { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '10.2.2.0/24' }]] }

/** The plugin without a process of its own. */
export class InProcess {
  readonly #journal
  readonly #world

  constructor(state = folder('state')) {
    this.#journal = openJournal(state)
    this.#world = { journal: this.#journal, longLived: true } as unknown as World
  }

  async call(network: Network, verb: string, id: string): Promise<Outcome> {
    const request = {
      env: { CNI_PATH: '/none', ...network.env(verb, id) },
      stdin: new TextEncoder().encode(JSON.stringify(network.config())),
    }
    const options = { deadline: deadlineIn(60_000), signal: new AbortController().signal }
    const reply = await dispatch(findOwnPlugin('host-local')!, request, this.#world, options)
    return { rc: reply.exitCode, stdout: new TextDecoder().decode(reply.stdout), stderr: reply.stderr, ms: 0 }
  }

  [Symbol.dispose](): void {
    this.#journal[Symbol.dispose]()
  }
}

/** Mounts a tmpfs over a directory for a while. */
export async function mounted(directory: string, options: string, during: () => Promise<void>): Promise<void> {
  run('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', directory])
  try {
    await during()
  } finally {
    run('umount', [directory])
  }
}
