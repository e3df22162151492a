// SPDX-License-Identifier: Apache-2.0

import { codes } from './codes.ts'
import { CniError } from './error.ts'
import { systemErrorOf } from './system-error.ts'

// What passes by itself: the runtime may call again with the same values.
const passing = new Set([
  'EAGAIN',
  'EBUSY',
  'ECONNREFUSED',
  'ECONNRESET',
  'EINTR',
  'EMFILE',
  'ENFILE',
  'ENOBUFS',
  'ENOMEM',
  'EPIPE',
  'ETIMEDOUT',
  'ETXTBSY',
])

const remedies = new Map([
  ['ENOSPC', 'free space on the file system of the path, then call again'],
  ['EDQUOT', 'raise the quota or free space, then call again'],
  ['EROFS', 'the file system is mounted read-only'],
  ['EACCES', 'run as root'],
  ['EPERM', 'run as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN'],
  ['EMFILE', 'too many descriptors are open in this process; raise its limit (ulimit -n)'],
])

/**
 * The error that leaves a plugin, for what the rooms up to this one throw. A room that knows more errors looks at those
 * first and hands the rest on to this.
 */
export function toCniError(error: unknown, refine: (error: unknown) => CniError = toCniError): CniError {
  if (error instanceof CniError) return error
  if (error instanceof SuppressedError) return withUndoFailure(refine(error.suppressed), refine(error.error))
  if (error instanceof AggregateError && error.errors.length > 0) return refine(error.errors[0])
  const system = systemErrorOf(error)
  if (system !== undefined)
    return new CniError(passing.has(system.code) ? codes.tryAgainLater : codes.io, system.message, {
      details: remedies.get(system.code),
      cause: error,
    })
  if (error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError'))
    return new CniError(codes.tryAgainLater, `The call was stopped before it was done: ${error.message}`, {
      cause: error,
    })
  return new CniError(codes.internal, error instanceof Error ? error.message : String(error), {
    details: 'this is a fault in Mooring: please report it with the output on standard error',
    cause: error,
  })
}

// The cause of the failure counts; that something may be left behind is said beside it.
function withUndoFailure(cause: CniError, undo: CniError): CniError {
  const note = `undoing what was done failed too: ${undo.message}`
  return new CniError(cause.code, cause.message, {
    details: cause.details === undefined ? note : `${cause.details}; ${note}`,
    cause,
  })
}
