// SPDX-License-Identifier: Apache-2.0

import type { Logger } from 'pino'
import { type Level, levelNames } from '#openstack'
import type { CloudSessions } from '#plugins'

const SERVICES = ['network', 'compute'] as const
const LOOK_MS = 1_000

/** Says when a cloud is served from what the node holds, or without deletes, and when that is over. */
export function watchLevels(clouds: CloudSessions, logger: Logger): Disposable {
  const told = new Map<string, Level>()
  const look = () => {
    for (const session of clouds.list())
      for (const service of SERVICES) {
        const { level, reason } = session.health(service)
        const key = `${session.cloud.name} ${session.cloud.authUrl} ${service}`
        if (level === (told.get(key) ?? 'normal')) continue
        told.set(key, level)
        const fields = { cloud: session.cloud.name, service, level: levelNames[level], reason }
        if (level === 'normal') logger.info(fields, 'cloud serves again')
        else logger.warn(fields, 'cloud is sick')
      }
  }
  const timer = setInterval(look, LOOK_MS).unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}
