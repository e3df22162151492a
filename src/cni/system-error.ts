// SPDX-License-Identifier: Apache-2.0

import { getSystemErrorMessage } from 'node:util'

/** What the kernel answered to a system call of Node's: `code` is ENOENT and the like, `text` for people, with the code. */
export type SystemError = { readonly code: string; readonly text: string; readonly message: string }

/** The facts of an error that Node made of an errno; undefined for any other. */
export function systemErrorOf(error: unknown): SystemError | undefined {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return undefined
  const { code, message } = error
  if (!('errno' in error) || typeof error.errno !== 'number' || !/^E[A-Z0-9]+$/.test(code)) return undefined
  // Node's own are negative, those of libc positive as in errno(3).
  return { code, text: `${getSystemErrorMessage(-Math.abs(error.errno))} (${code})`, message }
}
