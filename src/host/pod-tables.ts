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

/** The routes of a pod in the table where one to this destination belongs. */
export type PodTables = (of: { destination: Prefix; table?: number }) => readonly Route[]

/**
 * Reads each table of a pod once. What belongs into the main table may also be in one that is asked for packets from one of
 * the addresses: upstream's sbr moves it there.
 */
export function podTables(route: Transport, addresses: readonly Prefix[]): PodTables {
  const known = new Map<string, Route[]>()
  return ({ destination, table = RT_TABLE_MAIN }) => {
    const family = isV4(destination.ip) ? AF_INET : AF_INET6
    const key = `${family} ${table}`
    const found = known.get(key) ?? readTables(route, family, table, addresses)
    known.set(key, found)
    return found
  }
}

function readTables(route: Transport, family: number, table: number, addresses: readonly Prefix[]): Route[] {
  const tables = table === RT_TABLE_MAIN ? [table, ...tablesOf(route, family, addresses)] : [table]
  return tables.flatMap(each => route.execute([dumpRoutes(family, { table: each })])[0]!.messages.map(decodeRoute))
}

function tablesOf(route: Transport, family: number, addresses: readonly Prefix[]): Set<number> {
  const own = addresses.map(({ ip }) => formatPrefix(hostPrefix(ip)))
  const rules = route.execute([dumpRules(family)])[0]!.messages.map(decodeRule)
  return new Set(
    rules.filter(({ source }) => source !== undefined && own.includes(formatPrefix(source))).map(({ table }) => table),
  )
}
