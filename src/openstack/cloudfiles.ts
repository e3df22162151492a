// SPDX-License-Identifier: Apache-2.0
import { readFile, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { CloudConfigError } from './cloud.ts'
import { isObject, tryParseJson } from './json.ts'

/** A mapping as written, not yet understood. */
export type Raw = { [key: string]: unknown }

/** Where to look; everything defaults to what this process sees. */
export type CloudFiles = {
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
  readonly cwd?: string | undefined
  readonly home?: string | undefined
}

export type ConfigFile = {
  readonly path: string
  readonly content: Raw
  /** True if every user of the machine may read it. */
  readonly worldReadable: boolean
}

/** What was looked at and why it was not used, in order; for messages. */
export type Tried = string[]

const suffixes = ['.yaml', '.yml', '.json']

/** The places where OpenStack's clients look for `clouds`, `secure` or `clouds-public`, in their order; the first file there is wins. */
export function candidates(stem: 'clouds' | 'secure' | 'clouds-public', where: CloudFiles): string[] {
  const env = where.env ?? process.env
  const home = where.home ?? env['HOME'] ?? homedir()
  const named = {
    clouds: env['OS_CLIENT_CONFIG_FILE'],
    secure: env['OS_CLIENT_SECURE_FILE'],
    'clouds-public': undefined,
  }[stem]
  const directories = new Set([
    where.cwd ?? process.cwd(),
    join(env['XDG_CONFIG_HOME'] || join(home, '.config'), 'openstack'),
    join(home, '.config', 'openstack'),
    ...(env['XDG_CONFIG_DIRS'] || '/etc/xdg').split(':').map(each => join(each, 'openstack')),
    '/etc/openstack',
  ])
  const found = [...directories].flatMap(directory => suffixes.map(suffix => join(directory, `${stem}${suffix}`)))
  return named === undefined || named === '' ? found : [named, ...found]
}

/** The first of the files that exists and may be read; others are noted in `tried`. @throws {CloudConfigError} if it cannot be parsed. */
export async function readFirst(paths: readonly string[], tried: Tried): Promise<ConfigFile | undefined> {
  for (const path of paths) {
    try {
      const [text, { mode }] = await Promise.all([readFile(path, 'utf8'), stat(path)])
      return { path, content: await parse(path, text), worldReadable: (mode & 0o004) !== 0 }
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (error instanceof CloudConfigError || code === undefined) throw error
      tried.push(code === 'ENOENT' || code === 'ENOTDIR' ? path : `${path} (${code})`)
    }
  }
  return undefined
}

async function parse(path: string, text: string): Promise<Raw> {
  const value = path.endsWith('.json') ? parseJsonFile(path, text) : await parseYaml(path, text)
  if (value === null || value === undefined) return {}
  if (!isObject(value)) throw new CloudConfigError(`Cannot read "${path}": it holds no mapping`)
  return value
}

function parseJsonFile(path: string, text: string): unknown {
  const value = tryParseJson(text)
  if (value === undefined) throw new CloudConfigError(`Cannot read "${path}": not valid JSON`)
  return value
}

/** Types that would change a password or an id on the way: `0123`, `1e5` and `2020-01-01` stay as they are written. */
const unreadTags = ['int', 'float', 'timestamp'].map(name => `tag:yaml.org,2002:${name}`)

async function parseYaml(path: string, text: string): Promise<unknown> {
  // Loaded only here: a conflist with its own credentials needs no YAML, and its plugin starts sooner.
  const { LineCounter, parseDocument } = await import('./yaml.ts')
  const lineCounter = new LineCounter()
  const document = parseDocument(text, {
    // What the clients' parser speaks: `yes` is true, and `<<` merges.
    version: '1.1',
    customTags: tags => tags.filter(tag => typeof tag === 'string' || !unreadTags.includes(tag.tag)),
    // Pretty errors quote the line, which may hold a password.
    prettyErrors: false,
    lineCounter,
    logLevel: 'silent',
  })
  const [error] = document.errors
  if (error !== undefined)
    throw new CloudConfigError(
      `Cannot parse "${path}": ${error.code} at line ${lineCounter.linePos(error.pos[0]).line}`,
    )
  try {
    return document.toJS()
  } catch {
    throw new CloudConfigError(`Cannot read "${path}": an alias refers to nothing, or to too much`)
  }
}
