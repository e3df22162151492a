// SPDX-License-Identifier: Apache-2.0

// A node with tcnp-ipam on it, called as a runtime calls it: environment and standard input in, exit code and JSON out.

import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openJournal } from '#allocator'
import { deadlineIn, parsePrefix, tryParseMac } from '#base'
import { dispatch } from '#cni'
import type { Host } from '#host'
import type { GateOptions } from '#openstack'
import { findOwnPlugin, openSessions, startPorts, toCniError, type World, worldOf } from '#plugins'

/** What a plugin prints: a result or an error. */
export type Printed = Partial<{
  readonly interfaces: readonly { readonly name: string; readonly mac?: string }[]
  readonly ips: readonly { readonly address: string; readonly gateway?: string; readonly interface?: number }[]
  readonly routes: readonly object[]
  readonly dns: object
  readonly code: number
  readonly msg: string
  readonly details: string
}>

export type Reply = { readonly exitCode: number; readonly json: Printed; readonly stdout: string }

export type Node = AsyncDisposable & {
  readonly world: World
  readonly warnings: string[]
  /** Calls the plugin; ADD gets a namespace that is not the test's only by override, because no link is made. */
  call(command: string, containerId: string, ipam: object, more?: Partial<CallOptions>): Promise<Reply>
}

export type CallOptions = {
  readonly network: string
  readonly ifName: string
  readonly cniVersion: string
  readonly timeoutMs: number
  readonly signal: AbortSignal
  readonly config: object
  /** CNI_ARGS */
  readonly args: string
}

export type NodeOptions = {
  readonly directory: string
  readonly host: Host
  readonly longLived: boolean
  readonly bootId?: string
  /** How its cloud is called. Left out: a service that fails is asked all the same, as by a process per call. */
  readonly gate?: GateOptions
}

/** A node whose NIC has this address and MAC, without any kernel. */
export const nodeWithNic = (address: string, mac: string): Host =>
  ({
    findUplink: async ({ name }: { name?: string }) =>
      name === undefined || name === 'eth0'
        ? {
            index: 2,
            name: 'eth0',
            mac: tryParseMac(mac)!,
            mtuBytes: 1450,
            addresses: address === '' ? [] : [parsePrefix(address)],
          }
        : undefined,
    listFirewallPods: async () => [],
    probeArp: async () => [],
  }) as unknown as Host

/** A directory for a node's journal, removed after the test. */
export function nodeDirectory(t: { after(run: () => void): void }): string {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-ipam-'))
  t.after(() => rmSync(directory, { recursive: true }))
  return directory
}

/** Starts the node: its agent's part for `longLived`, one process per call otherwise. */
export function startNode({ directory, host, longLived, bootId = 'boot-1', gate }: NodeOptions): Node {
  const stack = new AsyncDisposableStack()
  const warnings: string[] = []
  const journal = stack.use(openJournal(directory))
  const warn = (message: string) => warnings.push(message)
  const clouds = stack.use(openSessions({ dataDir: directory, warn, gate }))
  const world = worldOf({ host, journal, clouds, bootId, longLived, dataDir: directory, warn })
  if (longLived) stack.use(startPorts(world, error => warn(String(error))))
  return {
    world,
    warnings,
    async call(command, containerId, ipam, more = {}) {
      const {
        network = 'cni0',
        ifName = 'eth0',
        cniVersion = '1.1.0',
        timeoutMs = 60_000,
        signal,
        config,
        args = '',
      } = more
      const stdin = JSON.stringify({
        cniVersion,
        name: network,
        type: 'tcnp-ipam',
        ipam: { type: 'tcnp-ipam', ...ipam },
        ...config,
      })
      const anonymous = command === 'STATUS' || command === 'GC'
      const reply = await dispatch(
        findOwnPlugin('tcnp-ipam')!,
        {
          env: {
            CNI_COMMAND: command,
            CNI_PATH: '/opt/cni/bin',
            ...(anonymous
              ? {}
              : {
                  CNI_CONTAINERID: containerId,
                  CNI_IFNAME: ifName,
                  CNI_NETNS: '/proc/self/ns/net',
                  CNI_NETNS_OVERRIDE: '1',
                  CNI_ARGS: args,
                }),
          },
          stdin: new TextEncoder().encode(stdin),
        },
        world,
        { deadline: deadlineIn(timeoutMs), signal: signal ?? new AbortController().signal, toCniError },
      )
      const stdout = new TextDecoder().decode(reply.stdout) + reply.stderr
      return {
        exitCode: reply.exitCode,
        stdout,
        json: reply.stdout.length === 0 ? {} : (JSON.parse(new TextDecoder().decode(reply.stdout)) as Printed),
      }
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

/** The address of a result, without its length. */
export const addressOf = (reply: Reply): string => reply.json.ips![0]!.address.replace(/\/\d+$/, '')

/** Every file below a directory that holds a text, as a leak of it. */
export function filesWith(directory: string, text: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map(name => join(directory, name))
    .filter(path => statSync(path).isFile() && readFileSync(path, 'latin1').includes(text))
}

/** Waits for what happens in the background. */
export async function until(condition: () => boolean | Promise<boolean>, what: string, timeoutMs = 10_000) {
  const end = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`${what} did not come true in ${timeoutMs} ms`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}
