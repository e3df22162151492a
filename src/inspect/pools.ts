// SPDX-License-Identifier: Apache-2.0

import {
  findReserveAhead,
  type Journal,
  type Limits,
  listKnownPorts,
  listObjectPools,
  type ReserveAhead,
} from '#allocator'
import type { CloudSession, Subnet, SubnetAvailability } from '#openstack'
import type { CloudSessions } from '#plugins'
import { type Lease, listLeases } from './leases.ts'

/** What can be given on this node, of one subnet of one pool. */
export type PoolReport = {
  /** The port's id, or the key of a pool whose leases are whole ports. */
  readonly pool: string
  readonly kind: string
  readonly name: string
  readonly subnet: { readonly id: string; readonly name: string | null; readonly cidr: string | null } | null
  /** Usable by a pod that comes now. */
  readonly free: number
  /** Free too, and not usable yet: made or released a moment ago. */
  readonly soon: number
  /** What is kept free, as configured or as `mooring ip reserve` asked for. */
  readonly reserve: number
  /** Until when more is kept than configured (ISO 8601). */
  readonly reserveUntil: string | null
  readonly assigned: number
  /** On their way out, or in. */
  readonly moving: number
  readonly quarantined: number
  /** Of the subnet's allocation pools in Neutron; null where it does not say. */
  readonly cloud: { readonly used: number; readonly total: number } | null
}

/** Ports of a project. `limit` -1: as many as it likes. */
export type QuotaReport = {
  readonly cloud: string
  readonly project: string
  readonly used: number
  readonly limit: number
}

type Pool = Pick<PoolReport, 'pool' | 'kind' | 'name'> & {
  readonly access: string
  readonly reserve: number
  readonly subnetIds: readonly string[]
  readonly leases: readonly Lease[]
}

function poolsOf(journal: Journal): Pool[] {
  const leases = listLeases(journal)
  const ports = listKnownPorts(journal).map(({ portId, access, settings }) => ({
    ...{ pool: portId, kind: 'address', name: `port ${portId}`, access, reserve: settings.reserve },
    subnetIds: settings.subnetIds,
    leases: leases.filter(lease => lease.kind === 'address' && lease.portId === portId && lease.state !== 'foreign'),
  }))
  const objects = listObjectPools(journal).map(({ pool, kind, access, settings }) => ({
    ...{ pool, kind, name: settings.name, access, reserve: settings.reserve },
    subnetIds: [],
    leases: leases.filter(lease => lease.pool === pool),
  }))
  return [...ports, ...objects]
}

/**
 * What is free on this node, and how much more its clouds would give.
 * @param warn told where a cloud cannot be asked: then the journal's part stands alone
 */
export async function readPools(
  journal: Journal,
  clouds: CloudSessions,
  limits: Limits,
  warn: (text: string) => void,
): Promise<{ pools: PoolReport[]; quotas: QuotaReport[] }> {
  const pools: PoolReport[] = []
  const quotas: QuotaReport[] = []
  for (const [access, own] of Map.groupBy(poolsOf(journal), each => each.access)) {
    const subnetIds = new Set(own.flatMap(subnetsOf))
    const cloud = await askCloud(await clouds.reach(access), [...subnetIds], limits).catch((error: unknown) => {
      warn(error instanceof Error ? error.message : String(error))
      return { subnets: [], availability: [], quota: undefined }
    })
    if (cloud.quota !== undefined) quotas.push(cloud.quota)
    for (const pool of own) {
      const ahead = findReserveAhead(journal, pool.pool)
      const ids = subnetsOf(pool)
      for (const id of ids.length === 0 ? [null] : ids) pools.push(reportOf(pool, id, ahead, cloud))
    }
  }
  return { pools, quotas: [...new Map(quotas.map(each => [`${each.cloud} ${each.project}`, each])).values()] }
}

/** Those that are configured, and those of which there are addresses. */
const subnetsOf = ({ subnetIds, leases }: Pool): string[] => [
  ...new Set([...subnetIds, ...leases.flatMap(({ subnetId }) => subnetId ?? [])]),
]

type CloudFacts = {
  readonly subnets: readonly Subnet[]
  readonly availability: readonly SubnetAvailability[]
  readonly quota: QuotaReport | undefined
}

async function askCloud(
  session: CloudSession | undefined,
  subnetIds: readonly string[],
  limits: Limits,
): Promise<CloudFacts> {
  if (session === undefined)
    throw new Error('The cloud was not asked: its credentials stand in no file; name the network list: --conflist FILE')
  const { neutron, identity, cloud } = session
  const subnets = subnetIds.length === 0 ? [] : await neutron.subnets.list({ id: subnetIds }, limits)
  const networks = [...new Set(subnets.map(subnet => subnet.network_id))]
  const availability = await Promise.all(networks.map(id => neutron.availability.ofNetwork(id, limits)))
  const project = await identity.projectId(limits)
  const { port } = await neutron.quotas.details(project, limits)
  const quota = port === undefined ? undefined : { cloud: cloud.name, project, used: port.used, limit: port.limit }
  return { subnets, availability: availability.flatMap(each => each ?? []), quota }
}

function reportOf(pool: Pool, subnetId: string | null, ahead: ReserveAhead | undefined, cloud: CloudFacts): PoolReport {
  const leases = pool.leases.filter(lease => subnetId === null || lease.subnetId === subnetId)
  const count = (...states: Lease['state'][]) => leases.filter(lease => states.includes(lease.state)).length
  const usable = leases.filter(
    ({ state, usableMs, floatingIp }) => state === 'free' && usableMs <= Date.now() && floatingIp === null,
  ).length
  const subnet = cloud.subnets.find(({ id }) => id === subnetId)
  const left = cloud.availability.find(each => each.subnet_id === subnetId)
  return {
    ...{ pool: pool.pool, kind: pool.kind, name: pool.name },
    subnet: subnetId === null ? null : { id: subnetId, name: subnet?.name ?? null, cidr: subnet?.cidr ?? null },
    ...{ free: usable, soon: count('free') - usable },
    reserve: Math.max(pool.reserve, ahead?.count ?? 0),
    reserveUntil: ahead !== undefined && ahead.count > pool.reserve ? new Date(ahead.untilMs).toISOString() : null,
    ...{
      assigned: count('assigned'),
      moving: count('making', 'releasing', 'removing'),
      quarantined: count('quarantined'),
    },
    cloud: left === undefined ? null : { used: left.used_ips, total: left.total_ips },
  }
}
