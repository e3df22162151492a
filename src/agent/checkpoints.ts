// SPDX-License-Identifier: Apache-2.0
import { Worker } from 'node:worker_threads'
import type { Journal } from '#allocator'

const CHECKPOINT_MS = 5_000
/** Pages, as SQLite has it unless told otherwise. */
const CHECKPOINT_PAGES = 1_000
/** What a busy minute made of the log is given back to the disk down to this. */
export const LOG_BYTES = 4 * 2 ** 20

/**
 * Has a thread of its own move the journal's write-ahead log into its file: that syncs the disk, which the thread of the
 * calls must not wait for. Where that thread ends, the thread of the calls does it again, and `onError` is told.
 */
export function startCheckpoints(
  journal: Journal,
  onError: (error: Error) => void,
  everyMs = CHECKPOINT_MS,
): AsyncDisposable {
  journal.sql(`PRAGMA journal_size_limit = ${LOG_BYTES}`).get()
  journal.sql('PRAGMA wal_autocheckpoint = 0').get()
  const workerData = { path: journal.path, everyMs }
  const worker = new Worker(new URL('./checkpoint.ts', import.meta.url), { workerData })
  worker.on('error', error => {
    journal.sql(`PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`).get()
    onError(error as Error)
  })
  return { [Symbol.asyncDispose]: async () => void (await worker.terminate()) }
}
