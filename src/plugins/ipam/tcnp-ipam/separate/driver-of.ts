// SPDX-License-Identifier: Apache-2.0

import type { KnownPool, ObjectDriver } from '#allocator'
import type { CloudSession } from '#openstack'
import type { ListWorld } from '../lists.ts'
import { type PortPlace, portDriver } from './driver.ts'
import { withPairs } from './with-pairs.ts'

const drivers = new WeakMap<CloudSession, Map<string, ObjectDriver>>()

/** The driver of a pool: the same for as long as the session is, because it remembers which subnet was full. */
export function portDriverOf(
  known: Pick<KnownPool, 'detail' | 'access' | 'settings'>,
  world: ListWorld,
  session: CloudSession,
): ObjectDriver {
  const { detail } = known
  const all = drivers.get(session) ?? new Map<string, ObjectDriver>()
  drivers.set(session, all)
  const place = JSON.parse(detail) as PortPlace
  const driver = all.get(detail) ?? portDriver(session, place)
  all.set(detail, driver)
  return place.passing === undefined ? driver : withPairs(driver, place.passing, known, world)
}
