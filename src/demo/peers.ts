// SPDX-License-Identifier: Apache-2.0

import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { netnsPath } from './named-netns.ts'
import type { Place } from './state.ts'
import { startStation } from './station.ts'

const LAB = resolve(import.meta.dirname, '../../lab/peers')
const ROUNDS = 5
const CALL_MS = 30_000

/** Go's `ptp` with `host-local`, and a process that does nothing, both from exec to exit; medians in milliseconds. */
export type Peers = { readonly addMs: number; readonly nothingMs: number; readonly rounds: number }

/** The directory of the Go plugins where they are at hand: `lab/peers setup plugins` builds them. */
export function findPeers(): string | undefined {
  if (!existsSync(LAB)) return undefined
  try {
    const directory = execFileSync(LAB, ['dir'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
    return ['ptp', 'host-local'].every(each => existsSync(join(directory, each))) ? directory : undefined
  } catch {
    return undefined
  }
}

/**
 * Attaches and detaches one namespace a few times by the Go plugins, in two namespaces of their own.
 * @param names of the two namespaces, which the caller made and removes
 */
export async function measurePeers(
  place: Place,
  directory: string,
  names: { node: string; pod: string },
): Promise<Peers> {
  await using node = startStation(netnsPath(names.node))
  const stdin = new TextEncoder().encode(
    JSON.stringify({
      name: 'peers',
      cniVersion: '0.3.1',
      type: 'ptp',
      ipam: {
        type: 'host-local',
        dataDir: place.file('peers'),
        subnet: '10.99.0.0/16',
        routes: [{ dst: '0.0.0.0/0' }],
      },
    }),
  )
  const call = async (command: string) => {
    const env = {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      CNI_PATH: directory,
      CNI_COMMAND: command,
      CNI_CONTAINERID: 'peers',
      CNI_IFNAME: 'eth0',
      CNI_NETNS: netnsPath(names.pod),
    }
    const end = await node.do('run', { file: join(directory, 'ptp'), env, stdin, timeoutMs: CALL_MS })
    if (end.exitCode !== 0) throw new Error(`Go's ptp failed at ${command}: ${end.stdout}${end.stderr}`)
    return end.ms
  }
  const adds: number[] = []
  const nothing: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    adds.push(await call('ADD'))
    await call('DEL')
    nothing.push(
      (await node.do('run', { file: '/bin/true', env: {}, stdin: new Uint8Array(0), timeoutMs: CALL_MS })).ms,
    )
  }
  return { addMs: median(adds), nothingMs: median(nothing), rounds: ROUNDS }
}

/** The middle one. */
export const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!
