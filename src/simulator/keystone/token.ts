// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto'
import type { Service } from '../call.ts'
import { find, type State, type Token } from '../state.ts'

type Grant = Pick<Token, 'userId' | 'projectId' | 'system' | 'roles' | 'methods' | 'applicationCredentialId'> & {
  /** Of the token that this one was made from. */
  readonly parentAuditId?: string | undefined
  readonly expiresAtMs?: number | undefined
}

/** Issues a token. It has the length of a real one, and whole seconds. */
export function issueToken(state: State, grant: Grant): Token {
  const nowMs = Math.floor(Date.now() / 1000) * 1000
  const auditId = randomBytes(16).toString('base64url')
  const token: Token = {
    value: `gAAAAA${randomBytes(140).toString('base64url').slice(0, 177)}`,
    userId: grant.userId,
    projectId: grant.projectId,
    system: grant.system,
    roles: grant.roles,
    methods: grant.methods,
    auditIds: grant.parentAuditId === undefined ? [auditId] : [auditId, grant.parentAuditId],
    issuedAtMs: nowMs,
    applicationCredentialId: grant.applicationCredentialId,
    expiresAtMs: grant.expiresAtMs ?? nowMs + state.settings.tokenTtlMs,
    revoked: false,
    validatedAtMs: new Map(),
  }
  state.tokens.set(token.value, token)
  return token
}

const isExpired = (token: Token): boolean => token.expiresAtMs <= Date.now()

/** True while Keystone itself accepts the token. */
export function isGood(state: State, token: Token): boolean {
  const credential = token.applicationCredentialId
  return (
    !isExpired(token) &&
    !token.revoked &&
    find(state, 'users', token.userId) !== undefined &&
    (credential === null || find(state, 'applicationCredentials', credential) !== undefined)
  )
}

/**
 * The token, if the service accepts it. Neutron and Nova cache what Keystone said: a revoked token that they have seen
 * works on, an expired one does not, because the expiry is checked on the cached copy.
 */
export function validate(state: State, value: string, service: Service): Token | undefined {
  const token = state.tokens.get(value)
  if (token === undefined || isExpired(token)) return undefined
  if (service === 'identity') return isGood(state, token) ? token : undefined
  const cachedMs = token.validatedAtMs.get(service)
  if (cachedMs !== undefined && Date.now() - cachedMs < state.settings.tokenCacheMs) return token
  if (!isGood(state, token)) return undefined
  token.validatedAtMs.set(service, Date.now())
  return token
}

/** Makes every token that was issued so far an expired one. */
export function expireTokens(state: State): void {
  for (const token of state.tokens.values()) token.expiresAtMs = 0
}
