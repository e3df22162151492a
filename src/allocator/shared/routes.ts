// SPDX-License-Identifier: Apache-2.0

import { atMost, formatIp, formatPrefix, parseIp } from '#base'
import { type ExtraRoute, OpenStackError, type Routers } from '#openstack'
import { coverOf, prefixOf } from './cover.ts'
import type { ListDriver, ListView } from './list.ts'

const WRITE_MS = 40_000

export type RoutesNeutron = { readonly routers: Pick<Routers, 'get' | 'addExtraRoutes' | 'removeExtraRoutes'> }

/** What is needed of a router: that packets for an address or prefix go to a next hop. */
export const routeNeed = (member: string, nexthop: string): string => `${member} via ${formatIp(parseIp(nexthop))}`

/**
 * Extra routes of a router, one per prefix that holds nothing but needed addresses. Neutron adds and removes single routes
 * without touching others, so that several nodes may write to one router.
 */
export function routesDriver(routerId: string, neutron: () => Promise<RoutesNeutron>): ListDriver {
  const viewOf = (routes: readonly ExtraRoute[], revision?: number | undefined): ListView => ({
    entries: routes.map(entryOf),
    revision,
  })

  return {
    kind: 'routes',
    objectId: routerId,
    writesWhole: false,
    lockName: `router-${routerId}`,
    title: `routes of router ${routerId}`,
    remedy:
      'remove routes that nobody uses, let each node have fewer and larger prefixes ("neutronConf.blockSize"), or raise max_routes ' +
      '(quota "router_route") in Neutron and "neutronConf.maxRoutes"; addresses of the node’s own subnet need no route',
    entriesOf: members =>
      [...Map.groupBy(members.map(parseNeed), each => each.nexthop)].flatMap(([nexthop, needs]) =>
        coverOf(needs.map(each => each.member)).map(prefix => routeNeed(formatPrefix(prefixOf(prefix)), nexthop)),
      ),
    async look(limits) {
      const router = await (await neutron()).routers.get(routerId, limits)
      return router === undefined ? undefined : viewOf(router.routes, router.revision_number)
    },
    async write(view, { add, remove }, limits) {
      const { routers } = await neutron()
      const within = { ...limits, deadline: atMost(limits.deadline, WRITE_MS) }
      const put = async () =>
        add.length === 0 ? view : viewOf(await routers.addExtraRoutes(routerId, add.map(routeOf), within))
      const take = async (last: ListView) =>
        remove.length === 0 ? last : viewOf(await routers.removeExtraRoutes(routerId, remove.map(routeOf), within))
      try {
        // Added first, so that what moves from one prefix to another is routed all the time.
        return await take(await put())
      } catch (error) {
        if (!(error instanceof OpenStackError) || error.kind !== 'exhausted' || remove.length === 0) throw error
        await take(view)
        return await put()
      }
    },
    isOverlap: error => error.kind === 'conflict',
  }
}

function parseNeed(need: string): { member: string; nexthop: string } {
  const [member = '', nexthop = ''] = need.split(' via ')
  return { member, nexthop }
}

const entryOf = ({ destination, nexthop }: ExtraRoute) => `${destination} via ${nexthop}`

function routeOf(entry: string): ExtraRoute {
  const { member, nexthop } = parseNeed(entry)
  return { destination: member, nexthop }
}
