// SPDX-License-Identifier: Apache-2.0

import { existsSync } from 'node:fs'
import { deadlineIn } from '#base'
import { listNetns, removeNetns } from '#host'
import { agentName, startAgent } from './agents.ts'
import { isAlive, stopAll } from './children.ts'
import type { DemoCloud } from './clouds.ts'
import { detachCompared } from './comparison.ts'
import { drain } from './journals.ts'
import { detach } from './pods.ts'
import type { Place, State } from './state.ts'

const CLOUD_MS = 60_000

/** Written into floating IPs, so that one whose id was never recorded is found. */
export const markOf = (place: Place): string => `mooring demo ${place.name}`

/** Runs every step although one fails. */
export class Steps {
  readonly faults: string[] = []

  async attempt(what: string, step: () => unknown): Promise<void> {
    try {
      await step()
    } catch (error) {
      this.faults.push(`Cannot ${what}: ${(error as Error).message}`)
    }
  }
}

/** Takes the pods off the network, and the floating IPs off them first. */
export async function detachAll(place: Place, state: State, cloud: DemoCloud, steps: Steps): Promise<void> {
  await steps.attempt('delete the floating IPs', () => deleteFloatingIps(place, state, cloud))
  const withPods = state.machines.filter(({ name }) => state.pods.some(pod => pod.machine === name))
  for (const machine of withPods)
    await steps.attempt(`start the agent of ${machine.name}`, () => reviveAgent(place, state, machine, cloud))
  // Never interrupted: what stays behind otherwise is somebody's trouble.
  const { signal } = new AbortController()
  for (const pod of state.pods) await steps.attempt(`detach ${pod.name}`, () => detach(place, pod, signal))
  for (const { name } of withPods)
    await steps.attempt(`detach what was compared on ${name}`, () => detachCompared(place, name, signal))
}

async function deleteFloatingIps(place: Place, state: State, { session }: DemoCloud): Promise<void> {
  const limits = { deadline: deadlineIn(CLOUD_MS) }
  const { floatingIps } = session.neutron
  const marked = (await floatingIps.list({ description: markOf(place) }, limits)).map(({ id }) => id)
  for (const id of new Set([...state.floatingIps, ...marked])) await floatingIps.delete(id, limits)
}

/** A pod needs its agent to be taken off the network. */
async function reviveAgent(
  place: Place,
  state: State,
  machine: State['machines'][number],
  { env }: DemoCloud,
): Promise<void> {
  const agents = state.processes.filter(({ what }) => what === agentName(machine.name))
  if (agents.some(isAlive) || !existsSync(machine.netns)) return
  const { process, ready } = startAgent(place, machine, env)
  state.processes.push(process)
  place.save(state)
  await ready(new AbortController().signal)
}

/** Ends the agents, and gives back what they made ahead of need. */
export async function stopAgents(place: Place, state: State, cloud: DemoCloud, steps: Steps): Promise<void> {
  const agents = state.processes.filter(({ what }) => state.machines.some(({ name }) => what === agentName(name)))
  await steps.attempt('stop the agents', () => stopAll(agents))
  for (const { name } of state.machines)
    await steps.attempt(`give back the reserve of ${name}`, () => drain(place, name, cloud.access))
}

/** True for what the simulator calls namespaces of its own under the demo's name; the rest is of a demo with a longer one. */
const isSimulated =
  ({ name }: Place) =>
  (netns: string): boolean =>
    /^(vm-.*|router-.*|outside|fabric)$/.test(netns.slice(name.length + 1))

/** Ends what is left of processes, namespaces and files. */
export async function removeAll(place: Place, state: State, steps: Steps): Promise<void> {
  await steps.attempt('stop the processes', () => stopAll(state.processes))
  // A simulator that was killed leaves its namespaces.
  const simulated = state.cloud === undefined ? listNetns(`${place.name}-`).filter(isSimulated(place)) : []
  const names = new Set([...state.namespaces, ...simulated])
  for (const name of names) await steps.attempt(`remove namespace ${name}`, () => removeNetns(name))
  // The directory knows what is left: it stays until nothing is.
  if (steps.faults.length === 0) await steps.attempt(`remove ${place.directory}`, () => place.remove())
}
