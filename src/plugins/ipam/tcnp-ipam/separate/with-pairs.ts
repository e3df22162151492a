// SPDX-License-Identifier: Apache-2.0

import { AllocationError, type KnownPool, type Limits, type MadeObject, type ObjectDriver } from '#allocator'
import type { Neutron } from '#openstack'
import type { Config } from '../config.ts'
import { type ListWorld, listFor } from '../lists.ts'
import { findUncovered } from '../uncovered.ts'

/** The port of the node, where the addresses of pods pass by address pairs. JSON: the journal keeps it. */
export type Passing = { readonly portId: string; readonly pairsMax: number; readonly verifyAfterMs: number }

/** True where the addresses of pods pass at the node's own port. */
export const isPassing = ({ neutronConf }: Config): boolean => neutronConf.binding === 'allowed_address_pairs'

/** Which addresses have no pair at the node's port, in words. */
export async function findNotPassing(
  neutron: Neutron,
  passing: Passing | undefined,
  addresses: readonly string[],
  limits: Limits,
): Promise<string[]> {
  if (passing === undefined) return []
  const at = { hostPortId: passing.portId, route: undefined }
  return (await Promise.all(addresses.map(address => findUncovered(neutron, at, address, limits)))).flat()
}

/** Makes a driver's objects pass at the node's own port: each has its address pairs there for as long as it exists. */
export function withPairs(
  driver: ObjectDriver,
  { portId, pairsMax, verifyAfterMs }: Passing,
  { access, settings: { lockDirectory } }: Pick<KnownPool, 'access' | 'settings'>,
  world: ListWorld,
): ObjectDriver {
  const { longLived } = world
  const pairs = listFor(world, {
    kind: 'pairs',
    objectId: portId,
    access,
    settings: { entriesMax: pairsMax, verifyAfterMs, lockDirectory },
  })
  const addressesOf = (made: MadeObject) => made.addresses.map(each => each.address)

  return {
    ...driver,
    async create(requests, limits) {
      const made = await driver.create(requests, limits)
      // All at once: those that come together are one write of the port.
      const answers = await Promise.allSettled(made.map(each => pairs.need(each.mark, addressesOf(each), limits)))
      const failure = answers.find(each => each.status === 'rejected')
      if (failure === undefined) return made
      // All or nothing: a port whose address is dropped on its way is worth nothing.
      for (const each of made) {
        pairs.release(each.mark)
        await driver.remove({ id: each.id, mark: each.mark }, limits)
      }
      throw failure.reason
    },
    async list(limits) {
      const shown = await driver.list(limits)
      return await Promise.all(
        shown.map(async each => {
          try {
            await pairs.need(each.mark, addressesOf(each), limits)
            return each
          } catch (error) {
            if (!(error instanceof AllocationError) || error.fault !== 'full') throw error
            return { ...each, flaw: error.message }
          }
        }),
      )
    },
    async remove(object, limits) {
      pairs.release(object.mark)
      await driver.remove(object, limits)
      // Nobody does it later.
      if (!longLived) await pairs.settle(limits)
    },
  }
}
