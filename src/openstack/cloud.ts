// SPDX-License-Identifier: Apache-2.0
import type { Secret } from './secret.ts'

/** A user, project or domain: Keystone takes an id alone, or a name together with its domain. */
export type Named = { readonly id: string } | { readonly name: string; readonly domain: DomainRef }
export type DomainRef = { readonly id: string } | { readonly name: string }

/** What a token is for. Undefined in `Credentials`: the user's default project. */
export type Scope = { readonly project: Named } | { readonly domain: DomainRef } | { readonly system: 'all' }

export type Credentials =
  | {
      readonly kind: 'password'
      readonly user: Named
      readonly password: Secret
      readonly scope: Scope | undefined
    }
  | {
      readonly kind: 'applicationCredential'
      /** By id, or by name together with its owner. */
      readonly credential: { readonly id: string } | { readonly name: string; readonly user: Named }
      readonly secret: Secret
    }

export const serviceTypes = ['network', 'compute'] as const
/** The catalog's name of a service that we speak to. */
export type ServiceType = (typeof serviceTypes)[number]

export type EndpointInterface = 'public' | 'internal' | 'admin'

export type Tls = {
  /** PEM file that replaces the system's authorities. */
  readonly caFile: string | undefined
  readonly certFile: string | undefined
  readonly keyFile: string | undefined
  /** True: whoever answers is believed. */
  readonly insecure: boolean
}

/** Everything needed to log in to one cloud and find its services; the same whether it came from clouds.yaml or a conflist. */
export type Cloud = {
  /** As the user calls it; in messages. */
  readonly name: string
  /** The file, or the key of the conflist, that it came from; in messages. */
  readonly source: string
  /** Keystone v3, without a slash at the end: `https://host:5000/v3`. */
  readonly authUrl: string
  readonly credentials: Credentials
  readonly region: string | undefined
  readonly interface: EndpointInterface
  /** Interfaces that differ for one service. */
  readonly interfaces: Readonly<Partial<Record<ServiceType, EndpointInterface>>>
  /** Addresses that replace the catalog's. */
  readonly endpoints: Readonly<Partial<Record<ServiceType, string>>>
  readonly tls: Tls
  /** What the user should know, one sentence each; free of secrets. */
  readonly warnings: readonly string[]
}

/** A cloud's description cannot be used: missing file, unknown cloud, wrong key. `remedy` says what to write. */
export class CloudConfigError extends Error {
  override readonly name = 'CloudConfigError'
  /** The message without the remedy. */
  readonly summary: string
  readonly remedy: string | undefined

  constructor(summary: string, options: { remedy?: string | undefined; cause?: unknown } = {}) {
    super(
      options.remedy === undefined ? summary : `${summary}; ${options.remedy}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    )
    this.summary = summary
    this.remedy = options.remedy
  }
}

/**
 * The authentication URL in the one form that we use: Keystone v3 without a slash at the end.
 *
 * @throws {CloudConfigError} for what is no HTTP URL, for version 2.0, and for a URL that carries a password.
 */
export function normalizeAuthUrl(text: string, where: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:'))
    throw new CloudConfigError(`Cannot use ${where} "${text}": not an http or https URL`, {
      remedy: 'write it as https://HOST:5000/v3',
    })
  if (url.username !== '' || url.password !== '')
    throw new CloudConfigError(`Cannot use ${where}: the URL carries a user name or password`, {
      remedy: 'give user and password in their own keys',
    })
  const path = url.pathname.replace(/\/auth\/tokens\/*$/, '').replace(/\/+$/, '')
  if (/\/v2(\.\d+)?$/.test(path))
    throw new CloudConfigError(`Cannot use ${where} "${text}": the Identity API version 2.0 is not supported`, {
      remedy: `use version 3: ${url.origin}${path.replace(/\/v2(\.\d+)?$/, '/v3')}`,
    })
  return `${url.origin}${path}${path.endsWith('/v3') ? '' : '/v3'}`
}

/** A domain as users write it: `default` is the id of the first domain of every Keystone; others are names. */
export const domainNamed = (text: string): DomainRef => (text === 'default' ? { id: text } : { name: text })

/** The credentials in words, for messages: who, not with what. */
export function describeCredentials(credentials: Credentials): string {
  if (credentials.kind === 'password') return `user ${describeNamed(credentials.user)}`
  const { credential } = credentials
  return 'id' in credential
    ? `application credential ${credential.id}`
    : `application credential "${credential.name}" of user ${describeNamed(credential.user)}`
}

/** A user or project in words. */
function describeNamed(named: Named): string {
  if ('id' in named) return named.id
  return `"${named.name}" of domain "${'id' in named.domain ? named.domain.id : named.domain.name}"`
}

/** The secrets of a cloud, for redaction. */
export const secretsOf = (cloud: Cloud): readonly Secret[] => [
  cloud.credentials.kind === 'password' ? cloud.credentials.password : cloud.credentials.secret,
]
