// SPDX-License-Identifier: Apache-2.0
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { Cloud } from '../cloud.ts'
import { serviceTypes } from '../cloud.ts'
import { isObject, tryParseJson } from '../json.ts'
import { secret } from '../secret.ts'
import type { CatalogEntry } from './catalog.ts'
import type { Token } from './token.ts'

/** A token kept in a file, so that processes which live for one call share it. */
export type TokenCache = {
  /** The token in the file; undefined if there is none, or one of other credentials. */
  read(): Promise<Token | undefined>
  write(token: Token): Promise<void>
}

/**
 * The file is made with mode 0600, its directory with 0700, and never holds the password.
 *
 * A changed password must not be served from the cache: otherwise a wrong one would seem to work until the token ends.
 * So the file carries a check of it: 16 bits of a salted hash, enough to notice a change and too few to find a password.
 */
export function createTokenCache(file: string, cloud: Cloud): TokenCache {
  return {
    async read() {
      const text = await readFile(file, 'utf8').catch(() => undefined)
      const stored = text === undefined ? undefined : tryParseJson(text)
      return decodeStored(stored, cloud)
    },
    async write(token) {
      const directory = dirname(file)
      await mkdir(directory, { recursive: true, mode: 0o700 })
      const temporary = `${file}.${process.pid}.${randomBytes(4).toString('hex')}`
      try {
        await using handle = await open(temporary, 'wx', 0o600)
        await handle.writeFile(JSON.stringify(encodeStored(token, cloud)))
        // A umask can only take rights away, but the directory's default ACL could add some.
        await chmod(temporary, 0o600)
        await rename(temporary, file)
        await removeLeftovers(file)
      } catch (error) {
        await rm(temporary, { force: true })
        throw error
      }
    },
  }
}

/** Older than any write takes. */
const leftoverMs = 60_000

/** A process that was killed while writing left its temporary file, with a token in it. */
async function removeLeftovers(file: string): Promise<void> {
  const directory = dirname(file)
  for (const name of await readdir(directory)) {
    if (!name.startsWith(`${basename(file)}.`)) continue
    const path = join(directory, name)
    const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }))
    if (mtimeMs < Date.now() - leftoverMs) await rm(path, { force: true })
  }
}

const formatVersion = 1

function encodeStored(token: Token, cloud: Cloud) {
  const salt = randomBytes(16).toString('hex')
  return {
    version: formatVersion,
    identity: identityOf(cloud),
    salt,
    check: checkOf(cloud, salt),
    token: token.id.reveal(),
    receivedAtMs: token.receivedAtMs,
    expiresAtMs: token.expiresAtMs,
    user: token.user,
    project: token.project,
    roles: token.roles,
    catalog: token.catalog.filter(entry => (serviceTypes as readonly string[]).includes(entry.type)),
  }
}

function decodeStored(stored: unknown, cloud: Cloud): Token | undefined {
  if (!isObject(stored) || stored['version'] !== formatVersion || stored['identity'] !== identityOf(cloud))
    return undefined
  const { salt, check, token, receivedAtMs, expiresAtMs, user, project, roles, catalog } = stored
  if (typeof salt !== 'string' || typeof check !== 'string' || typeof token !== 'string') return undefined
  if (!equal(check, checkOf(cloud, salt))) return undefined
  if (typeof receivedAtMs !== 'number' || typeof expiresAtMs !== 'number') return undefined
  if (!Array.isArray(roles) || !Array.isArray(catalog) || !isObject(user)) return undefined
  // Received in the future: the clock was set back since, and the life that is left is not known.
  if (receivedAtMs > Date.now() + 60_000) return undefined
  return {
    id: secret(token),
    receivedAtMs,
    expiresAtMs,
    user: user as Token['user'],
    project: isObject(project) ? (project as Token['project']) : undefined,
    roles: roles as string[],
    catalog: catalog as CatalogEntry[],
  }
}

/** Whose token it is: another user, project or Keystone makes another file content. */
function identityOf(cloud: Cloud): string {
  const { credentials } = cloud
  const who =
    credentials.kind === 'password' ? [credentials.user, credentials.scope ?? null] : [credentials.credential, null]
  return createHash('sha256')
    .update(JSON.stringify([cloud.authUrl, credentials.kind, ...who]))
    .digest('hex')
}

function checkOf(cloud: Cloud, salt: string): string {
  const { credentials } = cloud
  const text = credentials.kind === 'password' ? credentials.password.reveal() : credentials.secret.reveal()
  return createHash('sha256').update(`${salt}:${text}`).digest('hex').slice(0, 4)
}

const equal = (a: string, b: string) => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b))
