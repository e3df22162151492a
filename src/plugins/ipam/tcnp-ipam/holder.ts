// SPDX-License-Identifier: Apache-2.0

import type { Limits } from '#allocator'
import { sha256Hex } from '#base'
import type { CloudSession, Port } from '#openstack'
import { findFree, withNumbers } from './separate/room.ts'

/** Whose a holder is: one per cluster, node and network. */
export type HolderOwner = { readonly cluster: string; readonly node: string; readonly networkId: string }

/** In Neutron's lists; nothing of Neutron or Nova acts on it. */
const DEVICE_OWNER = 'mooring:mix'
const MARK_DIGITS = 20
/** Neutron takes 255. */
const DESCRIPTION_MAX = 255

const nameOf = ({ cluster, node, networkId }: HolderOwner) =>
  `mooring-${sha256Hex(JSON.stringify([DEVICE_OWNER, cluster, node, networkId])).slice(0, MARK_DIGITS)}`

/**
 * The port that has the pods' addresses of a node where they are not on the node's own: made once, on no machine, without an
 * address, and found again by its name. One of several, which a lost answer can leave, is always the same.
 * @throws {OpenStackError}
 * @throws {AllocationError} `full` with the numbers of the quota
 */
export async function ensureHolder(
  { neutron, identity }: Pick<CloudSession, 'neutron' | 'identity'>,
  owner: HolderOwner,
  limits: Limits,
): Promise<Port> {
  const name = nameOf(owner)
  const find = async (within: Limits): Promise<Port | undefined> => {
    const found = await neutron.ports.list({ name, network_id: owner.networkId }, within)
    return found.toSorted((a, b) => (a.id < b.id ? -1 : 1))[0]
  }
  const there = await find(limits)
  if (there !== undefined) return there
  const body = {
    name,
    network_id: owner.networkId,
    description: `Addresses of pods: cluster ${owner.cluster}, node ${owner.node}`.slice(0, DESCRIPTION_MAX),
    device_id: owner.node,
    device_owner: DEVICE_OWNER,
    fixed_ips: [],
    security_groups: [],
  }
  return await neutron.ports.create(body, { ...limits, find }).catch(async (error: unknown) => {
    throw await withNumbers(error, () => findFree({ neutron, identity }, owner.networkId, [], limits))
  })
}
