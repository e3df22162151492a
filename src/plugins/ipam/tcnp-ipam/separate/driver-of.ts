// SPDX-License-Identifier: Apache-2.0

import type { KnownPool, ObjectDriver } from '#allocator'
import type { CloudSession } from '#openstack'
import { type PortPlace, portDriver } from './driver.ts'

const drivers = new WeakMap<CloudSession, Map<string, ObjectDriver>>()

/** The driver of a pool: the same for as long as the session is, because it remembers which subnet was full. */
export function portDriverOf({ detail }: Pick<KnownPool, 'detail'>, session: CloudSession): ObjectDriver {
  const all = drivers.get(session) ?? new Map<string, ObjectDriver>()
  drivers.set(session, all)
  const driver = all.get(detail) ?? portDriver(session, JSON.parse(detail) as PortPlace)
  all.set(detail, driver)
  return driver
}
