// SPDX-License-Identifier: Apache-2.0

import { isPast } from '#base'
import { codes } from './codes.ts'
import { decodeResult } from './convert.ts'
import { array, decode, object, optional, string } from './decode.ts'
import { CniError } from './error.ts'
import { type ExecOptions, execPlugin, findPlugin } from './exec.ts'
import { parseJson } from './json.ts'
import type { Call, Command, Ipam } from './plugin.ts'
import type { Result } from './result.ts'
import { undoCall } from './undo.ts'
import { newestVersion, supportedVersions } from './versions.ts'

export type DelegateOptions = Pick<ExecOptions, 'onStderr'>

/** Executes a delegate as the specification wants it: the same stdin and environment, found on CNI_PATH. @returns its stdout */
async function execute(type: string, command: Command, call: Call, options: DelegateOptions): Promise<Uint8Array> {
  const file = await findPlugin(type, call.path)
  const env = { ...call.env, CNI_COMMAND: command }
  return await execPlugin(file, env, call.stdin, { ...options, deadline: call.deadline, signal: call.signal })
}

/** An IPAM plugin of another's, executed. After an ADD that answered, its DEL is the parent's business. */
export function foreignIpam(type: string, options: DelegateOptions = {}): Ipam {
  const run = async (command: Command, call: Call): Promise<void> => {
    await execute(type, command, call, options)
  }
  const add = async (call: Call): Promise<Result> => {
    await using undo = new AsyncDisposableStack()
    undo.defer(() => run('DEL', undoCall(call)))
    const stdout = await execute(type, 'ADD', call, options).catch(error => {
      // One that failed by itself has cleaned up; one that was killed could not.
      if (!call.signal.aborted && !isPast(call.deadline)) undo.move()
      throw error
    })
    const result = checkIpamResult(readResult(stdout, call.cniVersion, type), type)
    undo.move()
    return result
  }
  return {
    add,
    del: call => run('DEL', call),
    check: call => run('CHECK', call),
    status: call => run('STATUS', call),
    gc: call => run('GC', call),
  }
}

/**
 * The IPAM that a configuration names, as if it were executed: ours in process only where the file that CNI_PATH leads to is ours.
 *
 * @param isOurs tells whether a file is the executable that we installed; another's of the same name wins.
 */
export async function selectIpam(
  type: string,
  path: readonly string[],
  ours: ReadonlyMap<string, Ipam>,
  isOurs: (file: string) => boolean | Promise<boolean>,
  options: DelegateOptions = {},
): Promise<Ipam> {
  const ipam = ours.get(type)
  if (ipam === undefined) return foreignIpam(type, options)
  const file = await findPlugin(type, path).catch(() => undefined)
  return file === undefined || (await isOurs(file)) ? ipam : foreignIpam(type, options)
}

/**
 * The result of a delegated IPAM plugin without what is not its own: interfaces are the parent's, and so are the indexes
 * into them. One that names a NIC by its MAC, and no sandbox, is what the parent is to work with: it stays.
 *
 * @throws {CniError} 105 if an index points nowhere.
 */
export function checkIpamResult(result: Result, type: string): Result {
  const interfaces = result.interfaces?.length ?? 0
  for (const { interface: index, address } of result.ips ?? [])
    if (index !== undefined && (index < 0 || index >= interfaces))
      throw new CniError(
        codes.delegate,
        `IPAM plugin "${type}" gave interface ${index} for ${address}, but ${interfaces} interfaces`,
        { details: 'an IPAM plugin leaves "interface" and "interfaces" to the plugin that called it' },
      )
  const { interfaces: given = [], ips, ...rest } = result
  const nics = given.filter(({ mac, sandbox }) => mac !== undefined && (sandbox ?? '') === '')
  return {
    ...(nics.length === 0 ? {} : { interfaces: nics }),
    ...rest,
    ...(ips === undefined ? {} : { ips: ips.map(({ interface: _index, ...ip }) => ip) }),
  }
}

/** For a plugin that cannot do without an address. @throws {CniError} 105 with the reference's text. */
export function requireIps(result: Result): NonNullable<Result['ips']> {
  if (result.ips === undefined || result.ips.length === 0)
    throw new CniError(codes.delegate, 'IPAM plugin returned missing IP config')
  return result.ips
}

/** What a plugin printed after ADD. @throws {CniError} 105 naming the plugin, if it is no result. */
export function readResult(stdout: Uint8Array, configVersion: string, type: string): Result {
  const what = `result of plugin "${type}"`
  try {
    return decodeResult(parseJson(stdout, what), configVersion, { what, anyFamily: true })
  } catch (error) {
    if (!(error instanceof CniError)) throw error
    throw new CniError(codes.delegate, error.message, { details: error.details, cause: error })
  }
}

/**
 * The versions that a plugin says it supports. One that does not know the question counts as 0.1.0, one that answers 0.2.0
 * without a list as 0.1.0 and 0.2.0.
 */
export async function pluginVersions(
  file: string,
  env: Readonly<Record<string, string>>,
  options: ExecOptions,
): Promise<readonly string[]> {
  // Older plugins require variables that mean nothing here.
  const probe = { ...env, CNI_COMMAND: 'VERSION', CNI_NETNS: 'dummy', CNI_IFNAME: 'dummy', CNI_PATH: 'dummy' }
  const stdin = new TextEncoder().encode(`{"cniVersion":"${newestVersion}"}`)
  let stdout: Uint8Array
  try {
    stdout = await execPlugin(file, probe, stdin, options)
  } catch (error) {
    if (error instanceof CniError && error.message === 'unknown CNI_COMMAND: VERSION')
      return supportedVersions.slice(0, 1)
    throw error
  }
  return readVersions(stdout, file)
}

const versions = object({ cniVersion: optional(string, ''), supportedVersions: optional(array(string), []) })

function readVersions(stdout: Uint8Array, file: string): readonly string[] {
  const what = `answer of ${file} to VERSION`
  const { cniVersion, supportedVersions: list } = decode(versions, parseJson(stdout, what), what)
  if (list.length > 0) return list
  if (cniVersion === '0.2.0') return supportedVersions.slice(0, 2)
  throw new CniError(
    codes.delegate,
    `decoding version info: missing field ${cniVersion === '' ? 'cniVersion' : 'supportedVersions'}`,
    { details: `asked was ${file}` },
  )
}
