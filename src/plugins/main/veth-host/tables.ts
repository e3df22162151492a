// SPDX-License-Identifier: Apache-2.0

import { firstFreeRoutingTable, type Journal } from '#allocator'
import { CniError, codes } from '#cni'

/** linux/rtnetlink.h: RT_TABLE_DEFAULT, _MAIN and _LOCAL. */
const KERNEL_TABLES = [253, 254, 255]
const TABLE_MAX = 0xffff

/**
 * The first routing table from `start` on that neither the kernel (`taken`) nor an attachment in the journal has. Whoever
 * notes it before he waits for anything has it; processes that choose at once are told apart by the kernel.
 */
export function takeTable(journal: Journal, start: number, taken: ReadonlySet<number>): number {
  const used = new Set([...KERNEL_TABLES, ...taken])
  for (let from = start; from <= TABLE_MAX; ) {
    const table = firstFreeRoutingTable(journal, from)
    if (table <= TABLE_MAX && !used.has(table)) return table
    from = table + 1
  }
  throw new CniError(codes.kernel, `Cannot attach: the routing tables from ${start} to ${TABLE_MAX} are all taken`, {
    details: 'a smaller "routeTableStart" leaves more; ip rule shows who has them',
  })
}
