// SPDX-License-Identifier: Apache-2.0

import { SystemError } from '#libc'
import { NetlinkError } from '#netlink'
import { NftablesError } from '#nftables'

/** An error as plain data: structured clone keeps neither class nor fields. */
export type WireError = { class: string; message: string; fields: Record<string, unknown> }

const classes = { NetlinkError, NftablesError, SystemError, Error } as const

/** The error as data, for the other thread. */
export function packError(error: unknown): WireError {
  const thrown = error instanceof Error ? error : new Error(String(error))
  if (thrown instanceof SuppressedError) {
    const fields = { error: packError(thrown.error), suppressed: packError(thrown.suppressed) }
    return { class: 'SuppressedError', message: thrown.message, fields }
  }
  const known = Object.entries(classes).find(([, type]) => thrown.constructor === type)
  return { class: known?.[0] ?? 'Error', message: thrown.message, fields: { ...thrown } }
}

/** The same error again: `instanceof`, fields and message hold; the stack is that of this thread. */
export function reviveError({ class: name, message, fields }: WireError): Error {
  if (name === 'SuppressedError') {
    const { error, suppressed } = fields as { error: WireError; suppressed: WireError }
    return new SuppressedError(reviveError(error), reviveError(suppressed), message)
  }
  const error = new Error(message)
  Object.setPrototypeOf(error, classes[name as keyof typeof classes].prototype)
  return Object.assign(error, fields)
}
