// SPDX-License-Identifier: Apache-2.0

import { deadlineIn } from '#base'
import { containerIdOf } from '#cnitool'
import type { DemoCloud } from './clouds.ts'
import { readJournal } from './journals.ts'
import type { Place, State } from './state.ts'
import type { Machine } from './topology.ts'

const CLOUD_MS = 30_000

/** The kernels of the machines at one moment. */
export type Kernels = ReadonlyMap<string, readonly string[]>

export const readKernels = async (machines: readonly Machine[]): Promise<Kernels> =>
  new Map(await Promise.all(machines.map(async ({ name, station }) => [name, await station.do('kernel', {})] as const)))

/**
 * The next hop of all pods is made once and kept: 169.254.1.1 on dummy0, or on lo where the kernel has no dummy. And the
 * kernel gives link-local addresses when it likes; those of a link that is left show by the link.
 */
const isKept = (line: string) => /\bdummy0\b|\b169\.254\.1\.1\b| fe80::/.test(line)

/**
 * What is in the kernels and was not before. Where others use the machines too, only what mentions a pod of this demo, its
 * addresses or its links counts.
 */
export function kernelLeftovers(
  state: State,
  { before, during, after }: { before: Kernels; during: Kernels; after: Kernels },
  addresses: readonly string[],
): string[] {
  const added = (kernels: Kernels, machine: string) => {
    const old = new Set(before.get(machine))
    return (kernels.get(machine) ?? []).filter(line => !old.has(line) && !isKept(line))
  }
  return [...after.keys()].flatMap(machine => {
    const containers = state.pods.map(({ netns }) => containerIdOf(netns))
    const links = added(during, machine)
      .filter(line => containers.some(each => line.includes(each)))
      .map(line => line.split(' ')[1]!)
    const words = new Set([...containers, ...links, ...addresses])
    const isOurs = (line: string) => line.split(/[ /()]/).some(word => words.has(word))
    return added(after, machine)
      .filter(line => state.cloud === undefined || isOurs(line))
      .map(line => `${machine}, kernel: ${line}`)
  })
}

/** What the journals know. */
export const journalLeftovers = (place: Place, machines: readonly Machine[]): string[] =>
  machines.flatMap(({ name }) => readJournal(place, name).map(line => `${name}, journal: ${line}`))

/** Addresses and floating IPs that Neutron still has. */
export async function neutronLeftovers(
  { session }: DemoCloud,
  machines: readonly Machine[],
  { addresses, floatingIps }: { addresses: readonly string[]; floatingIps: readonly string[] },
): Promise<string[]> {
  const limits = { deadline: deadlineIn(CLOUD_MS) }
  const ports = await Promise.all(machines.map(({ portId }) => session.neutron.ports.get(portId, limits)))
  const floating = await Promise.all(floatingIps.map(id => session.neutron.floatingIps.get(id, limits)))
  return [
    ...ports.flatMap(port =>
      (port?.fixed_ips ?? [])
        .filter(({ ip_address }) => addresses.includes(ip_address))
        .map(({ ip_address }) => `Neutron: ${ip_address} on port ${port!.id}`),
    ),
    ...floating.flatMap(each => (each === undefined ? [] : [`Neutron: floating IP ${each.floating_ip_address}`])),
  ]
}
