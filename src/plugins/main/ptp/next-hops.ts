// SPDX-License-Identifier: Apache-2.0

import {
  formatIp,
  formatPrefix,
  type Ip,
  ipEquals,
  networkOf,
  type Prefix,
  parseIp,
  parsePrefix,
  prefixContains,
} from '#base'
import { CniError, codes, type Result } from '#cni'
import type { NextHop, PodRoute } from '#host'

/** An address of the pod and the node's in the same network, by which it reaches everything else. */
export type PodIp = { readonly address: Prefix; readonly gateway: Ip }

/** @throws {CniError} 7 where an address has no gateway, or one that cannot be */
export function readIps(ips: NonNullable<Result['ips']>): PodIp[] {
  return ips.map(({ address: text, gateway }) => {
    const address = parsePrefix(text)
    if (gateway === undefined)
      throw unusable(`gave ${text} without a gateway`, "name one: it becomes the node's address on its end of the pair")
    const ip = parseIp(gateway)
    if (ip.length !== address.ip.length)
      throw unusable(`gave gateway ${gateway} for ${text}`, 'both have to be IPv4, or both IPv6')
    if (ipEquals(ip, address.ip))
      throw unusable(`gave ${text} with itself as gateway`, 'the gateway becomes an address of the node: take another')
    return { address, gateway: ip }
  })
}

const unusable = (what: string, details: string) =>
  new CniError(codes.invalidConfig, `Cannot attach: the IPAM ${what}`, { details })

/** How the pod reaches the node: by the gateways, and by other gateways of its networks that routes name. */
export function nextHopsOf(ips: readonly PodIp[], routes: readonly PodRoute[]): NextHop[] {
  const found = new Map<string, NextHop>()
  for (const { address, gateway } of ips)
    if (!found.has(formatIp(gateway)))
      found.set(formatIp(gateway), {
        address: gateway,
        route: { source: address.ip },
        onNode: { length: gateway.length * 8 },
      })
  for (const { gateway } of routes) {
    const through = gateway && ips.find(({ address }) => prefixContains(address, gateway))
    if (through !== undefined && !found.has(formatIp(gateway!)))
      found.set(formatIp(gateway!), { address: gateway!, route: { source: through.address.ip } })
  }
  return [...found.values()]
}

/** The pod's networks by their gateways. */
export function networkRoutes(ips: readonly PodIp[]): PodRoute[] {
  const routes = ips
    // A network of one address is the pod itself.
    .filter(({ address }) => address.length < address.ip.length * 8)
    .map(({ address, gateway }) => ({ destination: networkOf(address), gateway, preferredSource: address.ip }))
  const nameOf = ({ destination, gateway }: (typeof routes)[number]) =>
    `${formatPrefix(destination)} ${formatIp(gateway)}`
  return [...new Map(routes.reverse().map(route => [nameOf(route), route])).values()].reverse()
}

/** True unless the route must be another interface's: its gateway is none that this one can reach. */
export const isWithin = ({ gateway }: PodRoute, ips: readonly PodIp[]): boolean =>
  gateway === undefined || ips.some(each => ipEquals(each.gateway, gateway) || prefixContains(each.address, gateway))
