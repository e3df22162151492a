// SPDX-License-Identifier: Apache-2.0

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { extname, join } from 'node:path'
import { type JsonObject, parseNetworkConfig, parseNetworkList } from '#cni'

export type NetworksOptions = {
  /** Network lists to read, instead of those of the node. */
  readonly conflist?: readonly string[] | undefined
  /** Where the node's lie. */
  readonly confDir: string
}

/** A plugin's configuration, and the file that it stands in. */
export type PluginConfig = { readonly file: string; readonly config: JsonObject }

/**
 * The plugins of the named network lists, or of all that the node has.
 * @param warn told of a file of the node that cannot be read: another's, most likely
 * @throws {Error} where a named one cannot be read
 */
export function readPluginConfigs(
  { conflist, confDir }: NetworksOptions,
  warn: (text: string) => void,
): PluginConfig[] {
  if (conflist !== undefined) return conflist.flatMap(pluginsIn)
  const files = existsSync(confDir) ? readdirSync(confDir).sort() : []
  return files
    .filter(name => ['.conflist', '.conf', '.json'].includes(extname(name)))
    .flatMap(name => {
      const file = join(confDir, name)
      try {
        return pluginsIn(file)
      } catch (error) {
        warn(`${file}: ${(error as Error).message}`)
        return []
      }
    })
}

/** A list, or the configuration of one plugin. */
function pluginsIn(file: string): PluginConfig[] {
  const bytes = readFileSync(file)
  const single = parseNetworkConfig(bytes)
  const configs = 'plugins' in single ? parseNetworkList(bytes).plugins.map(each => each.config) : [single]
  return configs.map(config => ({ file, config }))
}
