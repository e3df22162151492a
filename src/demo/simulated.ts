// SPDX-License-Identifier: Apache-2.0

import { existsSync, mkdirSync } from 'node:fs'
import { netnsPath } from '#host'
import { startCommand, waitReady } from './children.ts'
import { simulatorClouds } from './clouds.ts'
import type { Stage } from './demo.ts'
import type { TopologyOptions } from './topology.ts'

const READY_MS = 20_000

/** Starts the simulated OpenStack with its data plane: two servers, a router and a host outside. */
export async function startSimulated({ place, state, say, signal }: Stage): Promise<TopologyOptions> {
  say('starting the simulated OpenStack and its data plane')
  mkdirSync(place.file('simulator'), { recursive: true, mode: 0o700 })
  const log = place.file('simulator', 'log')
  const clouds = simulatorClouds(place)
  const ids = place.file('simulator', 'demo.json')
  state.cloudsFile = clouds
  const args = ['simulator', '--dataplane', place.name, '--clouds-yaml', clouds, '--demo-json', ids]
  const process = startCommand('the simulated OpenStack', args, log)
  state.processes.push(process)
  place.save(state)
  await waitReady(process, () => existsSync(ids), { log, timeoutMs: READY_MS, signal })
  return {
    netnsOf: server => netnsPath(`${place.name}-vm-${server}`),
    outsideNetns: netnsPath(`${place.name}-outside`),
  }
}
