// SPDX-License-Identifier: Apache-2.0

import { formatPrefix, hostPrefix, isV4, type Prefix } from '#base'
import type { Transport } from '#netlink'
import {
  AF_INET,
  AF_INET6,
  decodeRoute,
  decodeRule,
  dumpRoutes,
  dumpRules,
  type Route,
  RT_TABLE_MAIN,
} from '#rtnetlink'
import { tryFindLink } from './links.ts'

/** The routes of a pod in the table where one to this destination belongs. */
export type PodTables = (of: { destination: Prefix; table?: number }) => readonly Route[]

/**
 * Reads each table of a pod once. What belongs into the main table may also be in one that is asked for packets from one of
 * the addresses, or in that of the VRF that the link is part of: upstream's sbr and vrf move it there.
 * @param index the link's number
 */
export function podTables(route: Transport, index: number, addresses: readonly Prefix[]): PodTables {
  const known = new Map<string, Route[]>()
  return ({ destination, table = RT_TABLE_MAIN }) => {
    const family = isV4(destination.ip) ? AF_INET : AF_INET6
    const key = `${family} ${table}`
    const places = () =>
      table === RT_TABLE_MAIN ? [table, ...vrfTable(route, index), ...tablesOf(route, family, addresses)] : [table]
    const found =
      known.get(key) ??
      places().flatMap(each => route.execute([dumpRoutes(family, { table: each })])[0]!.messages.map(decodeRoute))
    known.set(key, found)
    return found
  }
}

/** True if the link is part of a VRF. */
export const isInVrf = (route: Transport, index: number): boolean => vrfTable(route, index).length > 0

function vrfTable(route: Transport, index: number): number[] {
  const master = tryFindLink(route, { index })?.master
  const linkinfo = master === undefined ? undefined : tryFindLink(route, { index: master })?.linkinfo
  const table = linkinfo?.kind === 'vrf' && 'data' in linkinfo ? linkinfo.data?.table : undefined
  return table === undefined ? [] : [table]
}

function tablesOf(route: Transport, family: number, addresses: readonly Prefix[]): Set<number> {
  const own = addresses.map(({ ip }) => formatPrefix(hostPrefix(ip)))
  const rules = route.execute([dumpRules(family)])[0]!.messages.map(decodeRule)
  return new Set(
    rules.filter(({ source }) => source !== undefined && own.includes(formatPrefix(source))).map(({ table }) => table),
  )
}
