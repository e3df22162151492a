// SPDX-License-Identifier: Apache-2.0

// The thread that moves the journal's write-ahead log into its file: a checkpoint syncs the disk, which the thread of
// the calls must not wait for.

import { DatabaseSync } from 'node:sqlite'
import { setInterval } from 'node:timers'
import { workerData } from 'node:worker_threads'

const CHECKPOINT_MS = 5_000
const { path } = workerData as { path: string }
const db = new DatabaseSync(path)
setInterval(() => {
  try {
    db.exec('PRAGMA wal_checkpoint(PASSIVE)')
  } catch {
    // A full disk: what is in the log stays there, and whoever writes next to the journal says so.
  }
}, CHECKPOINT_MS)
