// SPDX-License-Identifier: Apache-2.0
import { type Cloud, type Credentials, type DomainRef, describeCredentials, type Named, type Scope } from '../cloud.ts'
import { type ErrorContext, errorFromAnswer, errorFromWire, unexpectedAnswer } from '../error.ts'
import { type Http, HttpError, type HttpOutcome } from '../http.ts'
import { isObject, type Json, tryParseJson } from '../json.ts'
import type { Limits } from '../limits.ts'
import { type Secret, secret } from '../secret.ts'
import type { CatalogEntry } from './catalog.ts'

/** A token with what Keystone said about it. Moments are of this machine's clock (ms since 1970), whatever Keystone's says. */
export type Token = {
  readonly id: Secret
  readonly receivedAtMs: number
  readonly expiresAtMs: number
  readonly user: { readonly id: string; readonly name: string }
  readonly project: { readonly id: string; readonly name: string } | undefined
  readonly roles: readonly string[]
  readonly catalog: readonly CatalogEntry[]
}

/**
 * Logs in: one `POST /v3/auth/tokens`. Repeated where the transport fails: a token that nobody got does no harm.
 *
 * @throws {OpenStackError} of kind `auth` if Keystone refuses the credentials.
 */
export async function requestToken(
  cloud: Cloud,
  http: Http,
  redact: (text: string) => string,
  limits: Limits,
): Promise<Token> {
  const action = `log in to cloud "${cloud.name}" at ${cloud.authUrl} as ${describeCredentials(cloud.credentials)}`
  const context: ErrorContext = { service: 'keystone', action, redact, uncertain: false }
  const outcome = await post(cloud, http, context, limits)
  const answer = outcome.answer!
  if (answer.status !== 201 && answer.status !== 200) throw errorFromAnswer(answer, context)
  const token = decodeToken(answer.headers['x-subject-token'], answer.body, Date.now())
  if (typeof token === 'string') throw unexpectedAnswer(answer, token, context)
  return token
}

async function post(cloud: Cloud, http: Http, context: ErrorContext, limits: Limits): Promise<HttpOutcome> {
  const request = {
    operation: { service: 'keystone', name: 'POST auth/tokens', kind: 'login' },
    method: 'POST',
    url: new URL(`${cloud.authUrl}/auth/tokens`),
    headers: () => ({ 'content-type': 'application/json', accept: 'application/json' }),
    body: JSON.stringify(authBody(cloud.credentials)),
    repeat: true,
  } as const
  try {
    // Whatever a token is for, nothing goes on without it.
    return await http.request(request, { ...limits, purpose: 'pod' })
  } catch (error) {
    throw error instanceof HttpError ? errorFromWire(error.cause, context) : error
  }
}

/** The body of the request for a token. The only place where a password leaves its wrapping. */
export function authBody(credentials: Credentials): Json {
  if (credentials.kind === 'applicationCredential') {
    const { credential } = credentials
    const named =
      'id' in credential ? { id: credential.id } : { name: credential.name, user: reference(credential.user) }
    return {
      auth: {
        identity: {
          methods: ['application_credential'],
          // No scope: an application credential brings its own, and Keystone refuses a request that names one.
          application_credential: { ...named, secret: credentials.secret.reveal() },
        },
      },
    }
  }
  const user = { ...reference(credentials.user), password: credentials.password.reveal() }
  return {
    auth: {
      identity: { methods: ['password'], password: { user } },
      ...(credentials.scope === undefined ? {} : { scope: scopeBody(credentials.scope) }),
    },
  }
}

function scopeBody(scope: Scope): Json {
  if ('project' in scope) return { project: reference(scope.project) }
  if ('domain' in scope) return { domain: domain(scope.domain) }
  return { system: { all: true } }
}

const reference = (named: Named): { [key: string]: Json } =>
  'id' in named ? { id: named.id } : { name: named.name, domain: domain(named.domain) }

const domain = (ref: DomainRef): { [key: string]: Json } => ('id' in ref ? { id: ref.id } : { name: ref.name })

/** The token in Keystone's answer, or what is wrong with the answer. */
function decodeToken(header: string | undefined, body: string, receivedAtMs: number): Token | string {
  if (header === undefined) return 'the answer carries no X-Subject-Token'
  const token = tokenObject(body)
  if (token === undefined) return 'the answer is no token'
  const expires = Date.parse(String(token['expires_at']))
  if (Number.isNaN(expires)) return 'the token has no readable expires_at'
  const issued = Date.parse(String(token['issued_at']))
  // A life, not a moment: so that a clock that differs from Keystone's does not make tokens look expired, or valid.
  const lifeMs = Number.isNaN(issued) ? expires - receivedAtMs : expires - issued
  return {
    id: secret(header),
    receivedAtMs,
    expiresAtMs: receivedAtMs + Math.max(0, lifeMs),
    user: idAndName(token['user']) ?? { id: '', name: '' },
    project: idAndName(token['project']),
    roles: Array.isArray(token['roles']) ? token['roles'].flatMap(role => idAndName(role)?.name ?? []) : [],
    catalog: Array.isArray(token['catalog']) ? token['catalog'].filter(isCatalogEntry) : [],
  }
}

function tokenObject(body: string): Record<string, unknown> | undefined {
  const value = tryParseJson(body)
  return isObject(value) && isObject(value['token']) ? value['token'] : undefined
}

function idAndName(value: unknown): { id: string; name: string } | undefined {
  if (!isObject(value)) return undefined
  return { id: String(value['id'] ?? ''), name: String(value['name'] ?? '') }
}

const isCatalogEntry = (value: unknown): value is CatalogEntry =>
  isObject(value) && typeof value['type'] === 'string' && Array.isArray(value['endpoints'])
