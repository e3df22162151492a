// SPDX-License-Identifier: Apache-2.0

/**
 * The only error that leaves a plugin: CNI specification, chapter "Error".
 *
 * `msg` names action, values, reason; `details` carries the remedy or the list of candidates.
 */
export class CniError extends Error {
  override readonly name = 'CniError'
  readonly code: number
  readonly details: string | undefined

  constructor(code: number, msg: string, options: { details?: string | undefined; cause?: unknown } = {}) {
    super(msg, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.details = options.details
  }
}
