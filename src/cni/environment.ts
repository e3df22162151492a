// SPDX-License-Identifier: Apache-2.0

import { codes } from './codes.ts'
import { CniError } from './error.ts'

/** The variables of one call, by the names that the specification gives them. Empty where the caller gave none. */
export type Environment = {
  readonly command: string
  readonly containerId: string
  readonly netns: string
  readonly ifName: string
  readonly args: string
  readonly path: readonly string[]
  /** CNI_NETNS_OVERRIDE: the plugin's own namespace may be named. */
  readonly netnsOverride: boolean
}

type Variable = {
  readonly name: string
  readonly requiredFor: readonly string[]
  readonly check?: (value: string) => void
}

// Specification, "Parameters". DEL and STATUS do without CNI_PATH, against the reference library: a missing path is no reason to keep an attachment,
// and nobody needs it before a delegate has to be found.
const variables: readonly Variable[] = [
  { name: 'CNI_COMMAND', requiredFor: ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS', 'VERSION'] },
  { name: 'CNI_CONTAINERID', requiredFor: ['ADD', 'CHECK', 'DEL'], check: checkContainerId },
  { name: 'CNI_NETNS', requiredFor: ['ADD', 'CHECK'] },
  { name: 'CNI_IFNAME', requiredFor: ['ADD', 'CHECK', 'DEL'], check: checkIfName },
  { name: 'CNI_ARGS', requiredFor: [] },
  { name: 'CNI_PATH', requiredFor: ['ADD', 'CHECK', 'GC'] },
]

/**
 * Reads and validates the variables that the verb requires; others are taken as they are.
 *
 * @throws {CniError} 4: an invalid one, or all that are missing.
 */
export function readEnvironment(env: Readonly<Record<string, string>>): Environment {
  const command = env['CNI_COMMAND'] ?? ''
  const missing: string[] = []
  for (const { name, requiredFor, check } of variables) {
    if (!requiredFor.includes(command)) continue
    const value = env[name] ?? ''
    if (value === '') missing.push(name)
    else check?.(value)
  }
  if (missing.length > 0) throw invalid(`required env variables [${missing.join(',')}] missing`)
  return {
    command,
    containerId: env['CNI_CONTAINERID'] ?? '',
    netns: env['CNI_NETNS'] ?? '',
    ifName: env['CNI_IFNAME'] ?? '',
    args: env['CNI_ARGS'] ?? '',
    path: splitPath(env['CNI_PATH'] ?? ''),
    netnsOverride: /^(1|true)$/i.test(env['CNI_NETNS_OVERRIDE'] ?? ''),
  }
}

/**
 * The container and interface that a call is about, as the caller wrote them; empty for GC and STATUS, which are about none
 * whatever a shell has exported.
 */
export function readAttachment(env: Readonly<Record<string, string>>): Pick<Environment, 'containerId' | 'ifName'> {
  if (!['ADD', 'CHECK', 'DEL'].includes(env['CNI_COMMAND'] ?? '')) return { containerId: '', ifName: '' }
  return { containerId: env['CNI_CONTAINERID'] ?? '', ifName: env['CNI_IFNAME'] ?? '' }
}

/** The directories of a CNI_PATH. */
export const splitPath = (path: string): string[] => path.split(':').filter(directory => directory !== '')

// Specification, "Network configuration format" and "Parameters"; the same form for container ids and network names.
const nameForm = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/

/** @throws {CniError} 3 if it is empty, so that no DEL follows; 4 if it has other characters than the specification allows. */
export function checkContainerId(containerId: string): void {
  if (containerId === '') throw new CniError(codes.unknownContainer, 'missing containerID')
  if (!nameForm.test(containerId)) throw invalid('invalid characters in containerID', containerId)
}

/** @throws {CniError} 7 if it is empty or has other characters than the specification allows. */
export function checkNetworkName(name: string): void {
  if (name === '') throw new CniError(codes.invalidConfig, 'missing network name')
  if (!nameForm.test(name))
    throw new CniError(codes.invalidConfig, 'invalid characters found in network name', { details: name })
}

/** With Unicode's white space, spelled out: V8 takes half a millisecond to look that property up. */
const SEPARATOR = /[/:\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/

/** @throws {CniError} 4 if the kernel would not take it as the name of a link (IFNAMSIZ is 16 bytes with the final zero). */
export function checkIfName(ifName: string): void {
  if (ifName === '') throw invalid('interface name is empty')
  if (new TextEncoder().encode(ifName).length > 15)
    throw invalid('interface name is too long', 'interface name should be less than 16 characters')
  if (ifName === '.' || ifName === '..') throw invalid('interface name is . or ..')
  if (SEPARATOR.test(ifName)) throw invalid('interface name contains / or : or whitespace characters')
  if (ifName.includes('%')) throw invalid('interface name contains %', 'the kernel makes another name of it')
  // Directories of that name in /proc/sys/net stand for all links.
  if (ifName === 'all' || ifName === 'default')
    throw invalid(`interface name is reserved: ${ifName}`, 'the kernel has no link of that name')
}

/**
 * Reads CNI_ARGS (`K=V;K=V`) for a plugin that knows some keys. Keys are case-sensitive.
 *
 * @throws {CniError} 4 for a pair without exactly one `=`, and for keys that nobody knows unless `IgnoreUnknown` is true.
 */
export function parseCniArgs<Key extends string>(args: string, known: readonly Key[]): Partial<Record<Key, string>> {
  const values: Partial<Record<Key, string>> = {}
  const unknown: string[] = []
  let ignoreUnknown = false
  for (const pair of args === '' ? [] : args.split(';')) {
    const [key, value, ...rest] = pair.split('=')
    if (key === undefined || value === undefined || rest.length > 0)
      throw invalid(`CNI_ARGS: invalid pair "${pair}"`, 'want KEY=VALUE;KEY=VALUE')
    const name = known.find(each => each === key)
    if (name !== undefined) values[name] = value
    else if (key === 'IgnoreUnknown') ignoreUnknown = parseSwitch(pair, value)
    else unknown.push(pair)
  }
  if (unknown.length > 0 && !ignoreUnknown)
    throw invalid(
      `CNI_ARGS: unknown args [${unknown.map(pair => `"${pair}"`).join(' ')}]`,
      `known are ${[...known, 'IgnoreUnknown'].join(', ')}; IgnoreUnknown=1 lets others pass`,
    )
  return values
}

function parseSwitch(pair: string, value: string): boolean {
  if (/^(1|true)$/i.test(value)) return true
  if (/^(0|false)$/i.test(value)) return false
  throw invalid(`CNI_ARGS: error parsing value of pair "${pair}": want 1, 0, true or false`)
}

const invalid = (msg: string, details?: string) => new CniError(codes.invalidEnvironment, msg, { details })
