// SPDX-License-Identifier: Apache-2.0

import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Journal } from './journal.ts'
import type { Owner } from './port/plan.ts'

/** A lease's, or a wait's, by the columns that name its owner. Binds `ownerKey`. */
export const OWNER = 'network = ? AND container_id = ? AND if_name = ?'
export const ownerKey = ({ network, containerId, ifName }: Owner) => [network, containerId, ifName] as const

/** A call that comes meanwhile waits for so many: 1 ms to look at, 10 ms where all of them are released. */
const OWNERS_MAX = 200

type ContainerInterface = Pick<Owner, 'containerId' | 'ifName'>

/** Everybody who has a lease, some at a time, each once; between two groups other calls are served, and may change what follows. */
export async function* listOwners(
  journal: Journal,
  table: 'port_address' | 'object',
): AsyncGenerator<ContainerInterface[]> {
  let last: ContainerInterface = { containerId: '', ifName: '' }
  for (;;) {
    // What is nobody's has the empty name. Answered by the index of owners alone.
    const owners = journal
      .sql(
        `SELECT DISTINCT container_id AS containerId, if_name AS ifName FROM ${table}
         WHERE (container_id, if_name) > (?, ?) ORDER BY container_id, if_name LIMIT ${OWNERS_MAX}`,
      )
      .all(last.containerId, last.ifName) as ContainerInterface[]
    yield owners
    if (owners.length < OWNERS_MAX) return
    last = owners.at(-1)!
    await nextTurn()
  }
}
