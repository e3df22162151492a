// SPDX-License-Identifier: Apache-2.0

import type { Journal } from './journal.ts'

// What an ADD has to know of the attachments of others, by indices of what plugins note as their traces: a thousand
// records read and parsed take 30 ms.

const ROUTING_TABLE = "json_extract(traces, '$.table')"
const hasTable = (value: string) => `SELECT 1 FROM attachment WHERE type = 'veth-host' AND ${ROUTING_TABLE} = ${value}`

/** The first number from `start` on that no attachment of veth-host has for its routing table. */
export function firstFreeRoutingTable(journal: Journal, start: number): number {
  if (journal.sql(hasTable('?')).get(start) === undefined) return start
  const row = journal
    .sql(
      `SELECT own.number + 1 AS free
       FROM (SELECT ${ROUTING_TABLE} AS number FROM attachment WHERE type = 'veth-host' AND ${ROUTING_TABLE} >= ?) AS own
       WHERE NOT EXISTS (${hasTable('own.number + 1')}) ORDER BY own.number LIMIT 1`,
    )
    .get(start)
  return row!['free'] as number
}

/** How a link of ipvlan stands on its master. */
export type IpvlanMode = { readonly master: number; readonly mode: number; readonly flags: number }

/** Other than `mode` and `flags`, as ranges, of which the index knows at once that nothing is in them. */
const others = ['mode < $mode', 'mode > $mode', 'mode = $mode AND flags < $flags', 'mode = $mode AND flags > $flags']
const columnsOf = (condition: string) => condition.replace(/(?<!\$)\b(mode|flags)\b/g, "json_extract(traces, '$.$1')")
const OTHER_MODE = others
  .map(
    condition => `SELECT network, container_id, json_extract(traces, '$.mode') AS mode,
      json_extract(traces, '$.flags') AS flags FROM attachment
      WHERE type = 'ipvlan' AND json_extract(traces, '$.master') = $master AND ${columnsOf(condition)}
        AND NOT json_extract(traces, '$.masterInPod') AND state = 'ready' AND boot_id = $bootId`,
  )
  .join(' UNION ALL ')

/** An attachment of this boot that has an ipvlan link on the same master of the node in another mode, if there is one. */
export function findOtherIpvlanMode(
  journal: Journal,
  { master, mode, flags }: IpvlanMode,
  bootId: string,
): (Omit<IpvlanMode, 'master'> & { containerId: string; network: string }) | undefined {
  const row = journal.sql(`${OTHER_MODE} LIMIT 1`).get({ master, mode, flags, bootId })
  if (row === undefined) return undefined
  return {
    network: row['network'] as string,
    containerId: row['container_id'] as string,
    mode: row['mode'] as number,
    flags: row['flags'] as number,
  }
}
