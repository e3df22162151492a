// SPDX-License-Identifier: Apache-2.0

import type { HolderSettings, Limits } from '#allocator'
import { hostPrefix, parseIp, prefixContains, tryParsePrefix } from '#base'
import type { Neutron } from '#openstack'

/** What an address that another port holds lacks at the node's, in words. */
export async function findUncovered(
  neutron: Neutron,
  { hostPortId, route }: Pick<HolderSettings, 'hostPortId' | 'route'>,
  address: string,
  limits: Limits,
): Promise<string[]> {
  const isFor = (text: string) => prefixContains(tryParsePrefix(text) ?? hostPrefix(parseIp(text)), parseIp(address))
  const host = await neutron.ports.get(hostPortId, limits)
  const isFree = host?.port_security_enabled === false
  const passes = isFree || host?.allowed_address_pairs?.some(each => isFor(each.ip_address)) === true
  const router = route === undefined ? undefined : await neutron.routers.get(route.routerId, limits)
  const isRouted = route === undefined || router?.routes.some(each => isFor(each.destination)) === true
  return [
    ...(passes ? [] : [`port ${hostPortId} has no address pair for ${address}`]),
    ...(isRouted ? [] : [`router ${route.routerId} has no route for ${address}`]),
  ]
}
