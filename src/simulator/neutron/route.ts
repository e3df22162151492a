// SPDX-License-Identifier: Apache-2.0

/** The extra routes of a router: full replacement by PUT, and the atomic additions and removals. */
import { formatPrefix, networkOf, parseIp, parsePrefix, prefixContains, tryParseIp, tryParsePrefix } from '#base'
import { asObject, type Call } from '../call.ts'
import { Fault, internalError, invalidInput } from '../fault.ts'
import { find, list, type Route, type Router, type State } from '../state.ts'
import { type Convert, python } from './attribute.ts'

const keyOf = (route: Route): string => `${route.destination} ${route.nexthop}`
const asRoute = (value: unknown): Route | undefined => {
  const { destination, nexthop } = asObject(value) ?? {}
  return typeof destination === 'string' && typeof nexthop === 'string' ? { destination, nexthop } : undefined
}

/** `routes` of a PUT, which is strict; null is the empty list. */
export const replacedRoutes: Convert = (value, name) => {
  if (value === null) return []
  if (!Array.isArray(value)) {
    throw invalidInput(
      name,
      `Invalid data format for hostroute: '${typeof value === 'string' ? value : python(value)}'`,
    )
  }
  const seen = new Set<string>()
  return value.map(entry => {
    const route = asRoute(entry)
    const keys = Object.keys(asObject(entry) ?? {})
    if (route === undefined || keys.length !== 2) {
      const given = keys.map(key => `'${key}'`).join(', ')
      throw invalidInput(
        name,
        `Validation of dictionary's keys failed. Expected keys: {'nexthop', 'destination'} Provided keys: {${given}}`,
      )
    }
    checkCidr(name, route.destination)
    if (tryParseIp(route.nexthop) === undefined) {
      throw invalidInput(name, `'${route.nexthop}' is not a valid IP address`)
    }
    if (seen.has(keyOf(route))) throw invalidInput(name, `Duplicate hostroute '${python(route)}'`)
    seen.add(keyOf(route))
    return route
  })
}

function checkCidr(name: string, text: string): void {
  const ip = tryParseIp(text)
  const prefix = ip === undefined ? tryParsePrefix(text) : { ip, length: ip.length * 8 }
  if (prefix === undefined) throw invalidInput(name, `'${text}' is not a valid CIDR`)
  const proper = formatPrefix(networkOf(prefix))
  if (text !== proper) throw invalidInput(name, `'${text}' is not a recognized CIDR, '${proper}' is recommended`)
}

/** `routes` of `add_extraroutes` and `remove_extraroutes`, which take host bits and break on anything malformed. */
export function extraRoutes(call: Call): Route[] {
  const router = asObject(asObject(call.body)?.['router'])
  const routes = router?.['routes']
  if (!Array.isArray(routes)) throw internalError()
  return routes.map(entry => {
    const route = asRoute(entry)
    if (route === undefined) throw internalError()
    if ((tryParseIp(route.destination) ?? tryParsePrefix(route.destination)) === undefined) {
      throw new Fault(400, 'AddrFormatError', `invalid IPNetwork ${route.destination}`)
    }
    if (tryParseIp(route.nexthop) === undefined) {
      throw new Fault(400, 'AddrFormatError', `failed to detect a valid IP address from '${route.nexthop}'`)
    }
    return route
  })
}

/** Without doubles, in the order of every answer. */
function sortRoutes(routes: readonly Route[]): Route[] {
  const unique = new Map(routes.map(route => [keyOf(route), route]))
  return [...unique.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, route]) => route)
}

export const addRoutes = (held: readonly Route[], more: readonly Route[]): Route[] => sortRoutes([...held, ...more])

export function removeRoutes(held: readonly Route[], less: readonly Route[]): Route[] {
  const gone = new Set(less.map(keyOf))
  return sortRoutes(held.filter(route => !gone.has(keyOf(route))))
}

export const sameRoutes = (a: readonly Route[], b: readonly Route[]): boolean =>
  a.length === b.length && sortRoutes(a).every((route, at) => keyOf(route) === keyOf(sortRoutes(b)[at]!))

/** Refuses more routes than the limit, and next hops that the router cannot reach or is itself. */
export function checkRoutes(state: State, router: Router, routes: readonly Route[]): void {
  const { maxRoutes } = state.settings
  if (routes.length > maxRoutes) {
    throw new Fault(
      400,
      'RoutesExhausted',
      `Unable to complete operation for ${router.id}. The number of routes exceeds the maximum ${maxRoutes}.`,
    )
  }
  const fixed = list(state, 'ports')
    .filter(port => port.device_id === router.id)
    .flatMap(port => port.fixed_ips)
  const prefixes = fixed.map(({ subnet_id: id }) => parsePrefix(find(state, 'subnets', id)!.cidr))
  for (const { nexthop } of routes) {
    const reason = !prefixes.some(prefix => prefixContains(prefix, parseIp(nexthop)))
      ? 'the nexthop is not connected with router'
      : fixed.some(entry => entry.ip_address === nexthop)
        ? 'the nexthop is used by router'
        : undefined
    if (reason !== undefined) {
      throw new Fault(400, 'InvalidRoutes', `Invalid format for routes: ${python(routes)}, ${reason}`)
    }
  }
}
