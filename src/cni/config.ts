// SPDX-License-Identifier: Apache-2.0

import { readdir, readFile, stat } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { codes } from './codes.ts'
import { boolean, decode, object, optional, record, string } from './decode.ts'
import { CniError } from './error.ts'
import { formatJson, isJsonObject, lookup, parseJsonObject } from './json.ts'
import type { JsonObject, JsonValue } from './plugin.ts'
import { systemErrorOf } from './system-error.ts'
import { compareVersions, newestVersion } from './versions.ts'

/** One plugin of a network, as its configuration stands in the list. */
export type PluginEntry = {
  readonly type: string
  /** The name in the plugin's own object; usually empty, the list has one. */
  readonly name: string
  /** What it declared to take in `runtimeConfig`. */
  readonly capabilities: ReadonlyMap<string, boolean>
  readonly config: JsonObject
}

/** A network configuration as an administrator writes it. */
export type NetworkList = {
  readonly name: string
  readonly cniVersion: string
  readonly disableCheck: boolean
  readonly disableGC: boolean
  readonly loadOnlyInlinedPlugins: boolean
  readonly plugins: readonly PluginEntry[]
  /** The text it was read from. */
  readonly bytes: Uint8Array
}

/** A network that was found, and the files that stood before it and could not be read. */
export type FoundNetwork = { readonly list: NetworkList; readonly faults: readonly CniError[] }

/**
 * Reads a list. It may be without plugins: those can stand in files of their own.
 *
 * @throws {CniError} 6 or 7, in the reference library's words.
 */
export function parseNetworkList(bytes: Uint8Array): NetworkList {
  const raw = parseJsonObject(bytes, 'configuration list')
  const name = raw['name']
  if (name === undefined) throw invalid('no name')
  if (typeof name !== 'string') throw invalid(`invalid name type ${kindOf(name)}`)
  const loadOnlyInlinedPlugins = readSwitch(raw, 'loadOnlyInlinedPlugins')
  return {
    name,
    cniVersion: chooseVersion(raw),
    disableCheck: readSwitch(raw, 'disableCheck'),
    disableGC: readSwitch(raw, 'disableGC'),
    loadOnlyInlinedPlugins,
    plugins: readPlugins(raw['plugins'], loadOnlyInlinedPlugins),
    bytes,
  }
}

/** Reads the configuration of one plugin. @throws {CniError} 6 or 7. */
function parsePluginEntry(config: JsonObject): PluginEntry {
  const { type, name, capabilities } = decode(pluginKeys, config)
  if (type === '') throw new CniError(codes.invalidConfig, `error parsing configuration: missing 'type'`)
  return { type, name, capabilities, config }
}

const pluginKeys = object({
  type: optional(string, ''),
  name: optional(string, ''),
  capabilities: optional(record(boolean), new Map()),
})

/** The highest of `cniVersions` and `cniVersion` that we know; none means 0.1.0. */
function chooseVersion(raw: JsonObject): string {
  const single = raw['cniVersion'] ?? ''
  if (typeof single !== 'string') throw invalid(`invalid cniVersion type ${kindOf(single)}`)
  const several = raw['cniVersions']
  if (several === undefined) return single || '0.1.0'
  if (!Array.isArray(several)) throw invalid(`invalid type for cniVersions: ${kindOf(several)}`)
  const candidates = several.map((version, index) => {
    if (typeof version !== 'string') throw invalid(`invalid type for cniVersions index ${index}: ${kindOf(version)}`)
    requireVersion(version, `invalid cniVersions entry ${version} at index ${index}`)
    return version
  })
  if (single !== '') requireVersion(single, `invalid cniVersion ${single}`)
  const known = [...candidates, ...(single === '' ? [] : [single])].filter(
    version => compareVersions(version, newestVersion) <= 0,
  )
  return known.sort(compareVersions).at(-1) ?? (single || '0.1.0')
}

function requireVersion(version: string, message: string): void {
  try {
    compareVersions(version, newestVersion)
  } catch (error) {
    throw invalid(`${message}: ${(error as CniError).message}`)
  }
}

function readSwitch(raw: JsonObject, key: string): boolean {
  const value = raw[key]
  if (value === undefined) return false
  if (typeof value === 'boolean') return value
  if (typeof value !== 'string') throw invalid(`invalid type ${kindOf(value)} for ${key}`)
  if (/^(true|false)$/i.test(value)) return value.toLowerCase() === 'true'
  throw invalid(`invalid value "${value}" for ${key}`)
}

function readPlugins(raw: JsonValue | undefined, onlyInlined: boolean): PluginEntry[] {
  if (raw === undefined && onlyInlined) throw invalid("`loadOnlyInlinedPlugins` is true, and no 'plugins' key")
  if (raw === undefined) return []
  if (!Array.isArray(raw)) throw invalid(`invalid 'plugins' type ${kindOf(raw)}`)
  if (raw.length === 0) throw invalid('no plugins in list')
  return raw.map((config, index) => {
    try {
      if (!isJsonObject(config)) throw new CniError(codes.invalidConfig, `it is ${kindOf(config)}, not an object`)
      return parsePluginEntry(config)
    } catch (error) {
      if (!(error instanceof CniError)) throw error
      throw new CniError(error.code, `failed to parse plugin config ${index}: ${error.message}`)
    }
  })
}

const kindOf = (value: JsonValue) => (value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value)

const invalid = (reason: string) => new CniError(codes.invalidConfig, `error parsing configuration list: ${reason}`)

/**
 * Finds a network by name: lists (`*.conflist`) in the order of their file names, then single plugins (`*.conf`, `*.json`).
 *
 * A file that cannot be read does not hide those behind it.
 *
 * @throws {CniError} 7 if there is none; that of the file itself, if one of this name cannot be read.
 */
export async function findNetwork(directory: string, name: string): Promise<FoundNetwork> {
  const lists = await filesIn(directory, ['.conflist'])
  const singles = await filesIn(directory, ['.conf', '.json'])
  const faults: CniError[] = []
  let named: CniError | undefined
  for (const [index, file] of [...lists, ...singles].entries()) {
    let bytes: Uint8Array = new Uint8Array()
    try {
      bytes = new Uint8Array(await readFile(file))
      const list = index < lists.length ? await withSideLoaded(parseNetworkList(bytes), directory) : wrap(bytes)
      if (list.name === name) return { list, faults }
    } catch (error) {
      const fault = inFile(file, error)
      faults.push(fault)
      if (tryName(bytes) === name) named ??= fault
    }
  }
  if (named !== undefined) throw named
  throw new CniError(
    codes.invalidConfig,
    lists.length + singles.length === 0
      ? `no net configurations found in ${directory}`
      : `no net configuration with name "${name}" in ${directory}`,
    { details: faults.map(fault => fault.message).join('; ') },
  )
}

async function withSideLoaded(list: NetworkList, directory: string): Promise<NetworkList> {
  if (list.loadOnlyInlinedPlugins) return list
  const plugins = [...list.plugins]
  for (const file of await filesIn(join(directory, list.name), ['.conf']))
    try {
      plugins.push(parsePluginEntry(parseJsonObject(new Uint8Array(await readFile(file)), 'plugin configuration')))
    } catch (error) {
      throw inFile(file, error)
    }
  if (plugins.length === 0) throw new CniError(codes.invalidConfig, 'no plugin configs found')
  return { ...list, plugins }
}

/** A single plugin as a list of one. */
function wrap(bytes: Uint8Array): NetworkList {
  const config = parseJsonObject(bytes, 'configuration')
  const { name } = parsePluginEntry(config)
  const cniVersion = lookup(config, 'cniVersion') ?? ''
  return parseNetworkList(new TextEncoder().encode(formatJson({ name, cniVersion, plugins: [config] })))
}

async function filesIn(directory: string, extensions: readonly string[]): Promise<string[]> {
  const names = await readdir(directory).catch(error => {
    if (systemErrorOf(error)?.code === 'ENOENT') return []
    throw error
  })
  const files = names
    .filter(name => extensions.includes(extname(name)))
    .sort()
    .map(name => join(directory, name))
  const kinds = await Promise.all(files.map(file => stat(file).catch(() => undefined)))
  // A dangling link stays in the list, to be reported.
  return files.filter((_, index) => kinds[index] === undefined || kinds[index].isFile())
}

function inFile(file: string, error: unknown): CniError {
  if (error instanceof CniError)
    return new CniError(error.code, `${file}: ${error.message}`, { details: error.details })
  const system = systemErrorOf(error)
  if (system === undefined) throw error
  return new CniError(codes.io, `error reading ${file}: ${system.text}`, { cause: error })
}

function tryName(bytes: Uint8Array): JsonValue | undefined {
  try {
    return parseJsonObject(bytes, 'configuration')['name']
  } catch {
    return undefined
  }
}

/**
 * What a plugin gets on stdin: its own object, with the list's name and version and what the runtime has to say.
 *
 * `capabilities` stays behind, as the specification has it. Keys that we set replace those of the same name in any case.
 *
 * @param capabilityArgs what the runtime offers; only declared ones are passed on.
 */
export function requestConfig(
  list: NetworkList,
  plugin: PluginEntry,
  more: JsonObject,
  capabilityArgs: JsonObject = {},
): Uint8Array {
  const declared = Object.entries(capabilityArgs).filter(([key]) => plugin.capabilities.get(key) === true)
  const set: JsonObject = {
    cniVersion: list.cniVersion,
    name: list.name,
    ...more,
    ...(declared.length === 0 ? {} : { runtimeConfig: Object.fromEntries(declared) }),
  }
  const replaced = new Set([...Object.keys(set), 'capabilities'].map(key => key.toLowerCase()))
  const kept = Object.entries(plugin.config).filter(([key]) => !replaced.has(key.toLowerCase()))
  return new TextEncoder().encode(formatJson(Object.fromEntries([...Object.entries(set), ...kept])))
}
