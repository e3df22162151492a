// SPDX-License-Identifier: Apache-2.0

import { isAbsolute, join } from 'node:path'
import { completeRangeSets, InvalidRange, type RangeSet, type RangeSpec } from '#allocator'
import { formatIp, isV4, tryParseIp, tryParsePrefix } from '#base'
import {
  anything,
  array,
  type Call,
  CniError,
  codes,
  compareVersions,
  type Decoder,
  decode,
  decodeResult,
  type JsonObject,
  lookup,
  newestVersion,
  object,
  oncePerConfig,
  optional,
  parseCniArgs,
  parsed,
  type Route,
  string,
} from '#cni'

/** Where the reference keeps its reservations. */
const DATA_DIR = '/var/lib/cni/networks'
/** NAME_MAX; the names of networks are ASCII. */
const NAME_BYTES_MAX = 255

export type HostLocalConfig = {
  readonly sets: readonly RangeSet[]
  readonly routes: readonly Route[]
  /** Path of a file like /etc/resolv.conf for the result, empty for none. */
  readonly resolvConf: string
  /** Addresses that the caller wants, canonical, each once. */
  readonly requested: readonly string[]
}

const maybe = <T>(of: Decoder<T>): Decoder<T | undefined> => {
  const inner = optional(of)
  // Go reads an empty text as no address.
  return (value, path) => inner(value === '' ? undefined : value, path)
}

const ip = parsed(tryParseIp, 'an IP address')
/** An address with or without length; the length says nothing. */
const wanted = parsed(text => {
  const found = text.includes('/') ? tryParsePrefix(text)?.ip : tryParseIp(text)
  return found && formatIp(found)
}, 'an IP address')

const rangeKeys = {
  subnet: optional(parsed(tryParsePrefix, 'ADDRESS/LENGTH')),
  rangeStart: maybe(ip),
  rangeEnd: maybe(ip),
  gateway: maybe(ip),
}
const rangeSets = optional(array(array(object(rangeKeys))), [])

const whole = object({
  ipam: object({
    ...rangeKeys,
    ranges: rangeSets,
    routes: optional(anything),
    dataDir: optional(string, ''),
    resolvConf: optional(string, ''),
  }),
  runtimeConfig: optional(object({ ipRanges: rangeSets, ips: optional(array(wanted), []) })),
  args: optional(object({ cni: optional(object({ ips: optional(array(wanted), []) })) })),
})

/** Reads the configuration for a new attachment. @throws {CniError} 4, 7 */
export function readConfig(call: Call): HostLocalConfig {
  const config = readAll(call)
  if (config.sets.length === 0) throw invalid('no IP ranges specified')
  return config
}

/** Reads what there is while nobody is to be attached: ranges may come with the attachment. @throws {CniError} 7 */
export function checkConfig(call: Call): HostLocalConfig {
  return readAll({ ...call, args: '' })
}

/**
 * The directory of a network's reservations, from a configuration that may be wrong everywhere else: what was given has to be found
 * and released also then.
 *
 * @throws {CniError} 7 if `dataDir` is no absolute path, or the network's name no file name
 */
export function directoryOf(call: Call): string {
  const dataDir = dataDirOf(call.config)
  if (dataDir !== '' && !isAbsolute(dataDir))
    throw new CniError(codes.invalidConfig, `Cannot use ipam.dataDir "${dataDir}": it is not an absolute path`, {
      details: 'a relative one would mean another directory for each program that calls',
    })
  if (call.network.length > NAME_BYTES_MAX)
    throw new CniError(
      codes.invalidConfig,
      `Cannot keep reservations of network ${call.network}: the name of a directory has at most ${NAME_BYTES_MAX} bytes`,
    )
  return join(dataDir || DATA_DIR, call.network)
}

const dataDirOnly = object({ dataDir: optional(string, '') })
const dataDirOf = oncePerConfig(config => {
  const ipam = lookup(config, 'ipam')
  return decode(dataDirOnly, isObject(ipam) ? ipam : {}, '"ipam"').dataDir
})

/** The same for DEL: undefined where ADD refuses to reserve anything, so that there is nothing to release. */
export function tryDirectoryOf(call: Call): string | undefined {
  try {
    return directoryOf(call)
  } catch (error) {
    if (error instanceof CniError && error.code === codes.invalidConfig) return undefined
    throw error
  }
}

function readAll(call: Call): HostLocalConfig {
  const config = readWhole(call.config)
  checkFamilies(config.sets, call.cniVersion)
  return { ...config, requested: [...new Set([...requestedByArgs(call.args), ...config.requested])] }
}

const readWhole = oncePerConfig((config): HostLocalConfig => {
  if ((lookup(config, 'ipam') ?? undefined) === undefined) throw invalid("IPAM config missing 'ipam' key")
  const { ipam, runtimeConfig, args } = decode(whole, config)
  // A single range in the old style comes before the sets, and those of the runtime before both.
  const single: RangeSpec[][] = ipam.subnet === undefined ? [] : [[ipam]]
  return {
    sets: completed([...(runtimeConfig?.ipRanges ?? []), ...single, ...ipam.ranges]),
    routes: readRoutes(ipam.routes),
    resolvConf: ipam.resolvConf,
    requested: [...(args?.cni?.ips ?? []), ...(runtimeConfig?.ips ?? [])],
  }
})

function requestedByArgs(args: string): string[] {
  const { IP: text } = parseCniArgs(args, ['IP'])
  if (text === undefined || text === '') return []
  try {
    return [wanted(text, 'IP')]
  } catch (error) {
    throw new CniError(codes.invalidEnvironment, `CNI_ARGS: ${(error as Error).message}`)
  }
}

const readRoutes = (routes: JsonObject[string] | undefined): Route[] =>
  decodeResult({ cniVersion: newestVersion, routes: routes ?? null }, newestVersion, { what: 'ipam' }).routes ?? []

function completed(specs: readonly (readonly RangeSpec[])[]): RangeSet[] {
  try {
    return completeRangeSets(specs)
  } catch (error) {
    if (!(error instanceof InvalidRange)) throw error
    throw invalid(error.message)
  }
}

// Results older than 0.3.0 have room for one address of each family.
function checkFamilies(sets: readonly RangeSet[], cniVersion: string): void {
  const v4 = sets.filter(set => isV4(set[0]!.start)).length
  if (Math.max(v4, sets.length - v4) > 1 && compareVersions(cniVersion, '0.3.0') < 0)
    throw invalid(`CNI version ${cniVersion} does not support more than 1 address per family`)
}

const isObject = (value: JsonObject[string] | undefined): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const invalid = (reason: string) => new CniError(codes.invalidConfig, reason)
