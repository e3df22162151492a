// SPDX-License-Identifier: Apache-2.0

// The thread of checkpoints.ts.

import { DatabaseSync } from 'node:sqlite'
import { setInterval } from 'node:timers'
import { workerData } from 'node:worker_threads'

/** Of the log: 8 MiB. */
const PAGES_MAX = 2_000
/** So long may one transaction of the agent take, which a restart of the log waits for. */
const BUSY_MS = 1_000

const { path, everyMs } = workerData as { path: string; everyMs: number }
const db = new DatabaseSync(path)
db.exec(`PRAGMA busy_timeout = ${BUSY_MS}`)
const passive = db.prepare('PRAGMA wal_checkpoint(PASSIVE)')
setInterval(() => {
  try {
    const { log } = passive.get() as { log: number }
    // Where somebody always writes, a passive one is never done with the whole log, so that it never begins anew. What is
    // left by now is little; whoever writes waits for it.
    if (log > PAGES_MAX) db.exec('PRAGMA wal_checkpoint(RESTART)')
  } catch {
    // A full disk: what is in the log stays there, and whoever writes next to the journal says so.
  }
}, everyMs)
