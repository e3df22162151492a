// SPDX-License-Identifier: Apache-2.0

import {
  formatIp,
  formatPrefix,
  ipEquals,
  isV4,
  type Prefix,
  parsePrefix,
  prefixContains,
  tryParseIp,
  tryParsePrefix,
} from '#base'
import {
  anything,
  array,
  type Call,
  CniError,
  canonicalPrefix,
  codes,
  compareVersions,
  type Decoder,
  decode,
  decodeResult,
  lookup,
  newestVersion,
  object,
  optional,
  parseCniArgs,
  type Result,
  string,
} from '#cni'

export type StaticAddress = { readonly address: Prefix; readonly gateway: Uint8Array | undefined }
export type StaticConfig = { readonly addresses: readonly StaticAddress[] } & Pick<Result, 'routes' | 'dns'>

const gateway: Decoder<Uint8Array | undefined> = (value, path) => {
  // Go reads an empty text as no address.
  const text = optional(string, '')(value, path)
  return text === '' ? undefined : parseGateway(text, codes.invalidConfig)
}

const texts = optional(array(string), [])

const whole = object({
  ipam: object({
    addresses: optional(array(object({ address: optional(string, ''), gateway })), []),
    routes: optional(anything),
    dns: optional(anything),
  }),
  runtimeConfig: optional(object({ ips: texts })),
  args: optional(object({ cni: optional(object({ ips: texts })) })),
})

/**
 * Reads the addresses of an attachment. Those of the configuration and of CNI_ARGS are one list; `args.cni.ips` stands for
 * all of it, and `runtimeConfig.ips` for all of that.
 *
 * @throws {CniError} 4, 7
 */
export function readConfig(call: Call): StaticConfig {
  if ((lookup(call.config, 'ipam') ?? undefined) === undefined)
    throw new CniError(codes.invalidConfig, "IPAM config missing 'ipam' key")
  const { ipam, runtimeConfig, args } = decode(whole, call.config)
  const { IP = '', GATEWAY = '' } = parseCniArgs(call.args, ['IP', 'GATEWAY'])
  const configured = ipam.addresses.map(({ address, gateway }) => ({
    address: parseAddress(address, "the 'address' field is expected to be in CIDR notation", codes.invalidConfig),
    gateway,
  }))
  const wanted = listed(IP).map(text => ({
    address: parseAddress(text, "the 'ip' field is expected to be in CIDR notation", codes.invalidEnvironment),
    gateway: undefined,
  }))
  const gateways = listed(GATEWAY).map(text => parseGateway(text, codes.invalidEnvironment))
  const usual = [...configured, ...wanted]
  const instead = [runtimeConfig?.ips ?? [], args?.cni?.ips ?? []]
    .map(ips =>
      ips.map(text => parseAddress(text, "an entry in the 'ips' field is NOT in CIDR notation", codes.invalidConfig)),
    )
    .find(ips => ips.length > 0)
  // One that takes another's place is in the same network as that one, and so has the same gateway.
  const known = usual.flatMap(({ gateway }) => gateway ?? [])
  const addresses = (instead?.map(address => ({ address, gateway: firstInside(known, address) })) ?? usual).map(
    ({ address, gateway }) => ({ address, gateway: firstInside([...gateways].reverse(), address) ?? gateway }),
  )
  const distinct = [...new Map(addresses.map(each => [formatPrefix(each.address), each])).values()]
  checkFamilies(distinct, call.cniVersion)
  const { routes, dns } = decodeResult(
    { cniVersion: newestVersion, routes: ipam.routes ?? null, dns: ipam.dns ?? null },
    newestVersion,
    { what: 'ipam' },
  )
  return {
    addresses: distinct,
    ...(routes === undefined ? {} : { routes }),
    ...(dns === undefined ? {} : { dns }),
  }
}

const listed = (text: string): string[] => (text === '' ? [] : text.split(',').map(item => item.trim()))

const firstInside = (gateways: readonly Uint8Array[], network: Prefix) =>
  gateways.find(gateway => prefixContains(network, gateway))

function parseAddress(text: string, expectation: string, code: 4 | 7): Prefix {
  const found = tryParsePrefix(text)
  const canonical = found && canonicalPrefix(found)
  if (canonical === undefined)
    throw new CniError(code, `${expectation}, got: '${text}'`, { details: 'for example 10.1.2.3/24' })
  return parsePrefix(canonical)
}

function parseGateway(text: string, code: 4 | 7): Uint8Array {
  const found = tryParseIp(text)
  if (found === undefined) throw new CniError(code, `invalid gateway address: ${text}`)
  return tryParseIp(formatIp(found))!
}

// Results older than 0.3.0 have room for one address of each family.
function checkFamilies(addresses: readonly StaticAddress[], cniVersion: string): void {
  const v4 = addresses.filter(({ address }) => isV4(address.ip)).length
  if (Math.max(v4, addresses.length - v4) > 1 && compareVersions(cniVersion, '0.3.0') < 0)
    throw new CniError(codes.invalidConfig, `CNI version ${cniVersion} does not support more than 1 address per family`)
}

/** True if a result's address is what the configuration says: address, length and, where there is one, gateway. */
export function isTold({ address, gateway }: StaticAddress, told: NonNullable<Result['ips']>[number]): boolean {
  if (told.address !== formatPrefix(address)) return false
  const toldGateway = tryParseIp(told.gateway ?? '')
  return gateway === undefined || (toldGateway !== undefined && ipEquals(toldGateway, gateway))
}
