// SPDX-License-Identifier: Apache-2.0

import { join } from 'node:path'
import {
  type CloudObject,
  type KnownPool,
  listLooseObjects,
  listObjectPools,
  listObjects,
  type ObjectDriver,
  retireObject,
} from '#allocator'
import type { CloudSession } from '#openstack'
import type { World } from '../../../world.ts'
import { nicDriver } from './driver.ts'
import type { NicPool } from './port.ts'

export const ENI = 'eni'

/** The driver of a pool of NICs, from what the journal keeps of the pool. */
export function nicDriverOf(
  { pool, detail }: Pick<KnownPool, 'pool' | 'detail'>,
  { journal, host, dataDir }: Pick<World, 'journal' | 'host' | 'dataDir'>,
  cloud: CloudSession,
  kick: (pool: string) => void,
): ObjectDriver {
  const nicPools = () => listObjectPools(journal).filter(({ kind }) => kind === ENI)
  const known = (): CloudObject[] => nicPools().flatMap(each => listObjects(journal, each.pool))

  /** The slots are the server's: a NIC that waits for pods of one network keeps them from those of another. */
  function makeRoom(): boolean {
    const others = nicPools().filter(each => each.pool !== pool)
    const idle = others.flatMap(each => listLooseObjects(journal, each.pool)).find(({ state }) => state === 'free')
    if (idle === undefined) return false
    retireObject(journal, idle.mark)
    kick(idle.pool)
    return true
  }
  const nicPool = JSON.parse(detail) as NicPool
  const lockFile = join(dataDir, `server-${nicPool.server.id}.lock`)
  return nicDriver({ cloud, host, pool: nicPool, lockFile, known, makeRoom })
}
