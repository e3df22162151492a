// SPDX-License-Identifier: Apache-2.0

// What an operator does by hand to what carries the pods' addresses.

import { setTimeout as sleep } from 'node:timers/promises'
import { deadlineIn } from '#base'
import { find, type Simulator } from '#simulator'
import type { HandDoes } from './schedule.ts'
import type { World } from './world.ts'

/** Of what is an operator's own. */
export type EditByHand = (world: World, does: HandDoes) => Promise<void>

/** The node's own address, which was there first. */
export const NODE_ADDRESS = '10.10.10.11'

/** Addresses of the node's port. */
export async function editAddresses(world: World, does: HandDoes): Promise<void> {
  const { operator, simulator, foreign, taken } = world
  const [port] = simulator.demo().servers['worker-1']!.ports
  const { subnet_id } = simulator.demo()
  const running = [...world.pods.values()].flatMap(pod => pod.addresses ?? [])
  const changed = new Set(port!.ips)
  if (does === 'add') changed.add(`10.10.10.${200 + foreign.size + world.boots}`)
  const gone = does === 'remove' ? [...foreign][0] : does === 'take' ? running[0] : undefined
  if (gone !== undefined) changed.delete(gone)
  const limits = { deadline: deadlineIn(5_000), ifRevision: find(simulator.state, 'ports', port!.id)!.revision_number }
  try {
    const fixed_ips = [...changed].map(ip_address => ({ subnet_id, ip_address }))
    await operator.neutron.ports.update(port!.id, { fixed_ips }, limits)
  } catch {
    return // a fault that was meant for us, and nothing was done
  }
  if (does === 'take' && gone !== undefined) taken.add(gone)
  foreign.clear()
  for (const address of changed) if (isHandmade(address)) foreign.add(address)
}

const isHandmade = (address: string) => address !== NODE_ADDRESS && Number(address.split('.')[3]) >= 200

/** NICs of the node's server: his own, which nobody else may use, and which count. */
export async function editNics({ operator, simulator, foreign }: World, does: HandDoes): Promise<void> {
  const { id } = simulator.demo().servers['worker-1']!
  const { network_id: net_id } = simulator.demo()
  const limits = { deadline: deadlineIn(5_000) }
  const own = () =>
    simulator.demo().servers['worker-1']!.ports.filter((nic, at) => at > 0 && !isOurs(simulator, nic.id))
  try {
    const [nic] = own()
    if (does === 'add') await operator.nova.interfaces.attach(id, { net_id }, limits)
    else if (does === 'remove' && nic !== undefined) await operator.nova.interfaces.detach(id, nic.id, limits)
  } catch {
    // The fault was met, and what was asked for may be done nevertheless.
  }
  await sleep(DETACH_MS)
  foreign.clear()
  for (const address of own().flatMap(nic => nic.ips)) foreign.add(address)
}

const isOurs = (simulator: Simulator, portId: string) =>
  find(simulator.state, 'ports', portId)!.name.startsWith('mooring-')

/** From Nova's answer until a NIC is out of the server. */
const DETACH_MS = 100
