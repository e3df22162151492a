// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatPrefix, type Prefix, tryParseIp, tryParsePrefix } from '#base'
import { codes } from './codes.ts'
import {
  array,
  BadValue,
  type Decoded,
  type Decoder,
  decode,
  integer,
  object,
  optional,
  parsed,
  string,
} from './decode.ts'
import { CniError } from './error.ts'
import type { JsonObject, JsonValue } from './plugin.ts'
import type { Dns, Interface, Ip, Result, Route } from './result.ts'
import { isSupported, type Version } from './versions.ts'

// Result formats: 0.1.0 and 0.2.0 know one address per family (`ip4`, `ip6`); 0.3.0 to 0.4.0 have lists and `ips[].version`;
// 1.0.0 drops that key; 1.1.0 adds keys to interfaces and routes, which the reference library prints in 1.0.0 too.
const familyOf = (version: Version) => (version < '0.3.0' ? '0.2' : version < '1.0.0' ? '0.4' : '1')

/**
 * Reads a result in the format of its own `cniVersion`, or of `configVersion` where it states none, into the newest format.
 *
 * @throws {CniError} 7 naming the key: wrong type, not an address, an index outside of `interfaces`, another family of formats
 * than the configuration's (`anyFamily` allows that: a delegate may answer in an older one).
 */
export function decodeResult(
  value: JsonValue,
  configVersion: string,
  options: { what?: string; anyFamily?: boolean } = {},
): Result {
  const { what = 'result', anyFamily = false } = options
  if (value === null) return {}
  const { cniVersion } = decode(object({ cniVersion: optional(string, '') }), value, what)
  const version = cniVersion === '' ? configVersion : cniVersion
  const sameFamily = () => isSupported(configVersion) && familyOf(version as Version) === familyOf(configVersion)
  if (!isSupported(version) || (!anyFamily && !sameFamily()))
    throw new CniError(
      codes.invalidConfig,
      `Cannot read ${what}: its cniVersion is "${version}", the configuration's is "${configVersion}"`,
    )
  return version < '0.3.0' ? from02(decode(result02, value, what)) : decode(result10, value, what)
}

/**
 * The result in the format of a version, keys in the order in which the reference library prints them.
 *
 * What an older format cannot hold is left out, as there: further addresses of a family, interfaces, route options. Ask
 * `checkExpressible` before.
 */
export function encodeResult(result: Result, version: Version): JsonObject {
  switch (familyOf(version)) {
    case '0.2':
      return to02(result, version)
    case '0.4':
      return to04(result, version)
    default:
      return to10(result, version)
  }
}

/**
 * To be called as soon as the addresses are known and before anything is made: formats older than 0.3.0 need an address.
 *
 * @throws {CniError} 7
 */
export function checkExpressible(result: Result, version: string): void {
  if (version < '0.3.0' && (result.ips ?? []).length === 0)
    throw new CniError(codes.invalidConfig, 'cannot convert: no valid IP addresses', {
      details: `a result in the format of CNI ${version} needs an address; use cniVersion 0.3.0 or newer`,
    })
}

const maybeEmpty = <T>(of: Decoder<T>): Decoder<T | undefined> => {
  const inner = optional(of)
  // Go reads an empty text as no address.
  return (value, path) => inner(value === '' ? undefined : value, path)
}

const ip = parsed(text => {
  const bytes = tryParseIp(text)
  return bytes && formatIp(bytes)
}, 'an IP address')

const prefix = parsed(text => {
  const found = tryParsePrefix(text)
  return found && canonicalPrefix(found)
}, 'ADDRESS/LENGTH')

/** The text of a prefix. An IPv4 address in IPv6 form becomes IPv4, and then its length has to be one of IPv4 too: else undefined. */
export function canonicalPrefix(found: Prefix): string | undefined {
  const text = formatIp(found.ip)
  if (found.ip.length === 4 || text.includes(':')) return formatPrefix(found)
  return found.length < 96 ? undefined : `${text}/${found.length - 96}`
}

const unsigned = integer(0, 0xffff_ffff)

const dns = object({
  nameservers: optional(array(string)),
  domain: optional(string),
  search: optional(array(string)),
  options: optional(array(string)),
})

const route = object({
  dst: prefix,
  gw: maybeEmpty(ip),
  mtu: optional(unsigned),
  advmss: optional(unsigned),
  priority: optional(unsigned),
  table: optional(unsigned),
  scope: optional(integer(0, 255)),
})

const ip02 = object({ ip: prefix, gateway: maybeEmpty(ip), routes: optional(array(route), []) })

const result02 = object({ ip4: optional(ip02), ip6: optional(ip02), dns: optional(dns) })

const interfaceOfResult = object({
  name: string,
  mac: optional(string),
  mtu: optional(unsigned),
  sandbox: optional(string),
  socketPath: optional(string),
  pciID: optional(string),
})

const ip10 = object({ address: prefix, gateway: maybeEmpty(ip), interface: optional(integer(0)) })

const lists10 = object({
  interfaces: optional(array(interfaceOfResult), []),
  ips: optional(array(ip10), []),
  routes: optional(array(route), []),
  dns: optional(dns),
})

const result10: Decoder<Result> = (value, path) => {
  const lists = lists10(value, path)
  for (const [index, each] of lists.ips.entries())
    if (each.interface !== undefined && each.interface >= lists.interfaces.length)
      throw new BadValue(
        `ips[${index}].interface`,
        `is ${each.interface}, but there are ${lists.interfaces.length} interfaces`,
      )
  return dense({
    interfaces: lists.interfaces.map(each => dense<Interface>({ ...each, mtu: each.mtu || undefined })),
    ips: lists.ips.map(each => dense<Ip>(each)),
    routes: lists.routes.map(newestRoute),
    dns: newestDns(lists.dns),
  })
}

function from02(old: Decoded<typeof result02>): Result {
  const halves = [old.ip4, old.ip6].filter(half => half !== undefined)
  return dense({
    ips: halves.map(half => dense<Ip>({ address: half.ip, gateway: half.gateway })),
    routes: halves.flatMap(half => half.routes.map(newestRoute)),
    dns: newestDns(old.dns),
  })
}

// A metric of zero says nothing; table and scope zero are values of their own.
const newestRoute = (read: Decoded<typeof route>): Route =>
  dense<Route>({
    ...read,
    mtu: read.mtu || undefined,
    advmss: read.advmss || undefined,
    priority: read.priority || undefined,
  })

const newestDns = (read: Decoded<typeof dns> | undefined): Dns | undefined =>
  read === undefined ? undefined : dense<Dns>({ ...read, domain: read.domain || undefined })

/** Without the keys that hold nothing: undefined, and lists and objects that are empty. */
function dense<T extends object>(sparse: { [Key in keyof T]: T[Key] | undefined }): T {
  const kept: Partial<T> = {}
  for (const key in sparse) {
    const value = sparse[key]
    if (value !== undefined && !isEmpty(value)) kept[key] = value
  }
  return kept as T
}

const isEmpty = (value: unknown) => typeof value === 'object' && value !== null && Object.keys(value).length === 0

// The reference sorts the keys of its newest format.
function to10(result: Result, version: Version): JsonObject {
  const { domain, nameservers, options, search } = encodeDns(result.dns)
  return dense<JsonObject>({
    cniVersion: version,
    dns: dense<JsonObject>({ domain, nameservers, options, search }),
    interfaces: (result.interfaces ?? []).map(each =>
      dense<JsonObject>({
        mac: each.mac || undefined,
        mtu: each.mtu || undefined,
        name: each.name,
        pciID: each.pciID || undefined,
        sandbox: each.sandbox || undefined,
        socketPath: each.socketPath || undefined,
      }),
    ),
    ips: (result.ips ?? []).map(each =>
      dense<JsonObject>({ address: each.address, gateway: each.gateway, interface: each.interface }),
    ),
    routes: (result.routes ?? []).map(each => {
      const { advmss, dst, gw, mtu, priority, scope, table } = encodeRoute(each)
      return dense<JsonObject>({ advmss, dst, gw, mtu, priority, scope, table })
    }),
  })
}

function to04(result: Result, version: Version): JsonObject {
  const lists = dense<JsonObject>({
    interfaces: (result.interfaces ?? []).map(each =>
      dense<JsonObject>({ name: each.name, mac: each.mac || undefined, sandbox: each.sandbox || undefined }),
    ),
    ips: (result.ips ?? []).map(each =>
      dense<JsonObject>({
        version: each.address.includes(':') ? '6' : '4',
        interface: each.interface,
        address: each.address,
        gateway: each.gateway,
      }),
    ),
    routes: (result.routes ?? []).map(encodeRoute),
  })
  return { cniVersion: version, ...lists, dns: encodeDns(result.dns) }
}

function to02(result: Result, version: Version): JsonObject {
  const half = (isFamily: (text: string) => boolean): JsonObject | undefined => {
    const first = result.ips?.find(each => isFamily(each.address))
    const routes = (result.routes ?? []).filter(each => isFamily(each.dst))
    if (first === undefined) return undefined
    return dense<JsonObject>({
      ip: first.address,
      gateway: first.gateway,
      routes: routes.map(each => dense<JsonObject>({ dst: each.dst, gw: each.gw })),
    })
  }
  const halves = dense<JsonObject>({
    ip4: half(text => !text.includes(':')),
    ip6: half(text => text.includes(':')),
  })
  return { cniVersion: version, ...halves, dns: encodeDns(result.dns) }
}

const encodeRoute = (each: Route): JsonObject =>
  dense<JsonObject>({
    dst: each.dst,
    gw: each.gw,
    mtu: each.mtu || undefined,
    advmss: each.advmss || undefined,
    priority: each.priority || undefined,
    table: each.table,
    scope: each.scope,
  })

const encodeDns = (each: Dns | undefined): JsonObject =>
  dense<JsonObject>({
    nameservers: each?.nameservers,
    domain: each?.domain || undefined,
    search: each?.search,
    options: each?.options,
  })
