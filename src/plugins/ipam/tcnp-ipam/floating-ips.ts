// SPDX-License-Identifier: Apache-2.0

import type { Limits } from '#allocator'
import { type Neutron, OpenStackError } from '#openstack'

/** Takes the floating IPs off released ports: what leads there is meant for the last owner, not for the next. */
export async function disassociateFloatingIps(
  { floatingIps }: Pick<Neutron, 'floatingIps'>,
  portIds: readonly string[],
  limits: Limits,
): Promise<void> {
  for (const id of await findFloatingIps(floatingIps, portIds, limits)) await floatingIps.disassociate(id, limits)
}

async function findFloatingIps(
  floatingIps: Neutron['floatingIps'],
  portIds: readonly string[],
  limits: Limits,
): Promise<string[]> {
  try {
    return (await floatingIps.list({ port_id: portIds }, limits)).map(({ id }) => id)
  } catch (error) {
    // A Neutron without routers has no floating IPs, and a user who may not see them cannot have made one.
    if (error instanceof OpenStackError && (error.status === 403 || error.status === 404)) return []
    throw error
  }
}
