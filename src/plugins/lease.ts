// SPDX-License-Identifier: Apache-2.0

import { isV4, parseIp, parsePrefix } from '#base'
import type { Result } from '#cni'
import type { PodLinkRoute } from '#host'

/**
 * The routes of an IPAM plugin's result as they go along the container's link: one without a gateway takes the first of
 * its family that an address names; without any its destinations are on the link.
 */
export function routesOf({ ips = [], routes = [] }: Pick<Result, 'ips' | 'routes'>): PodLinkRoute[] {
  const gateways = ips.flatMap(({ gateway }) => (gateway === undefined ? [] : [parseIp(gateway)]))
  return routes.map(({ dst, gw, ...rest }) => {
    const destination = parsePrefix(dst)
    const gateway = gw === undefined ? gateways.find(each => isV4(each) === isV4(destination.ip)) : parseIp(gw)
    return { destination, ...(gateway === undefined ? {} : { gateway }), ...rest }
  })
}
