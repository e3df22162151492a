// SPDX-License-Identifier: Apache-2.0

import { getSystemErrorMessage, getSystemErrorName } from 'node:util'

/** A system call that the kernel refused. `errno` is positive, as in errno(3). */
export class SystemError extends Error {
  override readonly name = 'SystemError'
  readonly errno: number
  readonly code: string
  readonly syscall: string

  constructor(syscall: string, errno: number, action: string) {
    super(`Cannot ${action}: ${describeErrno(errno)}`)
    this.errno = errno
    this.code = errnoName(errno)
    this.syscall = syscall
  }
}

/** errno(3) numbers that code branches on; the same on x86-64 and arm64 (asm-generic/errno.h). */
export const EPERM = 1
export const ENOENT = 2
export const ESRCH = 3
export const EINTR = 4
export const EAGAIN = 11
export const ENOMEM = 12
export const EBUSY = 16
export const EEXIST = 17
export const ENODEV = 19
export const EINVAL = 22
export const EMSGSIZE = 90
export const EOPNOTSUPP = 95
export const EADDRINUSE = 98
export const EADDRNOTAVAIL = 99
export const ENETUNREACH = 101
export const ENOBUFS = 105
export const ETIMEDOUT = 110
export const EHOSTUNREACH = 113

/** `EEXIST` for 17; libuv does not know all of the kernel's numbers, those stay numbers. */
export function errnoName(errno: number): string {
  // libuv has the number under its other name, ENOTSUP, which no tool of this field prints.
  if (errno === EOPNOTSUPP) return 'EOPNOTSUPP'
  const name = getSystemErrorName(-errno)
  return name.startsWith('Unknown') ? `errno ${errno}` : name
}

/** `file already exists (EEXIST)`. */
export function describeErrno(errno: number): string {
  const name = errnoName(errno)
  return name.startsWith('errno') ? name : `${getSystemErrorMessage(-errno)} (${name})`
}
