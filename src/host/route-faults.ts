// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatPrefix, type Ip, ipEquals, networkOf } from '#base'
import { AF_INET, AF_INET6, type Route, RTN_UNICAST, scopes } from '#rtnetlink'
import { scopeName } from './address-faults.ts'
import type { Place } from './link-faults.ts'

// What CHECK finds of routes, whatever kind of plugin made them.

/** By what a wanted route is told from others, beside its destination and gateway. */
export type RouteContext = {
  /** The link along which it leads; undefined: any. */
  readonly index: number | undefined
  /** Addresses from which the machine may speak where the route names none: that they are its own changes nothing. */
  readonly sources: readonly Ip[]
  /** What the wanted route leaves to the kernel is looked at, too: ours made it. */
  readonly isOurs: boolean
}

/**
 * Looks for a route as its ADD made it. One that leads the same way, but otherwise than it was made, is named with what
 * differs.
 * @param entries of the tables where it may be
 * @param named how the route is called in the answer
 * @returns the difference in words; undefined: it is there
 */
export function routeFault(
  entries: readonly Route[],
  want: Route,
  context: RouteContext,
  { named, where }: { named: string; where: Place },
): string | undefined {
  const alike = entries.filter(entry => leadsAlike(entry, want, context.index))
  const differences = alike.map(entry => differencesOf(entry, want, context))
  if (differences.some(each => each.length === 0)) return undefined
  const [first] = differences
  return first === undefined ? `route ${named} is missing ${where}` : `route ${named} ${where} ${first.join(', and ')}`
}

/** Same destination, same way; or one of several ways of the entry. */
function leadsAlike(entry: Route, want: Route, index: number | undefined): boolean {
  const length = want.family === AF_INET ? 4 : 16
  const textOf = ({ destination = { ip: new Uint8Array(length), length: 0 } }: Route) =>
    formatPrefix(networkOf(destination))
  if (entry.isVia === true) return false
  if (entry.family !== want.family || (entry.type ?? RTN_UNICAST) !== RTN_UNICAST) return false
  if (textOf(entry) !== textOf(want)) return false
  return [entry, ...(entry.nextHops ?? [])].some(
    hop => (index === undefined || hop.outInterface === index) && isSame(hop.gateway, want.gateway),
  )
}

const isSame = (a: Ip | undefined, b: Ip | undefined) => (a === undefined || b === undefined ? a === b : ipEquals(a, b))

/** linux/ipv6_route.h, IP6_RT_PRIO_USER. */
const METRIC_V6 = 1024

function differencesOf(entry: Route, want: Route, { sources, isOurs }: RouteContext): string[] {
  const faults: string[] = []
  const compare = (what: string, found: number | string | undefined, wanted: number | string | undefined) => {
    if (found !== wanted) faults.push(`has ${what} ${found ?? 'none'}, not ${wanted ?? 'none'}`)
  }
  const { preferredSource: source } = entry
  // IPv6 routes of several links to one destination are shown as one, with the source of the first.
  if (entry.nextHops === undefined) {
    const isRight =
      want.preferredSource === undefined
        ? source === undefined || sources.some(own => ipEquals(own, source))
        : isSame(source, want.preferredSource)
    if (!isRight) compare('source', textOf(source), textOf(want.preferredSource))
  }
  // As the kernel has it where nobody said anything (0 says nothing to IPv6).
  const unsaid = want.family === AF_INET6 ? METRIC_V6 : 0
  const metric = want.priority || (isOurs ? unsaid : undefined)
  if (metric !== undefined) compare('metric', entry.priority ?? 0, metric)
  // IPv6 routes have no scope.
  const scope = want.scope ?? (!isOurs ? undefined : want.gateway === undefined ? scopes.link : scopes.universe)
  if (want.family === AF_INET && scope !== undefined && entry.scope !== scope)
    compare('scope', scopeName(entry.scope ?? 0), scopeName(scope))
  if (isOurs || want.mtu !== undefined) compare('MTU', entry.mtu, want.mtu)
  if (isOurs || want.advmss !== undefined) compare('advertised MSS', entry.advmss, want.advmss)
  if (entry.expires === true) faults.push('expires')
  return faults
}

const textOf = (ip: Ip | undefined) => (ip === undefined ? undefined : formatIp(ip))
