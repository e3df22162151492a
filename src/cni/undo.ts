// SPDX-License-Identifier: Apache-2.0

import { deadlineIn } from '#base'
import type { Call } from './plugin.ts'

// Undoing has time of its own, because the caller's may be over.
const undoMs = 10_000

/** The call that takes an ADD back, also where its caller went away or its time is over. */
export const undoCall = (call: Call): Call => ({
  ...call,
  command: 'DEL',
  deadline: deadlineIn(undoMs),
  signal: new AbortController().signal,
})
