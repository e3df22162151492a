// SPDX-License-Identifier: Apache-2.0

/** Tokens over HTTP: password, application credential, token; scope; catalog. */
import { createHash } from 'node:crypto'
import { type Answer, asObject, type Call, caller, notJson, pause } from '../call.ts'
import { Fault, forbidden } from '../fault.ts'
import { type ApplicationCredential, find, list, type Project, type State, type Token, type User } from '../state.ts'
import { isGood, issueToken } from './token.ts'

const unauthorized = (): Fault => new Fault(401, 'Unauthorized', 'The request you have made requires authentication.')
const malformed = (what: string): Fault =>
  new Fault(
    400,
    'Bad Request',
    `Expecting to find ${what}. The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.`,
  )

type Identity = {
  readonly user: User
  readonly methods: readonly string[]
  readonly credential?: ApplicationCredential
  readonly parent?: Token
}
type Scope = { readonly projectId: string | null; readonly system: boolean; readonly roles: readonly string[] }

/** `POST /v3/auth/tokens`. */
export async function authenticate(call: Call): Promise<Answer> {
  await pause(call.state.settings.latency.tokenMs)
  if (call.body === notJson) throw malformed('valid JSON in request body')
  const auth = asObject(asObject(call.body)?.['auth'])
  if (auth === undefined) throw malformed('auth in request body')
  const identityPart = asObject(auth['identity'])
  if (identityPart === undefined) throw new Fault(400, 'Bad Request', "'identity' is a required property")
  const methods = identityPart['methods']
  if (!Array.isArray(methods)) {
    throw new Fault(400, 'Bad Request', "Invalid input for field 'identity': 'methods' is a required property")
  }
  const identity = identify(call.state, String(methods[0]), identityPart)
  const scope = scopeOf(call.state, identity, auth['scope'])
  const token = issueToken(call.state, {
    userId: identity.user.id,
    projectId: scope.projectId,
    system: scope.system,
    roles: scope.roles,
    methods: identity.methods,
    applicationCredentialId: identity.credential?.id ?? null,
    parentAuditId: identity.parent?.auditIds[0],
    expiresAtMs: identity.parent?.expiresAtMs,
  })
  return {
    status: 201,
    headers: { 'x-subject-token': token.value, vary: 'X-Auth-Token' },
    body: tokenBody(call, token),
  }
}

function identify(state: State, method: string, part: Readonly<Record<string, unknown>>): Identity {
  const details = asObject(part[method])
  if (details === undefined) throw malformed(`${method} in identity`)
  if (method === 'password') {
    const wanted = asObject(details['user']) ?? {}
    const user = findUser(state, wanted)
    if (user === undefined || user.password !== wanted['password']) throw unauthorized()
    return { user, methods: ['password'] }
  }
  if (method === 'application_credential') return identifyByCredential(state, details)
  if (method === 'token') {
    const parent = state.tokens.get(String(details['id']))
    if (parent === undefined) throw new Fault(404, 'Not Found', 'Could not recognize Fernet token')
    const user = find(state, 'users', parent.userId)
    if (user === undefined || !isGood(state, parent)) throw unauthorized()
    return { user, methods: ['token', ...parent.methods], parent }
  }
  throw unauthorized()
}

function identifyByCredential(state: State, details: Readonly<Record<string, unknown>>): Identity {
  const { id, name, secret } = details
  let credential: ApplicationCredential | undefined
  if (typeof id === 'string') {
    credential = find(state, 'applicationCredentials', id)
    if (credential === undefined) throw new Fault(404, 'Not Found', `Could not find Application Credential: ${id}.`)
  } else if (typeof name === 'string') {
    const owner = findUser(state, asObject(details['user']) ?? {})
    credential = list(state, 'applicationCredentials').find(row => row.user_id === owner?.id && row.name === name)
  } else {
    throw malformed('name or ID in application credential')
  }
  const user = credential && find(state, 'users', credential.user_id)
  if (credential === undefined || user === undefined || credential.secret !== secret) throw unauthorized()
  return { user, methods: ['application_credential'], credential }
}

/** Names are compared without case, as the real database does. */
const sameName = (a: unknown, b: string): boolean => typeof a === 'string' && a.toLowerCase() === b.toLowerCase()

/** There is one domain, `Default` with the id `default`. */
function isDefaultDomain(value: unknown): boolean {
  const domain = asObject(value)
  return domain !== undefined && (domain['id'] === 'default' || sameName(domain['name'], 'Default'))
}

function findUser(state: State, wanted: Readonly<Record<string, unknown>>): User | undefined {
  if (typeof wanted['id'] === 'string') return find(state, 'users', wanted['id'])
  if (!isDefaultDomain(wanted['domain'])) return undefined
  return list(state, 'users').find(user => sameName(wanted['name'], user.name))
}

function findProject(state: State, wanted: Readonly<Record<string, unknown>>): Project | undefined {
  if (typeof wanted['id'] === 'string') return find(state, 'projects', wanted['id'])
  if (!isDefaultDomain(wanted['domain'])) return undefined
  return list(state, 'projects').find(project => sameName(wanted['name'], project.name))
}

function scopeOf(state: State, identity: Identity, scope: unknown): Scope {
  const { user, credential } = identity
  if (credential !== undefined) {
    if (scope !== undefined) {
      throw new Fault(
        401,
        'Unauthorized',
        'Error authenticating with application credential: Application credentials cannot request a scope.',
      )
    }
    return { projectId: credential.project_id, system: false, roles: credential.roles }
  }
  const none: Scope = { projectId: null, system: false, roles: [] }
  if (scope === 'unscoped') return none
  const wanted = asObject(scope)
  if (wanted === undefined) {
    const project = user.default_project_id
    const roles = project === null ? undefined : user.roles[project]
    return roles === undefined ? none : { projectId: project, system: false, roles }
  }
  if (wanted['system'] !== undefined) {
    if (user.systemRoles.length === 0) throw unauthorized()
    return { projectId: null, system: true, roles: user.systemRoles }
  }
  const project = findProject(state, asObject(wanted['project']) ?? {})
  const roles = project && user.roles[project.id]
  if (project === undefined || roles === undefined || roles.length === 0) throw unauthorized()
  return { projectId: project.id, system: false, roles }
}

const domain = { id: 'default', name: 'Default' }

function tokenBody(call: Call, token: Token): unknown {
  const { state } = call
  const user = find(state, 'users', token.userId)
  const project = token.projectId === null ? undefined : find(state, 'projects', token.projectId)
  const credential =
    token.applicationCredentialId === null
      ? undefined
      : find(state, 'applicationCredentials', token.applicationCredentialId)
  const scoped = project !== undefined || token.system
  return {
    token: {
      methods: token.methods,
      user: { domain, id: token.userId, name: user?.name ?? '', password_expires_at: null },
      audit_ids: token.auditIds,
      expires_at: microseconds(token.expiresAtMs),
      issued_at: microseconds(token.issuedAtMs),
      ...(project && { project: { domain, id: project.id, name: project.name }, is_domain: false }),
      ...(scoped && { roles: token.roles.map(name => ({ id: roleId(name), name })) }),
      ...(token.system && { system: { all: true } }),
      ...(scoped && !call.query.has('nocatalog') && { catalog: catalogOf(call) }),
      ...(credential && {
        application_credential: { id: credential.id, name: credential.name, restricted: !credential.unrestricted },
      }),
    },
  }
}

const microseconds = (atMs: number): string => `${new Date(atMs).toISOString().slice(0, 19)}.000000Z`

/** Ids of roles, services and endpoints are not stored: they follow from the name. */
export const roleId = (name: string): string => derivedId(`role ${name}`)
const derivedId = (text: string): string => createHash('md5').update(text).digest('hex')

/** The catalog; its addresses are those by which the caller reached Keystone. */
export function catalogOf(call: Call): unknown {
  const base = call.origin.slice(0, call.origin.lastIndexOf('/'))
  const services = [
    ['compute', 'nova', `${base}/compute/v2.1`],
    ['identity', 'keystone', `${base}/identity/v3`],
    ['network', 'neutron', `${base}/network`],
  ] as const
  return services.map(([type, name, url]) => ({
    endpoints: ['admin', 'internal', 'public'].map(kind => ({
      id: derivedId(`${type} ${kind}`),
      interface: kind,
      region_id: 'RegionOne',
      url,
      region: 'RegionOne',
    })),
    id: derivedId(type),
    type,
    name,
  }))
}

function subjectOf(call: Call): Token {
  const value = call.headers['x-subject-token']
  if (typeof value !== 'string') {
    throw forbidden('identity:validate_token')
  }
  const token = call.state.tokens.get(value)
  if (token === undefined) throw new Fault(404, 'Not Found', 'Could not recognize Fernet token')
  if (!isGood(call.state, token)) throw new Fault(404, 'Not Found', 'Failed to validate token')
  return token
}

/** `GET /v3/auth/tokens`: validation of the token in `X-Subject-Token`. */
export function showToken(call: Call): Answer {
  const token = subjectOf(call)
  return {
    status: 200,
    headers: { 'x-subject-token': token.value, vary: 'X-Auth-Token' },
    body: tokenBody(call, token),
  }
}

/** `DELETE /v3/auth/tokens`: revocation. */
export function revokeToken(call: Call): Answer {
  caller(call)
  subjectOf(call).revoked = true
  return { status: 204 }
}
