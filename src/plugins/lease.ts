// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatPrefix, isV4, networkOf, type Prefix, parseIp, parsePrefix } from '#base'
import { array, type Call, type Decoded, object, optional, type Result, string } from '#cni'
import type { PodLinkRoute } from '#host'

/** What an IPAM plugin gave, or what an earlier result says, for one link in a pod. */
export type Lease = { readonly addresses: Prefix[]; readonly routes: PodLinkRoute[] }

/**
 * Reads addresses and routes. A route without a gateway takes the first one of its family among the addresses; where there
 * is none its destinations are on the link.
 */
export function leaseOf({ ips = [], routes = [] }: Pick<Result, 'ips' | 'routes'>): Lease {
  const gateways = ips.flatMap(({ gateway }) => (gateway === undefined || gateway === '' ? [] : [parseIp(gateway)]))
  return {
    addresses: ips.map(({ address }) => parsePrefix(address)),
    routes: routes.map(({ dst, gw, ...rest }) => {
      const destination = networkOf(parsePrefix(dst))
      const gateway =
        gw === undefined || gw === '' ? gateways.find(ip => isV4(ip) === isV4(destination.ip)) : parseIp(gw)
      return { destination, ...(gateway === undefined ? {} : { gateway }), ...rest }
    }),
  }
}

/** The routes alone. */
export const routesOf = (result: Pick<Result, 'ips' | 'routes'>): PodLinkRoute[] => leaseOf(result).routes

/** The routes as a result has them, each with the gateway that it was given. */
export const resultRoutes = (routes: readonly PodLinkRoute[]): NonNullable<Result['routes']> =>
  routes.map(({ destination, gateway, ...rest }) => ({
    dst: formatPrefix(destination),
    ...(gateway === undefined ? {} : { gw: formatIp(gateway) }),
    ...rest,
  }))

/** True where a result tells of further links of the container: its routes may be theirs, it does not say. */
export const hasOtherLinks = (
  { interfaces = [] }: Result,
  { ifName, netns }: Pick<Call, 'ifName' | 'netns'>,
): boolean => interfaces.some(({ name, sandbox }) => sandbox === netns && name !== ifName)

/** The key `dns` of a configuration. */
export const dnsKeys = object({
  nameservers: optional(array(string)),
  domain: optional(string),
  search: optional(array(string)),
  options: optional(array(string)),
})

/** As a result has it: without the keys that nobody set. */
export const resultDns = (dns: Decoded<typeof dnsKeys> | undefined): Pick<Result, 'dns'> =>
  dns === undefined ? {} : { dns: Object.fromEntries(Object.entries(dns).filter(([, value]) => value !== undefined)) }

/** The configuration's settings where there are any, else the IPAM's. */
export function dnsOf(own: Decoded<typeof dnsKeys> | undefined, leased: Result['dns']): Pick<Result, 'dns'> {
  const isSet = Object.values(own ?? {}).some(value => value !== undefined && value !== '')
  if (isSet) return resultDns(own)
  return leased === undefined ? {} : { dns: leased }
}
