// SPDX-License-Identifier: Apache-2.0

import { type KnownPool, type ObjectDriver, poolDigitsOf } from '#allocator'
import type { CloudSession } from '#openstack'
import type { ListWorld } from '../lists.ts'
import { type Passing, withPairs } from '../separate/with-pairs.ts'
import { adoptedDriver } from './driver.ts'

/** The driver of a pool of ports that exist, from what the journal keeps of it: where the addresses pass, if anywhere. */
export function adoptedDriverOf(
  known: Pick<KnownPool, 'pool' | 'detail' | 'access' | 'settings'>,
  world: ListWorld,
  session: CloudSession,
): ObjectDriver {
  const driver = adoptedDriver(session)
  if (known.detail === '') return driver
  const digits = poolDigitsOf(known.pool)
  // Those that other nodes have taken pass there.
  const list: ObjectDriver['list'] = async limits =>
    (await driver.list(limits)).filter(each => each.mark.startsWith(digits))
  return withPairs({ ...driver, list }, JSON.parse(known.detail) as Passing, known, world)
}
