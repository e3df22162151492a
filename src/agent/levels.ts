// SPDX-License-Identifier: Apache-2.0

import type { Logger } from 'pino'
import { type Health, type Level, levelNames } from '#openstack'
import type { CloudSessions } from '#plugins'

const SERVICES = ['network', 'compute'] as const
const LOOK_MS = 1_000
/** The better ones first. */
const LEVELS: readonly Level[] = ['normal', 'allocate-only', 'serve-held']

/** Says when a cloud is served from what the node holds, or without deletes, and when that is over. */
export function watchLevels(clouds: CloudSessions, logger: Logger): Disposable {
  const told = new Map<string, Level>()
  const look = () => {
    // One cloud has several sessions where several users ask, and for a while after its credentials changed.
    const byCloud = Map.groupBy(clouds.list(), ({ cloud }) => `${cloud.name} ${cloud.authUrl}`)
    for (const [name, sessions] of byCloud)
      for (const service of SERVICES) {
        const { level, reason } = worstOf(sessions.map(session => session.health(service)))
        const key = `${name} ${service}`
        if (level === (told.get(key) ?? 'normal')) continue
        told.set(key, level)
        const fields = { cloud: sessions[0]!.cloud.name, service, level: levelNames[level], reason }
        if (level === 'normal') logger.info(fields, 'cloud serves again')
        else logger.warn(fields, 'cloud is sick')
      }
  }
  const timer = setInterval(look, LOOK_MS).unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

const worstOf = (healths: readonly Health[]): Health =>
  healths.reduce((worst, each) => (LEVELS.indexOf(each.level) > LEVELS.indexOf(worst.level) ? each : worst))
