// SPDX-License-Identifier: Apache-2.0

import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { INSTALLED, isShim, parseHashes, plugins, TAKEN_PREFIX } from '#plugins'
import { readSettings, type Settings } from './settings.ts'

/** Settings that are left out stay as the file has them. */
export type InstallOptions = Partial<Settings> & {
  /** The runtime's plugin directory. */
  readonly cniBin: string
  /** The file that tells shims what to do. */
  readonly config: string
  /** Takes names that are another's, and keeps what had them as `NAME.upstream`. @default false */
  readonly replace?: boolean
}

const root = resolve(import.meta.dirname, '../..')

/**
 * Puts one executable per plugin type into a directory: hard links of one copy of the shim, and `cnitool`.
 *
 * A name that is another's stays; ours is then `mooring-NAME`. With `replace` ours takes it, and what had it is kept for
 * `uninstall`. Files are replaced by rename, so that a runtime can go on executing them.
 * @returns lines for the user
 */
export async function install(options: InstallOptions): Promise<string[]> {
  const lines: string[] = []
  const draft = putShim(options.cniBin)
  const installed: string[] = []
  try {
    for (const type of plugins.keys()) {
      const file = join(options.cniBin, type)
      const isFree = await isOursOrNobodys(file)
      if (!isFree && options.replace === true) lines.push(keep(options.cniBin, type))
      const name = isFree || options.replace === true ? type : TAKEN_PREFIX + type
      if (name !== type) lines.push(`${type} is another's and stays: ours is ${name}`)
      replaceBy(join(options.cniBin, name), next => linkSync(draft, next))
      installed.push(`${hashOf(draft)}  ${name}\n`)
    }
    // For STATUS, which tells when somebody overwrote one.
    replaceBy(join(options.cniBin, INSTALLED), next => writeFileSync(next, installed.join(''), { mode: 0o644 }))
  } finally {
    rmSync(draft, { force: true })
  }
  const cnitool = join(options.cniBin, 'cnitool')
  if (!isThere(cnitool) || isOurCnitool(cnitool))
    replaceBy(cnitool, next => writeFileSync(next, cnitoolScript(), { mode: 0o755 }))
  else lines.push("cnitool is another's and stays: ours is `mooring cni`")
  const { mode } = writeSettings(options)
  return [
    ...lines,
    `installed ${[...plugins.keys()].join(', ')} in ${options.cniBin}, mode ${mode} (${options.config})`,
  ]
}

/** The draft that the plugins' names are linked to. @throws {Error} naming a directory that cannot be written */
function putShim(cniBin: string): string {
  const draft = join(cniBin, `.mooring-${process.pid}`)
  try {
    mkdirSync(cniBin, { recursive: true })
    copyFileSync(join(root, 'build/shim'), draft)
    chmodSync(draft, 0o755)
    return draft
  } catch (error) {
    throw new Error(`Cannot install in "${cniBin}": ${(error as Error).message}`, { cause: error })
  }
}

/**
 * Removes what `install` put there; what is another's stays.
 *
 * @returns lines for the user
 * @throws {Error} where nothing of ours is: the settings are of another directory then
 */
export async function uninstall(options: Pick<InstallOptions, 'cniBin' | 'config'>): Promise<string[]> {
  const removed: string[] = []
  const lines: string[] = []
  const kept = readKept(options.cniBin)
  for (const type of [...plugins.keys()].flatMap(name => [name, TAKEN_PREFIX + name])) {
    const file = join(options.cniBin, type)
    if (!existsSync(file) || !(await isShim(file))) continue
    if (kept.has(type)) lines.push(restore(options.cniBin, type, kept.get(type)!))
    else rmSync(file)
    removed.push(type)
  }
  const cnitool = join(options.cniBin, 'cnitool')
  if (isOurCnitool(cnitool)) {
    rmSync(cnitool)
    removed.push('cnitool')
  }
  const hasList = existsSync(join(options.cniBin, INSTALLED))
  if (removed.length === 0 && !hasList)
    throw new Error(
      `Cannot uninstall: nothing of ours is in ${options.cniBin}. Name the directory that mooring install was given`,
    )
  // The lists last: who was killed on the way can do it again.
  for (const file of [options.config, ...[KEPT, INSTALLED].map(list => join(options.cniBin, list))])
    rmSync(file, { force: true })
  return [...lines, `removed ${removed.join(', ') || 'nothing'} from ${options.cniBin}`]
}

/** What had the name before ours. */
const UPSTREAM = '.upstream'
/** In the plugin directory: which of them `install` kept, a line each as sha256sum prints it. */
const KEPT = '.mooring-kept'

/** Of a link: of where it leads, which may be the name that ours takes next. */
function hashOf(file: string): string {
  const content = lstatSync(file).isSymbolicLink() ? readlinkSync(file) : readFileSync(file)
  return createHash('sha256').update(content).digest('hex')
}

function readKept(cniBin: string): Map<string, string> {
  const file = join(cniBin, KEPT)
  const hashes = parseHashes(existsSync(file) ? readFileSync(file, 'utf8') : '')
  return new Map(
    [...hashes].flatMap(([name, hash]) =>
      name.endsWith(UPSTREAM) ? [[name.slice(0, -UPSTREAM.length), hash] as const] : [],
    ),
  )
}

/** Keeps another's executable under a second name; ours takes the first in the next moment. @returns a line for the user */
function keep(cniBin: string, type: string): string {
  const [file, second] = [join(cniBin, type), join(cniBin, type + UPSTREAM)]
  if (lstatSync(file).isDirectory())
    throw new Error(`Cannot take the name ${type} in ${cniBin}: it is a directory. Move it, or leave out --replace`)
  // Written before: what has the name when we are killed here is theirs, and stays.
  const kept = readKept(cniBin).set(type, hashOf(file))
  const lines = [...kept].map(([name, hash]) => `${hash}  ${name}${UPSTREAM}\n`).join('')
  replaceBy(second, next => linkSync(file, next))
  replaceBy(join(cniBin, KEPT), next => writeFileSync(next, lines, { mode: 0o644 }))
  return `${type} was another's: kept as ${type}${UPSTREAM}`
}

/** Gives the name back to what had it, if that is still the same. @returns a line for the user */
function restore(cniBin: string, type: string, hash: string): string {
  const [file, second] = [join(cniBin, type), join(cniBin, type + UPSTREAM)]
  if (!isThere(second) || hashOf(second) !== hash) {
    rmSync(file)
    return `${type}${UPSTREAM} is not what had the name ${type} before: the name is free now`
  }
  renameSync(second, file)
  return `${type} is what it was before`
}

/** A dangling link is somebody's, too. */
const isThere = (file: string) => lstatSync(file, { throwIfNoEntry: false }) !== undefined
const isOursOrNobodys = async (file: string) => !isThere(file) || (existsSync(file) && (await isShim(file)))

function replaceBy(file: string, make: (next: string) => void): void {
  const next = join(dirname(file), `.mooring-next-${process.pid}`)
  rmSync(next, { force: true })
  make(next)
  renameSync(next, file)
  // Renaming one of two links to the same file over the other does nothing, and leaves both.
  rmSync(next, { force: true })
}

const MARK = '# cnitool of Mooring'
const cnitoolScript = () => `#!/bin/sh\n${MARK}\nexec ${quote(join(root, 'mooring'))} cni "$@"\n`
const isOurCnitool = (file: string) =>
  statSync(file, { throwIfNoEntry: false })?.isFile() === true && readFileSync(file, 'latin1').includes(MARK)
const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`

/** A runtime calls from anywhere, so paths do not depend on where that is. */
function writeSettings({ config, mode, socket, dataDir }: InstallOptions): Settings {
  const before = readSettings(config)
  const settings = {
    mode: mode ?? before.mode,
    socket: socket === undefined ? before.socket : resolve(socket),
    dataDir: dataDir === undefined ? before.dataDir : resolve(dataDir),
  }
  mkdirSync(dirname(config), { recursive: true })
  const lines = {
    mode: settings.mode,
    socket: settings.socket,
    data: settings.dataDir,
    node: process.execPath,
    plugin: join(root, 'build/plugin.cjs'),
  }
  const text = Object.entries(lines)
    .map(([key, value]) => `${key}=${value}\n`)
    .join('')
  replaceBy(config, next => writeFileSync(next, text, { mode: 0o644 }))
  return settings
}
