// SPDX-License-Identifier: Apache-2.0

import { findKnownPort, findObjectPool, type Limits } from '#allocator'
import { KIND as ADOPTED } from './adopted/driver.ts'
import { type ObjectWorld, objectPoolFor } from './object-pools.ts'
import { poolFor } from './ports.ts'

/** False for a pool whose objects others make: none can be made ahead. */
export const canReserve = (kind: string): boolean => kind !== ADOPTED

/**
 * Brings a pool in the cloud and the journal together for an operator, as the agent would: under the pool's lock, so beside the
 * agent too.
 *
 * @param name a port's id, or the key of a pool whose leases are whole objects
 * @returns why the reserve could not be filled, where that is known
 * @throws {CniError} where nobody brought its cloud's credentials @throws {OpenStackError} @throws {AllocationError}
 */
export async function settleByHand(world: ObjectWorld, name: string, limits: Limits): Promise<Error | undefined> {
  // As one who stays: one who does not would give the agent's reserve back.
  const staying = { ...world, longLived: true }
  const port = findKnownPort(world.journal, name)
  if (port !== undefined) {
    const pool = poolFor(staying, port)
    try {
      return (await pool.settle(limits))?.refillFailed
    } finally {
      await pool.close()
    }
  }
  const known = findObjectPool(world.journal, name)
  if (known === undefined) return undefined
  const pool = objectPoolFor(staying, known)
  try {
    await pool.settle(limits)
  } finally {
    await pool.close()
  }
  return undefined
}
