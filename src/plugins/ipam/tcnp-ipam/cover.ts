// SPDX-License-Identifier: Apache-2.0

import {
  chooseBlock,
  type HolderSettings,
  isNeedMet,
  type Limits,
  type ListSettings,
  type PortCover,
  type PortSettings,
  routeNeed,
  type SharedList,
} from '#allocator'
import { isV4, parseIp } from '#base'
import type { Neutron, Port } from '#openstack'
import { type ListWorld, listFor, reachCloud } from './lists.ts'

type Covered = { readonly portId: string; readonly access: string; readonly settings: PortSettings }

/** What lets the addresses of a holder pass at the node's port: address pairs there and, for another subnet, routes. */
export function coverFor(world: ListWorld, covered: Covered): PortCover | undefined {
  const { holder } = covered.settings
  if (holder === undefined) return undefined
  const { portId, access } = covered
  const pairs = listFor(world, {
    kind: 'pairs',
    objectId: holder.hostPortId,
    access,
    settings: listSettings(covered.settings, holder.maxAddressPairs),
  })
  const { route } = holder
  const routes =
    route === undefined
      ? undefined
      : listFor(world, {
          kind: 'routes',
          objectId: route.routerId,
          access,
          settings: listSettings(covered.settings, route.maxRoutes),
        })
  const needsOf = (addresses: readonly string[]) => addresses.map(each => routeNeed(each, nexthopFor(holder, each)))
  return {
    blockSize: holder.blockSize,
    async choose(port, subnetId, { count, most }, limits) {
      const neutron = (await reachCloud(world, access)).neutron
      const named = await chooseBlocks(neutron, port, { subnetId, size: holder.blockSize, count, most }, limits)
      const after = [...port.fixed_ips.map(each => each.ip_address), ...named]
      // Asked first: what Neutron refuses later would have to be given back.
      await routes?.demandRoom(portId, needsOf(after), limits)
      await pairs.demandRoom(portId, after, limits)
      return named
    },
    async apply(addresses, limits) {
      // A route works sooner than a pair: when the pair works, both do.
      await routes?.need(portId, needsOf(addresses), limits)
      await pairs.need(portId, addresses, limits)
    },
    covers: address =>
      isIn(world, pairs, portId, address) &&
      (routes === undefined || isIn(world, routes, portId, routeNeed(address, nexthopFor(holder, address)))),
  }
}

const listSettings = ({ lockDirectory, verifyAfterMs }: PortSettings, entriesMax: number): ListSettings => ({
  entriesMax,
  verifyAfterMs: verifyAfterMs ?? 3_000,
  lockDirectory,
})

const isIn = ({ journal }: ListWorld, { key }: SharedList, user: string, member: string) =>
  isNeedMet(journal, key, user, member)

function nexthopFor({ route }: HolderSettings, address: string): string {
  const version = isV4(parseIp(address))
  return route!.nexthops.find(each => isV4(parseIp(each)) === version)!
}

/**
 * Blocks that nobody has an address of, as far as Neutron shows; where there is none, smaller ones. What it does not show, a
 * foreign project's ports, makes Neutron refuse the write, and the next look chooses others.
 */
async function chooseBlocks(
  neutron: Neutron,
  port: Port,
  { subnetId, size, count, most }: { subnetId: string; size: number; count: number; most: number },
  limits: Limits,
): Promise<string[]> {
  const subnet = await neutron.subnets.get(subnetId, limits)
  if (subnet === undefined) return []
  const ports = await neutron.ports.list({ network_id: port.network_id, subnet_id: subnetId }, limits)
  const taken = new Set(ports.flatMap(each => each.fixed_ips.map(fixed => fixed.ip_address)))
  const facts = { cidr: subnet.cidr, gateway: subnet.gateway_ip ?? undefined, pools: subnet.allocation_pools ?? [] }
  const named: string[] = []
  for (let at = size; at >= 1 && named.length < count; ) {
    const block = named.length + at > most ? undefined : chooseBlock(facts, at, taken, Math.random())
    if (block === undefined) at /= 2
    for (const address of block ?? []) {
      named.push(address)
      taken.add(address)
    }
  }
  return named
}
