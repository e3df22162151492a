// SPDX-License-Identifier: Apache-2.0
import { formatPrefix, networkOf, parseIp, parsePrefix } from '#base'
import type { Json } from '../json.ts'
import type { Limits } from '../limits.ts'
import type { Service } from '../service.ts'
import { type CreateLimits, queryOf, resource, type WriteLimits } from './resource.ts'

/** One route of a router. Two with the same destination are both used (ECMP). */
export type ExtraRoute = { readonly destination: string; readonly nexthop: string }

export type Router = {
  readonly id: string
  readonly name: string
  readonly project_id?: string
  readonly status?: string
  /** Sorted by Neutron, not in the order of the request. */
  readonly routes: readonly ExtraRoute[]
  readonly external_gateway_info?: {
    readonly network_id: string
    readonly enable_snat?: boolean
    readonly external_fixed_ips?: readonly { readonly subnet_id: string; readonly ip_address: string }[]
  } | null
  readonly revision_number?: number
}

export type RouterCreate = {
  readonly name?: string
  readonly external_gateway_info?: { readonly network_id: string }
}
export type RouterFilter = {
  readonly id?: string | readonly string[]
  readonly name?: string | readonly string[]
  readonly project_id?: string
}

export type Routers = {
  /** Undefined if there is none. */
  get(id: string, limits: Limits): Promise<Router | undefined>
  list(filter: RouterFilter, limits: Limits): Promise<Router[]>
  create(router: RouterCreate, limits: CreateLimits<Router>): Promise<Router>
  /** False if there was none. */
  delete(id: string, limits: WriteLimits): Promise<boolean>
  /**
   * Adds routes to those that are there; one that is there already is no error. Safe when several do it at once.
   *
   * @throws {RangeError} for a destination with host bits: Neutron stores it and never programs it.
   * @throws {OpenStackError} of kind `exhausted` (`RoutesExhausted`) at the router's limit.
   */
  addExtraRoutes(id: string, routes: readonly ExtraRoute[], limits: WriteLimits): Promise<readonly ExtraRoute[]>
  /** Removes routes; one that is not there is no error. Returns those that remain, at the time of the answer. */
  removeExtraRoutes(id: string, routes: readonly ExtraRoute[], limits: WriteLimits): Promise<readonly ExtraRoute[]>
  addInterface(id: string, subnetId: string, limits: Limits): Promise<void>
  removeInterface(id: string, subnetId: string, limits: Limits): Promise<void>
}

export function routers(service: Service): Routers {
  const of = resource<Router>(service, {
    singular: 'router',
    plural: 'routers',
    flaw: router => (Array.isArray(router['routes']) ? undefined : `router ${router['id']} has no list "routes"`),
  })

  const change = async (
    verb: 'add_extraroutes' | 'remove_extraroutes',
    action: string,
    id: string,
    routes: readonly ExtraRoute[],
    limits: WriteLimits,
  ): Promise<readonly ExtraRoute[]> => {
    // Idempotent in Neutron, both ways, so a repetition does no harm.
    const answer = await of.act(action, id, verb, { router: { routes } }, { ...limits, repeat: true })
    return of.one(answer).routes
  }

  return {
    get: of.get,
    list: (filter, limits) => of.list(queryOf(filter), limits),
    create: (router, limits) => of.create(`create router "${router.name ?? ''}"`, router as Json, limits),
    delete: (id, limits) => of.delete(`delete router ${id}`, id, limits),
    async addExtraRoutes(id, routes, limits) {
      for (const route of routes) checkRoute(route)
      return change('add_extraroutes', `add ${describe(routes)} to router ${id}`, id, routes, limits)
    },
    removeExtraRoutes: (id, routes, limits) =>
      change('remove_extraroutes', `remove ${describe(routes)} from router ${id}`, id, routes, limits),
    async addInterface(id, subnetId, limits) {
      const action = `connect router ${id} to subnet ${subnetId}`
      await of.act(action, id, 'add_router_interface', { subnet_id: subnetId }, limits)
    },
    async removeInterface(id, subnetId, limits) {
      const action = `disconnect router ${id} from subnet ${subnetId}`
      await of.act(action, id, 'remove_router_interface', { subnet_id: subnetId }, limits)
    },
  }
}

function checkRoute(route: ExtraRoute): void {
  const prefix = parsePrefix(route.destination)
  parseIp(route.nexthop)
  const network = formatPrefix(networkOf(prefix))
  if (network !== formatPrefix(prefix))
    throw new RangeError(
      `Cannot add route ${route.destination} via ${route.nexthop}: host bits are set; use ${network}`,
    )
}

function describe(routes: readonly ExtraRoute[]): string {
  const [first] = routes
  if (first === undefined) return 'no route'
  const rest = routes.length > 1 ? ` and ${routes.length - 1} more` : ''
  return `route ${first.destination} via ${first.nexthop}${rest}`
}
