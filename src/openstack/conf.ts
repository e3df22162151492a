// SPDX-License-Identifier: Apache-2.0
import {
  type Cloud,
  CloudConfigError,
  type Credentials,
  type DomainRef,
  domainNamed,
  type EndpointInterface,
  type Named,
  normalizeAuthUrl,
  type Scope,
} from './cloud.ts'
import { isObject } from './json.ts'
import { secret } from './secret.ts'

/** The keys of `openstackConf`; those of the original plugin, and further ones for what clouds.yaml can say too. */
export const confKeys = [
  'username',
  'userId',
  'password',
  'project',
  'projectId',
  'domain',
  'domainId',
  'userDomain',
  'projectDomain',
  'authUrl',
  'applicationCredentialId',
  'applicationCredentialName',
  'applicationCredentialSecret',
  'region',
  'interface',
  'networkEndpoint',
  'computeEndpoint',
  'cacert',
  'insecure',
] as const
type Key = (typeof confKeys)[number]

/** What a configuration with its own credentials should be told. */
const deprecation =
  '"openstackConf" keeps a password in a file that other programs read and copy: put it into clouds.yaml and write ' +
  '"cloud": "NAME" instead'

/**
 * The cloud that a conflist describes in `openstackConf`; works as it stands, with a warning in `warnings`.
 *
 * @throws {CloudConfigError} naming the key; never its value where that may be a secret
 */
export function cloudFromConf(conf: unknown): Cloud {
  if (!isObject(conf)) throw new CloudConfigError('Cannot use "openstackConf": it must be an object')
  const unknown = Object.keys(conf).filter(key => !(confKeys as readonly string[]).includes(key))
  if (unknown.length > 0)
    throw new CloudConfigError(`Cannot use "openstackConf": unknown key ${unknown.map(key => `"${key}"`).join(', ')}`, {
      remedy: `the keys are ${confKeys.join(', ')}`,
    })
  const read = (key: Key): string | undefined => {
    const value = conf[key]
    if (value === undefined || value === null || value === '') return undefined
    if (typeof value !== 'string') throw new CloudConfigError(`Cannot use "openstackConf": "${key}" must be a string`)
    return value
  }
  const authUrl = read('authUrl')
  if (authUrl === undefined) throw lacks('authUrl')
  const { insecure } = conf
  if (insecure !== undefined && typeof insecure !== 'boolean')
    throw new CloudConfigError('Cannot use "openstackConf": "insecure" must be true or false')
  const [network, compute] = [read('networkEndpoint'), read('computeEndpoint')]
  return {
    name: 'openstackConf',
    source: 'openstackConf',
    authUrl: normalizeAuthUrl(authUrl, '"authUrl" of openstackConf'),
    credentials: credentialsOf(read),
    region: read('region'),
    interface: interfaceOf(read('interface')),
    interfaces: {},
    endpoints: {
      ...(network === undefined ? {} : { network }),
      ...(compute === undefined ? {} : { compute }),
    },
    tls: { caFile: read('cacert'), certFile: undefined, keyFile: undefined, insecure: insecure ?? false },
    warnings: [deprecation],
  }
}

type Read = (key: Key) => string | undefined

function credentialsOf(read: Read): Credentials {
  const text = read('applicationCredentialSecret')
  if (text !== undefined) {
    const id = read('applicationCredentialId')
    if (id !== undefined) return { kind: 'applicationCredential', credential: { id }, secret: secret(text) }
    const name = read('applicationCredentialName')
    if (name === undefined) throw lacks('applicationCredentialId')
    return { kind: 'applicationCredential', credential: { name, user: userOf(read) }, secret: secret(text) }
  }
  const password = read('password')
  if (password === undefined) throw lacks('password')
  return { kind: 'password', user: userOf(read), password: secret(password), scope: scopeOf(read) }
}

function userOf(read: Read): Named {
  const id = read('userId')
  if (id !== undefined) return { id }
  const name = read('username')
  if (name === undefined) throw lacks('username')
  return { name, domain: domainOf(read, 'userDomain') }
}

function scopeOf(read: Read): Scope | undefined {
  const id = read('projectId')
  if (id !== undefined) return { project: { id } }
  const name = read('project')
  return name === undefined ? undefined : { project: { name, domain: domainOf(read, 'projectDomain') } }
}

function domainOf(read: Read, own: 'userDomain' | 'projectDomain'): DomainRef {
  const apart = read(own)
  if (apart !== undefined) return domainNamed(apart)
  const id = read('domainId')
  return id === undefined ? domainNamed(read('domain') ?? 'default') : { id }
}

function interfaceOf(text: string | undefined): EndpointInterface {
  if (text === undefined) return 'public'
  if (text === 'public' || text === 'internal' || text === 'admin') return text
  throw new CloudConfigError(`Cannot use "openstackConf": unknown interface "${text}"`, {
    remedy: 'use public, internal or admin',
  })
}

const lacks = (key: Key) =>
  new CloudConfigError(`Cannot use "openstackConf": "${key}" is missing`, { remedy: `add "${key}"` })
