// SPDX-License-Identifier: Apache-2.0

import type { Journal } from './journal.ts'

/** What a node holds and what waits, counted; for those who watch it. */
export type Census = {
  /** Addresses of Neutron ports, by port, subnet and state. */
  readonly addresses: readonly { port: string; subnet: string; state: string; count: number }[]
  /** Leases that are whole objects of the cloud, by pool and state. */
  readonly objects: readonly { pool: string; state: string; count: number }[]
  readonly attachments: readonly { state: string; count: number }[]
  /** When (ms since 1970) what has been released for the longest time, and is in the cloud still, was released. */
  readonly oldestReleaseMs: number | undefined
}

/** Counts what the journal holds. */
export function takeCensus(journal: Journal): Census {
  const addresses = journal.sql(
    'SELECT port_id AS port, subnet_id AS subnet, state, count(*) AS count FROM port_address GROUP BY 1, 2, 3',
  )
  const objects = journal.sql('SELECT pool, state, count(*) AS count FROM object GROUP BY 1, 2')
  const attachments = journal.sql('SELECT state, count(*) AS count FROM attachment GROUP BY 1')
  const oldest = journal.sql(
    `SELECT min(changed_ms) AS ms FROM (
       SELECT changed_ms FROM port_address WHERE state = 'releasing'
       UNION ALL SELECT changed_ms FROM object WHERE state IN ('releasing', 'removing'))`,
  )
  return {
    addresses: addresses.all() as unknown as Census['addresses'],
    objects: objects.all() as unknown as Census['objects'],
    attachments: attachments.all() as unknown as Census['attachments'],
    oldestReleaseMs: (oldest.get() as { ms: number | null }).ms ?? undefined,
  }
}
