// SPDX-License-Identifier: Apache-2.0

import { type Limits, nameOfMark, type ObjectAddress, type ObjectRequest } from '#allocator'
import { type Neutron, OpenStackError, type Port } from '#openstack'
import { descriptionOf, type OwnerMark, tagsOf } from '../separate/owner-mark.ts'
import type { Family } from '../subnets.ts'
import type { Site } from './site.ts'

/** What makes the NICs of one pool what they are. Plain JSON, for the journal. */
export type NicPool = Omit<Site, 'networks'> & {
  readonly network: { readonly id: string; readonly name: string }
  readonly families: readonly Family[]
  readonly portSecurity: boolean | undefined
  /** Stands in the description of every NIC in Neutron. */
  readonly owner: OwnerMark
  /** From Nova's answer until the kernel must have found the NIC. */
  readonly plugMs: number
}

/** What one attachment asks for beyond its pool; JSON in `ObjectRequest.special`. */
export type SpecialNic = { readonly addresses: readonly ObjectAddress[]; readonly mac: string | undefined }

/** Makes the port of a NIC, with an address of each family: of its first subnet, else of the next. */
export async function makePort(neutron: Neutron, pool: NicPool, request: ObjectRequest, limits: Limits): Promise<Port> {
  const port = await createPort(neutron, pool, request, limits)
  try {
    await neutron.ports.tags.replace(port.id, tagsOf(pool.owner), limits)
  } catch (error) {
    // The name is what this node finds it by; the tags are for whoever looks for the ports of a dead node.
    if (!(error instanceof OpenStackError)) throw error
  }
  return port
}

async function createPort(
  neutron: Neutron,
  pool: NicPool,
  { mark, owner, special }: ObjectRequest,
  limits: Limits,
): Promise<Port> {
  const name = nameOfMark(mark)
  const { addresses, mac }: SpecialNic = special === '' ? { addresses: [], mac: undefined } : JSON.parse(special)
  const find = async (within: Limits) => (await neutron.ports.list({ name }, within))[0]
  const turns = Math.max(...pool.families.map(({ subnets }) => subnets.length))
  for (let turn = 0; ; turn++) {
    const wanted = pool.families.map(({ subnets }) => {
      const named = addresses.find(({ subnetId }) => subnets.some(({ id }) => id === subnetId))
      if (named !== undefined) return { subnet_id: named.subnetId, ip_address: named.address }
      return { subnet_id: subnets[Math.min(turn, subnets.length - 1)]!.id }
    })
    try {
      return await neutron.ports.create(
        {
          name,
          description: descriptionOf(pool.owner, owner),
          network_id: pool.network.id,
          fixed_ips: wanted,
          ...(mac === undefined ? {} : { mac_address: mac }),
          ...(pool.securityGroups === undefined ? {} : { security_groups: pool.securityGroups }),
          ...(pool.portSecurity === undefined ? {} : { port_security_enabled: pool.portSecurity }),
        },
        { ...limits, find },
      )
    } catch (error) {
      const isFull = error instanceof OpenStackError && error.kind === 'exhausted'
      if (!isFull || addresses.length > 0 || turn + 1 >= turns) throw error
    }
  }
}
