// SPDX-License-Identifier: Apache-2.0

import type { AddressOwner, Limits } from '#allocator'
import type { Neutron, Port } from '#openstack'

/** Whose the ports are: what is written into each of them, beside the mark in its name. */
export type OwnerMark = { readonly cluster: string; readonly node: string }

const DEVICE_OWNER_PREFIX = 'mooring:'
const DESCRIPTION_MAX = 255

/** `device_owner` of the ports that a mode makes. Neutron keeps `network:` and `compute:` for itself. */
export const deviceOwnerOf = (mode: string): string => `${DEVICE_OWNER_PREFIX}${mode}`

/** The tags of a port: what does not change while it lives. */
export const tagsOf = ({ cluster, node }: OwnerMark): string[] => [
  'mooring',
  `mooring:cluster=${cluster}`,
  `mooring:node=${node}`,
]

/** The description of a port, of an attachment or of nobody. */
export function descriptionOf({ cluster, node }: OwnerMark, owner: AddressOwner | undefined): string {
  const fixed = `mooring cluster=${cluster} node=${node}`
  const whole =
    owner === undefined
      ? fixed
      : `${fixed} container=${owner.containerId} interface=${owner.ifName} network=${owner.network}`
  return whole.slice(0, DESCRIPTION_MAX)
}

/** What a description says, undefined for one that is not ours. */
export function readDescription(text: string): Partial<OwnerMark & AddressOwner> | undefined {
  if (!text.startsWith('mooring ')) return undefined
  const said = new Map([...text.matchAll(/(\w+)=(\S*)/g)].map(([, key, value]) => [key!, value!]))
  const pairs = { cluster: 'cluster', node: 'node', containerId: 'container', ifName: 'interface', network: 'network' }
  return Object.fromEntries(
    Object.entries(pairs).flatMap(([name, key]) => (said.has(key) ? [[name, said.get(key)!]] : [])),
  )
}

/**
 * Every port that a node of a cluster made, by its owner mark in Neutron, whatever any journal says: how the ports of a node
 * that is dead are found.
 * @throws {OpenStackError}
 */
export async function listOwnedPorts(
  neutron: Pick<Neutron, 'ports'>,
  owner: OwnerMark,
  modes: readonly string[],
  limits: Limits,
): Promise<Port[]> {
  const { cluster, node } = owner
  // A NIC has the device that Nova gave it, or none once its server is deleted.
  const [byDevice, nics] = await Promise.all([
    neutron.ports.list({ device_owner: modes.map(deviceOwnerOf), device_id: node }, limits),
    modes.includes('eni') ? neutron.ports.list({ tags: tagsOf(owner) }, limits) : [],
  ])
  const found = [...new Map([...byDevice, ...nics].map(port => [port.id, port])).values()]
  return found.filter(({ description }) => readDescription(description ?? '')?.cluster === cluster)
}
