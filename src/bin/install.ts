// SPDX-License-Identifier: Apache-2.0

import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { isShim, plugins, TAKEN_PREFIX } from '#plugins'

export type InstallOptions = {
  /** The runtime's plugin directory. */
  readonly cniBin: string
  readonly mode: 'standalone' | 'agent'
  /** The file that tells shims what to do. */
  readonly config: string
  readonly socket: string
  readonly dataDir: string
}

/** Where the shim looks (shim/shim.c). */
export const SETTINGS = '/etc/mooring/mode'
const root = resolve(import.meta.dirname, '../..')

/**
 * Puts one executable per plugin type into a directory: hard links of one copy of the shim, and `cnitool`.
 *
 * A name that is another's stays; ours is then `mooring-NAME`. Files are replaced by rename, so that a runtime can go on
 * executing them.
 * @returns lines for the user
 */
export async function install(options: InstallOptions): Promise<string[]> {
  mkdirSync(options.cniBin, { recursive: true })
  const lines: string[] = []
  const draft = join(options.cniBin, `.mooring-${process.pid}`)
  copyFileSync(join(root, 'build/shim'), draft)
  chmodSync(draft, 0o755)
  try {
    for (const type of plugins.keys()) {
      const name = (await isFree(join(options.cniBin, type))) ? type : TAKEN_PREFIX + type
      if (name !== type) lines.push(`${type} is another's and stays: ours is ${name}`)
      replaceBy(join(options.cniBin, name), next => linkSync(draft, next))
    }
  } finally {
    rmSync(draft, { force: true })
  }
  const cnitool = join(options.cniBin, 'cnitool')
  if (!isThere(cnitool) || (existsSync(cnitool) && isOurCnitool(cnitool)))
    replaceBy(cnitool, next => writeFileSync(next, cnitoolScript(), { mode: 0o755 }))
  else lines.push("cnitool is another's and stays: ours is `mooring cni`")
  writeSettings(options)
  return [
    ...lines,
    `installed ${[...plugins.keys()].join(', ')} in ${options.cniBin}, mode ${options.mode} (${options.config})`,
  ]
}

/** Removes what `install` put there; what is another's stays. @returns lines for the user */
export async function uninstall(options: Pick<InstallOptions, 'cniBin' | 'config'>): Promise<string[]> {
  const removed: string[] = []
  for (const type of [...plugins.keys()].flatMap(name => [name, TAKEN_PREFIX + name])) {
    const file = join(options.cniBin, type)
    if (!existsSync(file) || !(await isShim(file))) continue
    rmSync(file)
    removed.push(type)
  }
  const cnitool = join(options.cniBin, 'cnitool')
  if (existsSync(cnitool) && isOurCnitool(cnitool)) {
    rmSync(cnitool)
    removed.push('cnitool')
  }
  rmSync(options.config, { force: true })
  return [`removed ${removed.join(', ') || 'nothing'} from ${options.cniBin}`]
}

/** A dangling link is somebody's, too. */
const isThere = (file: string) => lstatSync(file, { throwIfNoEntry: false }) !== undefined
const isFree = async (file: string) => !isThere(file) || (existsSync(file) && (await isShim(file)))

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
const isOurCnitool = (file: string) => readFileSync(file, 'latin1').includes(MARK)
const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`

function writeSettings({ config, mode, socket, dataDir }: InstallOptions): void {
  mkdirSync(dirname(config), { recursive: true })
  const lines = { mode, socket, data: dataDir, node: process.execPath, plugin: join(root, 'build/plugin.cjs') }
  const text = Object.entries(lines)
    .map(([key, value]) => `${key}=${value}\n`)
    .join('')
  replaceBy(config, next => writeFileSync(next, text, { mode: 0o644 }))
}
