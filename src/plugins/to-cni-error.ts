// SPDX-License-Identifier: Apache-2.0

import { JournalError } from '#allocator'
import { CniError, codes, toCniError as fromSystem } from '#cni'
import { EAGAIN, EBUSY, EINTR, ENOBUFS, ENOMEM, EOPNOTSUPP, EPERM, ETIMEDOUT } from '#libc'
import { NetlinkError } from '#netlink'
import { OpenStackError } from '#openstack'
import { fromOpenStack } from './ipam/tcnp-ipam/to-cni-error.ts'

const passing: readonly number[] = [EAGAIN, EBUSY, EINTR, ENOBUFS, ENOMEM, ETIMEDOUT]
const remedies: Readonly<Record<number, string>> = {
  [EPERM]: 'run as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN',
  [EOPNOTSUPP]:
    'this kernel lacks the kind of link or table; see which modules it needs in the reference page of the plugin',
}

/** The error that leaves a plugin, for whatever a room threw. */
export function toCniError(error: unknown): CniError {
  if (error instanceof NetlinkError)
    return new CniError(passing.includes(error.errno) ? codes.tryAgainLater : codes.kernel, error.message, {
      details: remedies[error.errno],
      cause: error,
    })
  if (error instanceof JournalError || isSqliteError(error))
    return new CniError(codes.io, error.message, {
      details: 'see that the data directory is writable and has space left',
      cause: error,
    })
  if (error instanceof OpenStackError) return fromOpenStack(error)
  return fromSystem(error, toCniError)
}

// node:sqlite has no class of its own for it.
const isSqliteError = (error: unknown): error is Error =>
  error instanceof Error && (error as NodeJS.ErrnoException).code === 'ERR_SQLITE_ERROR'
