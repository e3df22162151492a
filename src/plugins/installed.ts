// SPDX-License-Identifier: Apache-2.0

import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { listAttachmentTypes } from '#allocator'
import { sha256Hex } from '#base'
import { type Call, CniError, codes } from '#cni'
import { namedIpam } from './interface.ts'
import type { World } from './world.ts'

/** In a plugin directory: the executables that `mooring install` put there, a line each as sha256sum prints it. */
export const INSTALLED = '.mooring-installed'

/** Of each name the hash that stands in such a list. */
export const parseHashes = (text: string): Map<string, string> =>
  new Map(
    text.split('\n').flatMap(line => {
      const [hash, name] = line.split('  ')
      return hash && name ? [[name, hash] as const] : []
    }),
  )

/**
 * For STATUS: what the network calls is what was installed. Of the executables those count that the configuration names,
 * and those that have attachments in the network: it is no fault of this one if somebody else's network has lost its own.
 * @throws {CniError} 50 naming the executables
 */
export function requireInstalled({ config, network, path }: Call, world: World): void {
  const named: unknown[] = [config['type'], namedIpam(config)]
  // A process of one call opens no journal for STATUS, which makes nothing.
  const used = new Set([...named, ...(world.longLived ? listAttachmentTypes(world.journal, network) : [])])
  for (const directory of path) {
    const list = join(directory, INSTALLED)
    if (!existsSync(list)) continue
    const lost = [...parseHashes(readFileSync(list, 'utf8'))]
      .filter(([name, hash]) => used.has(name) && hashOfFile(join(directory, name)) !== hash)
      .map(([name]) => name)
    if (lost.length > 0)
      throw new CniError(
        codes.notAvailable,
        `Cannot serve: somebody overwrote ${lost.join(', ')} in ${directory}, which ${lost.length === 1 ? 'was' : 'were'} ours`,
        { details: 'see what came there (a package of other plugins?), then: mooring install --replace --cni-bin DIR' },
      )
  }
}

const known = new Map<string, string>()

/** Read once, until inode, size or time of the file change. Undefined where it is gone. */
function hashOfFile(file: string): string | undefined {
  const found = statSync(file, { throwIfNoEntry: false })
  if (found === undefined) return undefined
  const key = `${found.dev}:${found.ino}:${found.size}:${found.mtimeMs}`
  const hash = known.get(key) ?? sha256Hex(readFileSync(file))
  if (known.size >= KNOWN_MAX) known.clear()
  known.set(key, hash)
  return hash
}
const KNOWN_MAX = 256
