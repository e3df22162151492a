// SPDX-License-Identifier: Apache-2.0

import { codes } from './codes.ts'
import { CniError } from './error.ts'

/** Every version of the CNI specification that has a result format, oldest first. */
export const supportedVersions = Object.freeze(['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const)
export type Version = (typeof supportedVersions)[number]

export const newestVersion: Version = '1.1.0'

/** The first version that knows a verb; ADD, DEL and VERSION are as old as the specification. */
const verbSince = new Map([
  ['CHECK', '0.4.0'],
  ['GC', '1.1.0'],
  ['STATUS', '1.1.0'],
])

/** True if results of this version can be written and read. */
export const isSupported = (version: string): version is Version => supportedVersions.includes(version as Version)

/**
 * Negative, zero or positive, as `a` is older than, equal to or newer than `b`. Empty counts as 0.1.0, a missing part as 0.
 *
 * @throws {CniError} 6 for text that is no version.
 */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [partsOf(a), partsOf(b)]
  for (const [index, part] of left.entries()) if (part !== right[index]) return part - right[index]!
  return 0
}

function partsOf(version: string): readonly [number, number, number] {
  if (version === '') return [0, 1, 0]
  const match = /^(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?$/.exec(version)
  if (match === null) throw new CniError(codes.decode, `Cannot decode CNI version "${version}": want MAJOR.MINOR.PATCH`)
  return [Number(match[1]), Number(match[2] ?? 0), Number(match[3] ?? 0)]
}

/** True if a configuration of this version may be used with the verb. @throws {CniError} 6 for text that is no version. */
export function allowsVerb(version: string, verb: string): boolean {
  const since = verbSince.get(verb)
  return since === undefined || compareVersions(version, since) >= 0
}

/**
 * What the reference library checks before it calls a plugin: the verb is known to the version, the version to us.
 *
 * @throws {CniError} 1, or 6 for text that is no version where an order is asked for.
 */
export function checkVersion(version: string, verb: string): asserts version is Version {
  if (!allowsVerb(version, verb))
    throw new CniError(codes.incompatibleVersion, `config version does not allow ${verb}`, {
      details: `config is "${version}", ${verb} needs "${verbSince.get(verb)}"`,
    })
  if (!isSupported(version))
    throw new CniError(codes.incompatibleVersion, 'incompatible CNI versions', {
      details: `config is "${version}", plugin supports [${supportedVersions.map(each => `"${each}"`).join(' ')}]`,
    })
}
