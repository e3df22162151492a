// SPDX-License-Identifier: Apache-2.0

import { closeSync } from 'node:fs'
import { type Deadline, isPast } from '#base'
import { codes } from './codes.ts'
import { checkExpressible, decodeResult } from './convert.ts'
import { array, decode, object, optional, string } from './decode.ts'
import { checkNetworkName, type Environment, readEnvironment } from './environment.ts'
import { CniError } from './error.ts'
import { lookup } from './json.ts'
import { checkNetns, isSameNetns, openNetns, unlessGone } from './netns.ts'
import { oncePerConfig, parseNetworkConfig } from './network-config.ts'
import type { Call, Command, JsonObject, Plugin, ValidAttachment } from './plugin.ts'
import { printError, printResult, printVersions } from './print.ts'
import type { Result } from './result.ts'
import { toCniError } from './to-cni-error.ts'
import { undoCall } from './undo.ts'
import { checkVersion, newestVersion, supportedVersions, type Version } from './versions.ts'

/** One call as a process receives it. */
export type Request = {
  readonly env: Readonly<Record<string, string>>
  readonly stdin: Uint8Array
  /** The namespace behind CNI_NETNS where the caller opened it already; stays the caller's to close. */
  readonly netnsFd?: number | undefined
}

/** What a process answers. */
export type Reply = { readonly exitCode: number; readonly stdout: Uint8Array; readonly stderr: string }

export type DispatchOptions = {
  readonly deadline: Deadline
  /** Aborted when the caller went away. */
  readonly signal: AbortSignal
  /** For errors of rooms that this one does not know; hands the rest on to `toCniError`. */
  readonly toCniError?: ((error: unknown) => CniError) | undefined
  /** A path to the namespace in which this plugin works and which therefore no container may be. @default the process's own */
  readonly ownNetns?: string | undefined
}

/**
 * Serves one call of a plugin, as the reference's `skel` does: environment, standard input, network name, version, verb, in this
 * order; then the plugin; then its answer in the configuration's version. Never throws.
 *
 * Reads neither process.env nor the working directory, so that many calls can run at once in one process.
 */
export async function dispatch<World>(
  plugin: Plugin<World>,
  request: Request,
  world: World,
  options: DispatchOptions,
): Promise<Reply> {
  if ((request.env['CNI_COMMAND'] ?? '') === '') return { exitCode: 0, stdout: empty, stderr: about(plugin.type) }
  try {
    return { exitCode: 0, stdout: await serve(plugin, request, world, options), stderr: '' }
  } catch (cause) {
    const error = (options.toCniError ?? toCniError)(cause)
    return {
      exitCode: 1,
      stdout: printError(error, versionFor(request.stdin)),
      stderr: error.code === codes.internal ? `${stackOf(cause)}\n` : '',
    }
  }
}

const empty = new Uint8Array()

const about = (type: string) =>
  `CNI ${type} plugin of Mooring\nCNI protocol versions supported: ${supportedVersions.join(', ')}\n`

const stackOf = (error: unknown) => (error instanceof Error ? (error.stack ?? error.message) : String(error))

async function serve<World>(plugin: Plugin<World>, request: Request, world: World, options: DispatchOptions) {
  const environment = readEnvironment(request.env)
  if (environment.command === 'VERSION') return printVersions()
  const config = parseNetworkConfig(request.stdin)
  const network = networkNameOf(config)
  checkNetworkName(network)
  const { command } = environment
  if (!isCommand(command)) throw new CniError(codes.invalidEnvironment, `unknown CNI_COMMAND: ${command}`)
  const cniVersion = versionOf(config)
  checkVersion(cniVersion, command)
  const prevResult = readPrevResult(config, cniVersion, command)
  const valid = command === 'GC' ? readValidAttachments(config) : undefined
  if (options.signal.aborted || isPast(options.deadline))
    throw new CniError(codes.tryAgainLater, `Cannot start ${command}: the caller does not wait any more`)
  const netnsFd = netnsFor(command, environment.netns, request.netnsFd, plugin.needsNetns ?? true)
  try {
    if (netnsFd !== undefined) refuseOwnNetns(command, netnsFd, environment, options.ownNetns)
    const call: Call = {
      command,
      containerId: environment.containerId,
      ifName: environment.ifName,
      netns: environment.netns,
      netnsFd,
      args: environment.args,
      path: environment.path,
      stdin: request.stdin,
      config,
      network,
      cniVersion,
      prevResult,
      env: request.env,
      deadline: options.deadline,
      signal: options.signal,
    }
    return await perform(plugin, call, world, cniVersion, valid)
  } finally {
    if (netnsFd !== undefined && netnsFd !== request.netnsFd) closeSync(netnsFd)
  }
}

async function perform<World>(
  plugin: Plugin<World>,
  call: Call,
  world: World,
  cniVersion: Version,
  valid: readonly ValidAttachment[] | undefined,
): Promise<Uint8Array> {
  switch (call.command) {
    case 'ADD':
      return await addOrUndo(plugin, call, world, cniVersion)
    case 'DEL':
      await plugin.del(call, world)
      return empty
    case 'CHECK':
      await plugin.check(call, world)
      return empty
    case 'STATUS':
      await plugin.status(call, world)
      return empty
    case 'GC':
      await plugin.gc(call, world, valid)
      return empty
  }
}

// The attachment stands when the plugin returns. What cannot be told to the caller, or has no caller any more, is taken back.
async function addOrUndo<World>(
  plugin: Plugin<World>,
  call: Call,
  world: World,
  version: Version,
): Promise<Uint8Array> {
  const result: Result = await plugin.add(call, world)
  await using undo = new AsyncDisposableStack()
  undo.defer(() => plugin.del(undoCall(call), world))
  checkExpressible(result, version)
  const stdout = printResult(result, version)
  if (call.signal.aborted) throw new CniError(codes.tryAgainLater, 'Cannot answer ADD: the caller went away')
  undo.move()
  return stdout
}

const isCommand = (text: string): text is Command => ['ADD', 'DEL', 'CHECK', 'STATUS', 'GC'].includes(text)

const nameOnly = object({ name: optional(string, '') })
const networkNameOf = oncePerConfig(config => decode(nameOnly, config).name)

/** The version of a configuration; none means 0.1.0. @throws {CniError} 6 if it is no text. */
export function versionOf(config: JsonObject): string {
  const version = lookup(config, 'cniVersion') ?? ''
  if (typeof version !== 'string')
    throw new CniError(codes.decode, 'Cannot decode network configuration: "cniVersion" is not a string')
  return version === '' ? '0.1.0' : version
}

/** The version for an error about a configuration that may not be readable. */
function versionFor(stdin: Uint8Array): string {
  try {
    return versionOf(parseNetworkConfig(stdin))
  } catch {
    return newestVersion
  }
}

// DEL, GC and STATUS have to work whatever an earlier plugin, or a broken cache, put there.
function readPrevResult(config: JsonObject, version: Version, command: Command): Result | undefined {
  const value = lookup(config, 'prevResult') ?? undefined
  if (value === undefined) return undefined
  try {
    return decodeResult(value, version, { what: 'prevResult' })
  } catch (error) {
    if (command !== 'ADD' && command !== 'CHECK') return undefined
    const { code, message } = toCniError(error)
    throw new CniError(code, `could not parse prevResult: ${message}`, { cause: error })
  }
}

/** The attachments that the runtime still knows; undefined where it passed none. @throws {CniError} 7 naming the key. */
export function readValidAttachments(config: JsonObject): readonly ValidAttachment[] | undefined {
  const list = decode(validAttachments, config)['cni.dev/valid-attachments']
  return list?.map(each => ({ containerId: each.containerID, ifName: each.ifname }))
}

const validAttachments = object({
  'cni.dev/valid-attachments': optional(array(object({ containerID: string, ifname: string }))),
})

// A namespace that is not there is an error of ADD and CHECK; for DEL it is gone, whatever stands at its path now.
function netnsFor(command: Command, netns: string, given: number | undefined, needed: boolean): number | undefined {
  if (command === 'STATUS' || command === 'GC') return undefined
  const find = () => {
    if (given === undefined) return openNetns(netns)
    checkNetns(given, netns)
    return given
  }
  if (command !== 'DEL' && needed) return find()
  return netns === '' ? undefined : unlessGone(find)
}

function refuseOwnNetns(command: Command, fd: number, environment: Environment, own: string | undefined): void {
  if (environment.netnsOverride || (command !== 'ADD' && command !== 'DEL')) return
  if (isSameNetns(fd, own))
    throw new CniError(codes.invalidNetns, "plugin's netns and netns from CNI_NETNS should not be the same", {
      details: `CNI_NETNS is "${environment.netns}"; CNI_NETNS_OVERRIDE=1 lets it pass`,
    })
}
