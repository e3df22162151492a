// SPDX-License-Identifier: Apache-2.0

import {
  addToIp,
  formatIp,
  formatPrefix,
  ipEquals,
  isV4,
  networkOf,
  type Prefix,
  parseIp,
  parsePrefix,
  prefixContains,
} from '#base'
import { CniError, codes, type Result } from '#cni'
import type { Config } from './config.ts'

const MAIN_TABLE = 254

export type Gateways = Required<Pick<Result, 'ips' | 'routes'>> & {
  /** The node's addresses in the networks of the pods, each once. */
  gateways: Prefix[]
}

/**
 * What a lease becomes where the node is the pods' gateway: an address without a gateway gets the first of its network,
 * and with `isDefaultGateway` each family has a default route. One that the IPAM gave is enough.
 * @throws {CniError} 7 where the node and a pod would have the same address, or the network has none for the node
 */
export function withGateways({ ips = [], routes = [] }: Result, { isGateway, isDefaultGateway }: Config): Gateways {
  if (!isGateway) return { ips, routes, gateways: [] }
  const gateways = new Map<string, Prefix>()
  const addresses = ips.map(({ address }) => parsePrefix(address))
  const complete = ips.map((ip, position) => {
    const own = addresses[position]!
    const gateway = ip.gateway === undefined || ip.gateway === '' ? firstOf(own) : parseIp(ip.gateway)
    if (addresses.some(address => ipEquals(address.ip, gateway)))
      throw new CniError(
        codes.invalidConfig,
        `Cannot attach: the IPAM gave ${formatIp(gateway)}, which is the gateway's`,
        {
          details: 'take the gateway out of the range of the IPAM plugin, or leave "isGateway" out',
        },
      )
    const prefix = { ip: gateway, length: own.length }
    gateways.set(formatPrefix(prefix), prefix)
    return { ...ip, gateway: formatIp(gateway) }
  })
  return {
    ips: complete,
    routes: isDefaultGateway ? [...routes, ...defaultRoutes(complete, routes)] : routes,
    gateways: [...gateways.values()],
  }
}

function firstOf(own: Prefix): Uint8Array {
  const network = networkOf(own)
  const first = addToIp(network.ip, 1n)
  if (first !== undefined && prefixContains(network, first)) return first
  throw new CniError(
    codes.invalidConfig,
    `Cannot make the node a gateway for ${formatPrefix(own)}: its network has one address`,
    {
      details: 'let the IPAM plugin name a gateway, or give a longer range',
    },
  )
}

/** For each family the default route by its first gateway, unless there is one. */
function defaultRoutes(ips: Gateways['ips'], routes: Gateways['routes']): Gateways['routes'] {
  return [true, false].flatMap(v4 => {
    const gateway = ips.map(ip => ip.gateway ?? '').find(text => isV4(parseIp(text)) === v4)
    const isThere = routes.some(({ dst, table = MAIN_TABLE }) => {
      const { ip, length } = parsePrefix(dst)
      return length === 0 && isV4(ip) === v4 && table === MAIN_TABLE
    })
    return gateway === undefined || isThere ? [] : [{ dst: v4 ? '0.0.0.0/0' : '::/0', gw: gateway }]
  })
}
