// SPDX-License-Identifier: Apache-2.0
import { join, resolve } from 'node:path'
import {
  type Cloud,
  CloudConfigError,
  type Credentials,
  type DomainRef,
  type EndpointInterface,
  type Named,
  normalizeAuthUrl,
  type Scope,
  serviceTypes,
} from './cloud.ts'
import type { Raw } from './cloudfiles.ts'
import { isObject } from './json.ts'
import { secret } from './secret.ts'

export type RawContext = {
  readonly name: string
  readonly source: string
  readonly warnings: readonly string[]
  readonly home: string | undefined
  readonly cwd: string
}

/** One cloud of a file, as the clients understand it: old names of keys, domains given once, templates in URLs. */
export function cloudFromRaw(source: Raw, context: RawContext): Cloud {
  const raw = normalizeKeys(source)
  const auth = isObject(raw['auth']) ? raw['auth'] : {}
  const read = reader(raw, auth, context)
  const authUrl = read('auth_url')
  if (authUrl === undefined) throw lacks(context, 'auth_url')
  const warnings = [...context.warnings]
  const insecure = isTrue(raw['insecure']) || (raw['verify'] !== undefined && !isTrue(raw['verify']))
  if (insecure)
    warnings.push(`Cloud "${context.name}" does not verify certificates: whoever answers learns the password`)
  return {
    name: context.name,
    source: context.source,
    authUrl: normalizeAuthUrl(fill(authUrl, raw), `"auth_url" of cloud "${context.name}"`),
    credentials: credentialsOf(read, context),
    region: read('region_name'),
    interface: interfaceOf(raw['interface'] ?? 'public', context),
    interfaces: perService(key => {
      const value = raw[`${key}_interface`]
      return value === undefined ? undefined : interfaceOf(value, context)
    }),
    endpoints: perService(key => {
      const value = raw[`${key}_endpoint_override`] ?? raw[`${key}_endpoint`]
      return typeof value === 'string' && value !== '' ? fill(value, raw) : undefined
    }),
    tls: {
      caFile: pathOf(raw['cacert'], context),
      certFile: pathOf(raw['cert'], context),
      keyFile: pathOf(raw['key'], context),
      insecure,
    },
    warnings,
  }
}

/** `user-domain-id` is `user_domain_id`, and `endpoint_type` the old name of `interface`. */
function normalizeKeys(raw: Raw): Raw {
  return Object.fromEntries(
    Object.entries(raw).map(([key, value]) => [
      key.replaceAll('-', '_').replace(/endpoint_type$/, 'interface'),
      isObject(value) ? normalizeKeys(value) : value,
    ]),
  )
}

/** Reads a key of the cloud or of its `auth`; the last of the names given that has a value wins, as in the clients. */
type Read = (...names: string[]) => string | undefined

function reader(raw: Raw, auth: Raw, context: RawContext): Read {
  return (...names) => {
    let found: string | undefined
    for (const name of names)
      for (const value of [raw[name], auth[name]]) {
        if (value === undefined || value === null || value === '') continue
        if (typeof value === 'object')
          throw new CloudConfigError(`Cannot use "${name}" of cloud "${context.name}": it must be a text`)
        found = String(value)
      }
    return found
  }
}

const passwordTypes = new Set(['password', 'v3password'])
const applicationCredentialType = 'v3applicationcredential'

function credentialsOf(read: Read, context: RawContext): Credentials {
  const type = read('auth_plugin', 'auth_type') ?? guessType(read)
  if (read('trust_id') !== undefined)
    throw new CloudConfigError(`Cannot use cloud "${context.name}": "trust_id" is not supported`, {
      remedy: 'use an application credential',
    })
  if (type === applicationCredentialType) return applicationCredential(read, context)
  if (passwordTypes.has(type)) return password(read, context)
  throw new CloudConfigError(`Cannot use cloud "${context.name}": auth_type "${type}" is not supported`, {
    remedy: `use one of ${[...passwordTypes, applicationCredentialType].join(', ')}`,
  })
}

/** The clients demand the type; what else is there tells as well. */
const guessType = (read: Read) =>
  read('application_credential_secret') !== undefined && read('password') === undefined
    ? applicationCredentialType
    : 'password'

function applicationCredential(read: Read, context: RawContext): Credentials {
  const id = read('application_credential_id')
  const name = read('application_credential_name')
  const text = read('application_credential_secret')
  if (text === undefined) throw lacks(context, 'application_credential_secret')
  if (id !== undefined) return { kind: 'applicationCredential', credential: { id }, secret: secret(text) }
  if (name === undefined) throw lacks(context, 'application_credential_id')
  return { kind: 'applicationCredential', credential: { name, user: userOf(read, context) }, secret: secret(text) }
}

function password(read: Read, context: RawContext): Credentials {
  const text = read('password')
  if (text === undefined) throw lacks(context, 'password')
  return { kind: 'password', user: userOf(read, context), password: secret(text), scope: scopeOf(read) }
}

function userOf(read: Read, context: RawContext): Named {
  const id = read('user_id')
  if (id !== undefined) return { id }
  const name = read('user_name', 'username')
  if (name === undefined) throw lacks(context, 'username')
  return { name, domain: domainOf(read, 'user') }
}

function scopeOf(read: Read): Scope | undefined {
  const id = read('tenant_id', 'project_id')
  if (id !== undefined) return { project: { id } }
  const name = read('tenant_name', 'project_name')
  if (name !== undefined) return { project: { name, domain: domainOf(read, 'project') } }
  const domainId = read('domain_id')
  if (domainId !== undefined) return { domain: { id: domainId } }
  const domainName = read('domain_name')
  if (domainName !== undefined) return { domain: { name: domainName } }
  return read('system_scope') === 'all' ? { system: 'all' } : undefined
}

/** `domain_id` and `domain_name` stand for both domains where they are not given apart. */
function domainOf(read: Read, whose: 'user' | 'project'): DomainRef {
  const id = read(`${whose}_domain_id`)
  if (id !== undefined) return { id }
  const name = read(`${whose}_domain_name`)
  if (name !== undefined) return { name }
  const sharedId = read('default_domain_id', 'default_domain', 'domain_id')
  if (sharedId !== undefined) return { id: sharedId }
  const sharedName = read('default_domain_name', 'domain_name')
  return sharedName === undefined ? { id: 'default' } : { name: sharedName }
}

const interfaceNames: readonly string[] = ['public', 'internal', 'admin'] satisfies EndpointInterface[]

function interfaceOf(value: unknown, context: RawContext): EndpointInterface {
  const name = String(value).replace(/URL$/, '')
  if (interfaceNames.includes(name)) return name as EndpointInterface
  throw new CloudConfigError(`Cannot use interface "${name}" of cloud "${context.name}"`, {
    remedy: `use one of ${interfaceNames.join(', ')}`,
  })
}

function perService<T>(value: (service: string) => T | undefined): Partial<Record<(typeof serviceTypes)[number], T>> {
  return Object.fromEntries(
    serviceTypes.map(type => [type, value(type)] as const).filter(([, each]) => each !== undefined),
  )
}

/** `{region_name}` and the like in URLs, as profiles of public clouds use them. */
const fill = (template: string, raw: Raw) =>
  template.replace(/\{(\w+)\}/g, (whole, key: string) =>
    typeof raw[key] === 'string' && key !== 'password' ? raw[key] : whole,
  )

function isTrue(value: unknown): boolean {
  return value === true || (typeof value === 'string' && /^(true|yes|on|1)$/i.test(value))
}

function pathOf(value: unknown, context: RawContext): string | undefined {
  if (typeof value !== 'string' || value === '') return undefined
  return value.startsWith('~/') && context.home !== undefined
    ? join(context.home, value.slice(2))
    : resolve(context.cwd, value)
}

const lacks = (context: RawContext, key: string) =>
  new CloudConfigError(`Cannot use cloud "${context.name}" of ${context.source}: "${key}" is missing`, {
    remedy: `add "${key}" to its "auth"`,
  })
