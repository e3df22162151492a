// SPDX-License-Identifier: Apache-2.0

import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { deadlineIn } from '#base'
import { execPlugin } from '#cni'
import { netnsPath } from '#host'
import { agentPaths } from './agents.ts'
import type { Place } from './state.ts'
import { type Station, startStation } from './station.ts'

const LAB = resolve(import.meta.dirname, '../../lab/peers')
const ROUNDS = 10
/** Calls of each agent before, which do not count: an agent that has just started runs code for the first time. */
const FIRST_ROUNDS = 10
const CALL_MS = 30_000

/** ADD from exec to exit, medians in milliseconds. */
export type Comparison = {
  /** `veth-route` + `host-local` through the agent. */
  readonly mooringMs: number
  /** `ptp` + `host-local` of the reference plugins; undefined: not at hand. */
  readonly goMs: number | undefined
  /** A process that does nothing: what the clock itself sees. */
  readonly nothingMs: number
  readonly rounds: number
}

/** The directory of the Go plugins where they are at hand: `lab/peers setup plugins` builds them. */
export function findGoPlugins(): string | undefined {
  if (!existsSync(LAB)) return undefined
  try {
    const directory = execFileSync(LAB, ['dir'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
    return ['ptp', 'host-local'].every(each => existsSync(join(directory, each))) ? directory : undefined
  } catch {
    return undefined
  }
}

type Side = {
  readonly station: Station
  readonly type: string
  readonly directory: string
  readonly env: Record<string, string>
}

/**
 * Attaches and detaches one namespace again and again, ours and the Go plugins taking turns, both with `host-local`.
 * The first of the machines is the one that is timed; all are warm afterwards.
 * @param names of namespaces that the caller made and removes: a node for the Go plugins, and the pod
 */
export async function compare(
  place: Place,
  machines: readonly { readonly name: string; readonly station: Station }[],
  goDirectory: string | undefined,
  names: { node: string; pod: string },
  signal: AbortSignal,
): Promise<Comparison> {
  await using node = startStation(netnsPath(names.node))
  const sides = machines.map(({ name, station }): Side => {
    const { cniBin, settings } = agentPaths(place, name)
    return { station, type: 'veth-route', directory: cniBin, env: { MOORING_CONFIG: settings } }
  })
  for (const side of sides)
    for (let round = 0; round < FIRST_ROUNDS; round++) await addAndDelete(place, side, names.pod)
  const ours = sides[0]!
  const go: Side | undefined =
    goDirectory === undefined ? undefined : { station: node, type: 'ptp', directory: goDirectory, env: {} }
  const times = { ours: [] as number[], go: [] as number[], nothing: [] as number[] }
  for (let round = 0; round < ROUNDS; round++) {
    signal.throwIfAborted()
    times.ours.push(await addAndDelete(place, ours, names.pod))
    if (go !== undefined) times.go.push(await addAndDelete(place, go, names.pod))
    const order = { file: '/bin/true', env: {}, stdin: new Uint8Array(0), timeoutMs: CALL_MS }
    times.nothing.push((await node.do('run', order)).ms)
  }
  return {
    mooringMs: median(times.ours),
    goMs: go === undefined ? undefined : median(times.go),
    nothingMs: median(times.nothing),
    rounds: ROUNDS,
  }
}

/** @returns what the ADD took */
async function addAndDelete(place: Place, { station, type, directory, env }: Side, pod: string): Promise<number> {
  const call = async (command: string) => {
    const end = await station.do('run', {
      file: join(directory, type),
      env: { ...env, ...environmentOf(command, directory, pod) },
      stdin: configurationOf(place, type),
      timeoutMs: CALL_MS,
    })
    if (end.exitCode !== 0) throw new Error(`${type} + host-local failed at ${command}: ${end.stdout}${end.stderr}`)
    return end.ms
  }
  const ms = await call('ADD')
  await call('DEL')
  return ms
}

/** Takes away what a comparison that was cut short left on a machine; there may be nothing. */
export async function detachCompared(place: Place, machine: string, signal: AbortSignal): Promise<void> {
  const { cniBin, settings } = agentPaths(place, machine)
  const env = { ...environmentOf('DEL', cniBin, undefined), MOORING_CONFIG: settings }
  const options = { deadline: deadlineIn(CALL_MS), signal }
  await execPlugin(join(cniBin, 'veth-route'), env, configurationOf(place, 'veth-route'), options)
}

const environmentOf = (command: string, directory: string, pod: string | undefined) => ({
  PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
  CNI_PATH: directory,
  CNI_COMMAND: command,
  CNI_CONTAINERID: 'compared',
  CNI_IFNAME: 'eth0',
  CNI_NETNS: pod === undefined ? '' : netnsPath(pod),
})

function configurationOf(place: Place, type: string): Uint8Array {
  const dataDir = place.file('host-local')
  const ipam = { type: 'host-local', dataDir, subnet: '10.99.0.0/16', routes: [{ dst: '0.0.0.0/0' }] }
  return new TextEncoder().encode(JSON.stringify({ name: `compare-${type}`, cniVersion: '0.3.1', type, ipam }))
}

/** The middle one. */
export const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!
