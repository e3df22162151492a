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
    // In one step: without agent another process may be about to give it to a pod.
    const idle = journal.transaction(() => {
      const others = nicPools().filter(each => each.pool !== pool)
      const found = others.flatMap(each => listLooseObjects(journal, each.pool)).find(({ state }) => state === 'free')
      if (found !== undefined) retireObject(journal, found.mark)
      return found
    })
    if (idle !== undefined) kick(idle.pool)
    return idle !== undefined
  }
  const nicPool = JSON.parse(detail) as NicPool
  const lockFile = join(dataDir, `server-${nicPool.server.id}.lock`)
  return nicDriver({ cloud, host, pool: nicPool, lockFile, known, makeRoom })
}
