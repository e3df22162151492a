// SPDX-License-Identifier: Apache-2.0

import {
  type Attachment,
  cachedAttachments,
  checkCacheFile,
  readCachedResult,
  removeCache,
  writeCache,
} from './cache.ts'
import { codes } from './codes.ts'
import { type NetworkList, type PluginEntry, parseNetworkList, requestConfig } from './config.ts'
import { encodeResult } from './convert.ts'
import { pluginVersions, readResult } from './delegate.ts'
import { checkContainerId, checkIfName, checkNetworkName } from './environment.ts'
import { CniError } from './error.ts'
import { type ExecOptions, execPlugin, findPlugin } from './exec.ts'
import type { Command, JsonObject, ValidAttachment } from './plugin.ts'
import type { Result } from './result.ts'
import { toCniError } from './to-cni-error.ts'
import { allowsVerb, checkVersion, compareVersions } from './versions.ts'

// libcni's role: what a container runtime, or a person with cnitool, does with a network list.

/** The surroundings in which lists are executed. */
export type Runtime = ExecOptions & {
  /** CNI_PATH, split. */
  readonly path: readonly string[]
  /** The environment that plugins get beside their CNI variables. */
  readonly env: Readonly<Record<string, string>>
  readonly cacheDirectory: string
}

/**
 * Executes ADD of every plugin in order, each with the result of the one before, and keeps the last result.
 *
 * Stops at the first failure and undoes nothing: calling DEL then is the caller's part.
 */
export async function addNetworkList(list: NetworkList, attachment: Attachment, runtime: Runtime): Promise<Result> {
  const { cniVersion } = list
  checkVersion(cniVersion, 'ADD')
  checkAttachment(list, attachment)
  await checkCacheFile(runtime.cacheDirectory, list.name, attachment)
  let result: Result | undefined
  for (const plugin of list.plugins) {
    const prevResult = result && { prevResult: encodeResult(result, cniVersion) }
    result = await described(plugin, 'add', async () => {
      const config = requestConfig(list, plugin, prevResult ?? {}, attachment.capabilityArgs)
      return readResult(await call(plugin, 'ADD', attachment, config, runtime), cniVersion, plugin.type)
    })
  }
  await writeCache(runtime.cacheDirectory, list.name, attachment, list.bytes, result ?? {}, cniVersion)
  return result ?? {}
}

/** Executes DEL in reverse order, with the kept result; stops at the first failure, and keeps the result then for the next time. */
export async function delNetworkList(list: NetworkList, attachment: Attachment, runtime: Runtime): Promise<void> {
  checkVersion(list.cniVersion, 'DEL')
  checkAttachment(list, attachment)
  // A result that cannot be read must not keep the attachment alive.
  const kept = await readCachedResult(runtime.cacheDirectory, list.name, attachment).catch(() => undefined)
  const prevResult = compareVersions(list.cniVersion, '0.4.0') >= 0 ? kept : undefined
  for (const plugin of list.plugins.toReversed())
    await described(plugin, 'delete', () => callWithResult(list, plugin, 'DEL', attachment, prevResult, runtime))
  await removeCache(runtime.cacheDirectory, list.name, attachment)
}

/** Executes CHECK in order with the kept result; does nothing where the list disables it. */
export async function checkNetworkList(list: NetworkList, attachment: Attachment, runtime: Runtime): Promise<void> {
  if (!allowsVerb(list.cniVersion, 'CHECK'))
    throw new CniError(
      codes.incompatibleVersion,
      `configuration version "${list.cniVersion}" does not support the CHECK command`,
    )
  if (list.disableCheck) return
  checkVersion(list.cniVersion, 'CHECK')
  checkAttachment(list, attachment)
  const prevResult = await readCachedResult(runtime.cacheDirectory, list.name, attachment).catch(error => {
    const { code, message } = toCniError(error)
    throw new CniError(code, `failed to get network "${list.name}" cached result: ${message}`, { cause: error })
  })
  for (const plugin of list.plugins) await callWithResult(list, plugin, 'CHECK', attachment, prevResult, runtime)
}

/** Executes STATUS in order and stops at the first failure; does nothing for lists that are older than the verb. */
export async function statusNetworkList(list: NetworkList, runtime: Runtime): Promise<void> {
  if (!allowsVerb(list.cniVersion, 'STATUS')) return
  for (const plugin of list.plugins) await call(plugin, 'STATUS', nobody, requestConfig(list, plugin, {}), runtime)
}

/**
 * Executes DEL for every kept attachment of the network that is not valid, then GC of every plugin. Goes on over failures.
 *
 * @param valid undefined: none is valid, and plugins are told nothing.
 * @param asOfMs when `valid` was made (milliseconds since 1970): what was attached later is not touched.
 * @throws {CniError} all failures in one.
 */
export async function gcNetworkList(
  list: NetworkList,
  runtime: Runtime,
  valid: readonly ValidAttachment[] | undefined,
  asOfMs = Date.now(),
): Promise<void> {
  if (list.disableGC) return
  const failures: CniError[] = []
  for (const stale of await cachedAttachments(runtime.cacheDirectory)) {
    if (stale.network !== list.name || stale.writtenMs > asOfMs) continue
    if (valid?.some(each => each.containerId === stale.containerId && each.ifName === stale.ifName)) continue
    await collect(failures, `failed to delete stale attachment ${stale.containerId} ${stale.ifName}`, () =>
      delNetworkList(asItWas(list, stale.config), stale, runtime),
    )
  }
  if (allowsVerb(list.cniVersion, 'GC'))
    for (const plugin of list.plugins)
      await collect(failures, `failed to GC plugin ${plugin.type}`, () =>
        call(plugin, 'GC', nobody, requestConfig(list, plugin, gcKeys(valid)), runtime),
      )
  if (failures.length > 0) throw joined(failures)
}

/**
 * Looks whether every plugin is there and supports the list's version.
 *
 * @returns the capabilities that any of them declared.
 * @throws {CniError} all failures in one.
 */
export async function validateNetworkList(list: NetworkList, runtime: Runtime): Promise<string[]> {
  const failures: CniError[] = []
  for (const plugin of list.plugins)
    try {
      const file = await findPlugin(plugin.type, runtime.path)
      if (!(await pluginVersions(file, runtime.env, runtime)).includes(list.cniVersion))
        throw new CniError(
          codes.incompatibleVersion,
          `plugin ${plugin.type} does not support config version "${list.cniVersion}"`,
        )
    } catch (error) {
      failures.push(toCniError(error))
    }
  if (failures.length > 0) throw joined(failures)
  const declared = list.plugins.flatMap(plugin => [...plugin.capabilities].filter(([, enabled]) => enabled))
  return [...new Set(declared.map(([capability]) => capability))].sort()
}

const nobody: Attachment = { containerId: '', ifName: '', netns: '', args: [], capabilityArgs: {} }

function checkAttachment(list: NetworkList, attachment: Attachment): void {
  checkContainerId(attachment.containerId)
  checkNetworkName(list.name)
  checkIfName(attachment.ifName)
}

async function callWithResult(
  list: NetworkList,
  plugin: PluginEntry,
  command: Command,
  attachment: Attachment,
  result: Result | undefined,
  runtime: Runtime,
): Promise<void> {
  checkVersion(list.cniVersion, command)
  const prevResult = result === undefined ? {} : { prevResult: encodeResult(result, list.cniVersion) }
  await call(plugin, command, attachment, requestConfig(list, plugin, prevResult, attachment.capabilityArgs), runtime)
}

async function call(
  plugin: PluginEntry,
  command: Command,
  { containerId, ifName, netns, args }: Attachment,
  config: Uint8Array,
  runtime: Runtime,
): Promise<Uint8Array> {
  const file = await findPlugin(plugin.type, runtime.path)
  const env = {
    ...runtime.env,
    CNI_COMMAND: command,
    CNI_CONTAINERID: containerId,
    CNI_NETNS: netns,
    CNI_IFNAME: ifName,
    CNI_ARGS: args.map(pair => pair.join('=')).join(';'),
    CNI_PATH: runtime.path.join(':'),
  }
  return await execPlugin(file, env, config, runtime)
}

/** The failure of a plugin in the words that people look for in the kubelet's log. */
async function described<T>(plugin: PluginEntry, verb: 'add' | 'delete', work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    const { code, message, details } = toCniError(cause)
    const name = plugin.name === '' ? '' : ` name="${plugin.name}"`
    throw new CniError(code, `plugin type="${plugin.type}"${name} failed (${verb}): ${message}`, { details, cause })
  }
}

/** The list with which an attachment was made, plugins from files of their own as they are today. */
function asItWas(list: NetworkList, bytes: Uint8Array): NetworkList {
  try {
    const then = parseNetworkList(bytes)
    const inlinedToday = parseNetworkList(list.bytes).plugins.length
    const sideLoaded = then.loadOnlyInlinedPlugins ? [] : list.plugins.slice(inlinedToday)
    return { ...then, name: list.name, plugins: [...then.plugins, ...sideLoaded] }
  } catch {
    return list
  }
}

// The second key was the first's name before the specification was final.
function gcKeys(valid: readonly ValidAttachment[] | undefined): JsonObject {
  if (valid === undefined) return {}
  const list = valid.map(each => ({ containerID: each.containerId, ifname: each.ifName }))
  return { 'cni.dev/valid-attachments': list, 'cni.dev/attachments': list }
}

async function collect(failures: CniError[], what: string, work: () => Promise<unknown>): Promise<void> {
  try {
    await work()
  } catch (cause) {
    const { code, message, details } = toCniError(cause)
    failures.push(new CniError(code, `${what}: ${message}`, { details, cause }))
  }
}

function joined(failures: readonly CniError[]): CniError {
  const [first] = failures
  if (first !== undefined && failures.length === 1) return first
  const text = failures.map(({ message, details }) => (details === undefined ? message : `${message}; ${details}`))
  return new CniError(first?.code ?? codes.internal, text.join('\n'))
}
