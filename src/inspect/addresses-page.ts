// SPDX-License-Identifier: Apache-2.0

import type { Lease } from './leases.ts'
import type { PoolReport, QuotaReport } from './pools.ts'

/** Rows below a head, in columns. */
function tableOf(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const table = [head, ...rows]
  const widths = head.map((_, column) => Math.max(...table.map(row => row[column]!.length)))
  return table.map(row =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  )
}

/** Addresses, one in a line. `noteOf`: what else the reader should know of one. */
export function formatLeases(leases: readonly Lease[], noteOf: (lease: Lease) => string | undefined): string[] {
  const rows = leases.map(lease => {
    const { address, state, kind, portId, holder, changedMs } = lease
    const owner = holder === null ? '-' : `${holder.network} ${holder.containerId} ${holder.ifName}`
    const note = noteOf(lease)
    return [
      address ?? '-',
      state,
      ageOf(changedMs),
      portId === '' ? '-' : portId,
      kind,
      holder?.pod ?? '-',
      note === undefined ? owner : `${owner} (${note})`,
    ]
  })
  return tableOf(['ADDRESS', 'STATE', 'SINCE', 'PORT', 'KIND', 'POD', 'OWNER'], rows)
}

const UNITS: readonly (readonly [suffix: string, seconds: number])[] = [
  ['d', 86_400],
  ['h', 3_600],
  ['m', 60],
]

/** How long ago, in the largest unit that fits twice: as `kubectl` writes an age. */
function ageOf(thenMs: number): string {
  const seconds = Math.max(0, Math.round((Date.now() - thenMs) / 1000))
  const unit = UNITS.find(([, length]) => seconds >= 2 * length)
  return unit === undefined ? `${seconds}s` : `${Math.floor(seconds / unit[1])}${unit[0]}`
}

/** Pools, one subnet in a line, and the quotas below. */
export function formatPools(pools: readonly PoolReport[], quotas: readonly QuotaReport[]): string[] {
  const rows = pools.map(({ name, subnet, free, soon, reserve, assigned, moving, quarantined, cloud }) => [
    name,
    subnet === null ? '-' : (subnet.cidr ?? subnet.id),
    ...[free, soon, reserve, assigned, moving, quarantined].map(String),
    cloud === null ? '-' : `${cloud.total - cloud.used} of ${cloud.total}`,
  ])
  const head = ['POOL', 'SUBNET', 'FREE', 'SOON', 'RESERVE', 'ASSIGNED', 'MOVING', 'QUARANTINED', 'LEFT IN SUBNET']
  return [
    ...tableOf(head, rows),
    ...pools.flatMap(({ name, reserve, reserveUntil }) =>
      reserveUntil === null ? [] : [`${name} keeps ${reserve} free until ${reserveUntil}`],
    ),
    ...quotas.map(({ cloud, project, used, limit }) =>
      limit < 0
        ? `project ${project} of cloud ${cloud} has ${used} ports, and no limit of them`
        : `project ${project} of cloud ${cloud} has ${used} of ${limit} ports`,
    ),
  ]
}
