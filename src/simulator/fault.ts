// SPDX-License-Identifier: Apache-2.0

/**
 * An answer that is an error. `type` is Neutron's exception name, Nova's key (`itemNotFound`) or Keystone's title.
 */
export class Fault extends Error {
  override readonly name = 'Fault'
  readonly status: number
  readonly type: string
  readonly headers: Readonly<Record<string, string>>

  constructor(status: number, type: string, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message)
    this.status = status
    this.type = type
    this.headers = headers
  }
}

/** Neutron's generic 400. */
export const badRequest = (message: string): Fault => new Fault(400, 'HTTPBadRequest', message)

/** Neutron's 400 for one attribute. */
export const invalidInput = (attribute: string, reason: string): Fault =>
  badRequest(`Invalid input for ${attribute}. Reason: ${reason}.`)

/** Neutron's 403; `rule` is the policy as it prints it. */
export const notAuthorized = (rule: string): Fault =>
  new Fault(403, 'PolicyNotAuthorized', `${rule} is disallowed by policy`)

/** What Neutron answers when its own code breaks on the input. */
export const internalError = (): Fault =>
  new Fault(500, 'HTTPInternalServerError', 'Request Failed: internal server error while processing your request.')

/** Keystone's 403. */
export const forbidden = (action: string): Fault =>
  new Fault(403, 'Forbidden', `You are not authorized to perform the requested action: ${action}.`)
