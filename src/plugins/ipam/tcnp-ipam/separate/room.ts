// SPDX-License-Identifier: Apache-2.0

import { AllocationError, type Limits, type Room } from '#allocator'
import { type CloudSession, OpenStackError } from '#openstack'
import { describeSubnet, type PlaceSubnet } from '../subnets.ts'

/** Subnets with more addresses than this are not counted: it would cost more than it tells. */
const COUNTED_MAX = 4_096

/** What is free, as far as Neutron tells. */
export type FreeAddresses = {
  readonly room: Room
  /** Free addresses by subnet id; a subnet that is not counted is missing. */
  readonly bySubnet: ReadonlyMap<string, number>
}

/** How many more ports quota and subnets have room for. @param families subnets per IP version, any of which will do */
export async function findFree(
  { neutron, identity }: Pick<CloudSession, 'neutron' | 'identity'>,
  networkId: string,
  families: readonly (readonly PlaceSubnet[])[],
  limits: Limits,
): Promise<FreeAddresses> {
  const counted = families
    .flat()
    .filter(each => !each.isAutomatic && each.size !== undefined && each.size <= COUNTED_MAX)
  const [quota, ports] = await Promise.all([
    findQuota({ neutron, identity }, limits),
    counted.length === 0 ? [] : neutron.ports.list({ network_id: networkId }, limits),
  ])
  const used = new Map<string, number>()
  for (const { subnet_id } of ports.flatMap(each => each.fixed_ips)) used.set(subnet_id, (used.get(subnet_id) ?? 0) + 1)
  const bySubnet = new Map(counted.map(({ id, size }) => [id, Math.max(0, size! - (used.get(id) ?? 0))]))
  const perFamily = families.map(subnets =>
    subnets.reduce((sum, { id }) => sum + (bySubnet.get(id) ?? Number.POSITIVE_INFINITY), 0),
  )
  const left =
    quota === undefined || quota.limit < 0 ? Number.POSITIVE_INFINITY : quota.limit - quota.used - quota.reserved
  const texts = [
    quota === undefined
      ? 'the quota of ports is not shown'
      : `quota of ports: ${quota.used} of ${quota.limit < 0 ? 'any number' : quota.limit} used`,
    ...counted.map(
      subnet => `subnet ${describeSubnet(subnet)}: ${used.get(subnet.id) ?? 0} of ${subnet.size} addresses used`,
    ),
  ]
  return { room: { count: Math.max(0, Math.min(left, ...perFamily)), text: texts.join(', ') }, bySubnet }
}

/** The error of a port that could not be made, with how full quota and subnets are where it is for want of room; others as they are. */
export async function withNumbers(error: unknown, find: () => Promise<FreeAddresses>): Promise<unknown> {
  if (!(error instanceof OpenStackError) || (error.kind !== 'quota' && error.kind !== 'exhausted')) return error
  const found = await find().catch(() => undefined)
  if (found === undefined) return error
  const { summary, remedy } = error
  return new AllocationError('full', `${summary}; ${found.room.text}`, { remedy, cause: error })
}

/** Undefined where this user may not see it, or this Neutron does not tell. */
async function findQuota({ neutron, identity }: Pick<CloudSession, 'neutron' | 'identity'>, limits: Limits) {
  try {
    return (await neutron.quotas.details(await identity.projectId(limits), limits))['port']
  } catch (error) {
    if (error instanceof OpenStackError && (error.kind === 'auth' || error.kind === 'missing')) return undefined
    throw error
  }
}
