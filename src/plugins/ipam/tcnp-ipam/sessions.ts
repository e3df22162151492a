// SPDX-License-Identifier: Apache-2.0

import { join } from 'node:path'
import { withFileLock } from '#allocator'
import { sha256Hex } from '#base'
import type { JsonObject } from '#cni'
import {
  type Cloud,
  type CloudSession,
  cloudFromConf,
  type GateOptions,
  loadCloud,
  openCloud,
  type SentRequest,
} from '#openstack'

/** A cloud as a configuration names it: in `clouds.yaml` (undefined: its only one, or `OS_CLOUD`), or with its own credentials. */
export type CloudReference = { readonly name: string | undefined } | { readonly conf: JsonObject }

export type OpenedCloud = {
  readonly session: CloudSession
  /** How a later process reaches the same cloud, without secrets. JSON. */
  readonly access: string
}

/** Clouds that are logged in to, shared by all calls of a process; ends their connections when disposed of. */
export type CloudSessions = AsyncDisposable & {
  /**
   * The session of a cloud; nothing is sent yet. Another password makes another session.
   * @throws {CloudConfigError}
   */
  open(reference: CloudReference, options?: { dataDir?: string | undefined }): Promise<OpenedCloud>
  /** All sessions that calls use now. */
  list(): readonly CloudSession[]
  /** The session of an earlier access; undefined where its credentials stand in no file and no call brought them. */
  reach(access: string): Promise<CloudSession | undefined>
}

export type SessionsOptions = {
  /** Tokens lie below, so that processes that live for one call share them. */
  readonly dataDir: string
  /** Told once what a user should know of a cloud's description. */
  readonly warn: (message: string) => void
  /** How many requests the sessions send, and when none. */
  readonly gate?: Omit<GateOptions, 'onSent'> | undefined
  /** Told of every request that was sent, with the cloud's name. */
  readonly onSent?: ((cloud: string, request: SentRequest) => void) | undefined
}

type Access = { readonly cloud: string | null } | { readonly authUrl: string; readonly who: string }

/** True where no file holds the credentials of an access: a process has them only after a call that brought them. */
export const isInlineAccess = (access: string): boolean => 'authUrl' in (JSON.parse(access) as Access)

/** A changed clouds.yaml is noticed after this long. */
const RELOAD_MS = 30_000
/** A session that was replaced may have requests under way. */
const OLD_SESSION_MS = 120_000

export function openSessions({ dataDir, warn, gate, onSent }: SessionsOptions): CloudSessions {
  const sessions = new Map<string, CloudSession>()
  const replaced = new Set<CloudSession>()
  const loaded = new Map<string | undefined, { cloud: Promise<Cloud>; atMs: number }>()
  const described = new WeakMap<JsonObject, Cloud>()
  const warned = new Set<string>()
  /** The directory that a configuration asked for, by access. */
  const directories = new Map<string, string | undefined>()

  function sessionOf(cloud: Cloud, key: string, directory: string): CloudSession {
    const old = sessions.get(key)
    if (old !== undefined && sameCloud(old.cloud, cloud)) return old
    if (old !== undefined) retire(old)
    for (const warning of cloud.warnings)
      if (!warned.has(warning)) {
        warned.add(warning)
        warn(warning)
      }
    const file = join(directory, 'tokens', sha256Hex(key).slice(0, 32))
    const session = openCloud(cloud, {
      tokenCache: `${file}.json`,
      withLock: async (body, limits) => (await withFileLock(`${file}.lock`, body, limits))!,
      gate: { ...gate, onSent: request => note(cloud, request) },
    })
    sessions.set(key, session)
    return session
  }

  function note(cloud: Cloud, request: SentRequest): void {
    // The credentials may have been changed in their file: it is read again at once.
    if (request.service === 'keystone' && request.outcome === 401) loaded.clear()
    onSent?.(cloud.name, request)
  }

  function retire(session: CloudSession): void {
    replaced.add(session)
    setTimeout(() => {
      if (replaced.delete(session)) void session.close()
    }, OLD_SESSION_MS).unref()
  }

  function load(name: string | undefined): Promise<Cloud> {
    const known = loaded.get(name)
    if (known !== undefined && performance.now() - known.atMs < RELOAD_MS) return known.cloud
    const cloud = loadCloud(name)
    loaded.set(name, { cloud, atMs: performance.now() })
    // A file that was wrong is read again at once: somebody is mending it.
    cloud.catch(() => loaded.delete(name))
    return cloud
  }

  /** A configuration is read once, and is the same object for all its calls. */
  function ofConf(conf: JsonObject): Cloud {
    const cloud = described.get(conf) ?? cloudFromConf(conf)
    described.set(conf, cloud)
    return cloud
  }

  async function open(reference: CloudReference, { dataDir: own }: { dataDir?: string | undefined } = {}) {
    const cloud = 'conf' in reference ? ofConf(reference.conf) : await load(reference.name)
    const access: Access =
      'conf' in reference ? { authUrl: cloud.authUrl, who: describe(cloud) } : { cloud: reference.name ?? null }
    const key = JSON.stringify([access, cloud.authUrl, describe(cloud), own ?? ''])
    const text = JSON.stringify(access)
    directories.set(text, own)
    return { session: sessionOf(cloud, key, own ?? dataDir), access: text }
  }

  return {
    open,
    list: () => [...sessions.values()],
    async reach(text) {
      const access = JSON.parse(text) as Access
      if ('cloud' in access)
        return (await open({ name: access.cloud ?? undefined }, { dataDir: directories.get(text) })).session
      return [...sessions.values()].find(
        ({ cloud }) => cloud.authUrl === access.authUrl && describe(cloud) === access.who,
      )
    },
    async [Symbol.asyncDispose]() {
      const all = [...sessions.values(), ...replaced]
      sessions.clear()
      replaced.clear()
      await Promise.all(all.map(session => session.close()))
    },
  }
}

/** Who logs in, without what with: the secrets write themselves as asterisks. */
const describe = ({ credentials }: Cloud) => JSON.stringify(credentials)

const secretOf = ({ credentials }: Cloud) =>
  credentials.kind === 'password' ? credentials.password.reveal() : credentials.secret.reveal()

const sameCloud = (a: Cloud, b: Cloud) => JSON.stringify(a) === JSON.stringify(b) && secretOf(a) === secretOf(b)
