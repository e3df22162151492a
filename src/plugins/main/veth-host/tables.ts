// SPDX-License-Identifier: Apache-2.0

import { type Journal, listAttachments } from '#allocator'
import { CniError, codes } from '#cni'
import type { Traces } from './traces.ts'

/** linux/rtnetlink.h: RT_TABLE_DEFAULT, _MAIN and _LOCAL. */
const KERNEL_TABLES = [253, 254, 255]
const TABLE_MAX = 0xffff

/**
 * The first routing table from `start` on that neither the kernel (`taken`) nor an attachment in the journal has. Whoever
 * notes it before he waits for anything has it; processes that choose at once are told apart by the kernel.
 */
export function takeTable(journal: Journal, start: number, taken: ReadonlySet<number>): number {
  const recorded = listAttachments(journal)
    .filter(({ type, traces }) => type === 'veth-host' && traces !== 'null')
    .map(({ traces }) => (JSON.parse(traces) as Traces).table)
  const used = new Set([...KERNEL_TABLES, ...taken, ...recorded])
  for (let table = start; table <= TABLE_MAX; table++) if (!used.has(table)) return table
  throw new CniError(codes.kernel, `Cannot attach: the routing tables from ${start} to ${TABLE_MAX} are all taken`, {
    details: 'a smaller "routeTableStart" leaves more; ip rule shows who has them',
  })
}
