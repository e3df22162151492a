// SPDX-License-Identifier: Apache-2.0

// What an operator does by hand to what carries the pods' addresses.

import { deadlineIn } from '#base'
import { find } from '#simulator'
import type { HandDoes } from './schedule.ts'
import type { World } from './world.ts'

/** Of addresses of an operator's own. A fault that was meant for us may meet it: then nothing was done. */
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
    return // a fault that was meant for us
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
  const own = [...foreign][0]
  try {
    if (does === 'add') {
      const made = await operator.nova.interfaces.attach(id, { net_id }, limits)
      for (const { ip_address } of made.fixed_ips) foreign.add(ip_address)
    } else if (does === 'remove' && own !== undefined) {
      const nics = await operator.nova.interfaces.list(id, limits)
      const nic = nics.find(each => each.fixed_ips.some(({ ip_address }) => ip_address === own))
      await operator.nova.interfaces.detach(id, nic!.port_id, limits)
      await operator.nova.interfaces.waitUntilDetached(id, nic!.port_id, limits)
      foreign.delete(own)
    }
  } catch {}
}
