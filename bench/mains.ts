// SPDX-License-Identifier: Apache-2.0

import type { Verdict } from './goals.ts'
import { type Cell, digits, sideOf, timesFaster } from './measured.ts'

/** A main plugin that is here and upstream, measured beside each other with host-local. A row is all that it takes. */
export type MainCase = {
  readonly name: string
  /** Both sides' configuration, but for the IPAM. */
  readonly plugin: { readonly type: string } & { readonly [key: string]: unknown }
  /** How many times faster than upstream's our ADD is at least, through the agent, one call at a time. */
  readonly times: number
}

export const mainCases: readonly MainCase[] = [
  { name: 'bridge', plugin: { type: 'bridge', isGateway: true }, times: 4 },
  { name: 'bridge-masq', plugin: { type: 'bridge', isGateway: true, ipMasq: true }, times: 8 },
  { name: 'macvlan', plugin: { type: 'macvlan', master: 'uplink' }, times: 4 },
  { name: 'ptp', plugin: { type: 'ptp' }, times: 4 },
]

/** The labels of a case's sides. */
export const mainSides = ({ name }: MainCase) => ({ ours: `our ${name}`, theirs: `Go ${name}` })

/** Whether each case's ADD is as fast as it has to be. @param strictness 1 asks for the goal itself, less for that part of it */
export const judgeMains = (cells: readonly Cell[], cases: readonly MainCase[], strictness: number): Verdict[] =>
  cells
    .filter(({ Verb, Parallel }) => Verb === 'ADD' && Parallel === 1)
    .flatMap(cell =>
      cases.flatMap(each => {
        const { ours, theirs } = mainSides(each)
        const [fast, slow] = [sideOf(cell, ours), sideOf(cell, theirs)]
        if (fast === undefined || slow === undefined) return []
        const wanted = each.times * strictness
        const times = timesFaster(fast, slow)
        return {
          goal: `ADD, ${cell.Pods} pods, 1 at once: median of ${ours} ${wanted} times below ${theirs}`,
          measured: `${times.toFixed(1)} times`,
          met: times >= wanted,
        }
      }),
    )

/** Every case: median / p99 in milliseconds of both sides, and how many times ours is faster. */
export function mainLines(cells: readonly Cell[], cases: readonly MainCase[]): string {
  const lines = cells.flatMap(cell =>
    cases.flatMap(each => {
      const { ours, theirs } = mainSides(each)
      const [fast, slow] = [sideOf(cell, ours), sideOf(cell, theirs)]
      if (fast === undefined || slow === undefined) return []
      const figures = [fast, slow].map(({ Median, P99 }) => `${digits(Median)} / ${digits(P99)}`)
      const where = `${cell.Verb} ${each.name}, ${cell.Pods} pods, ${cell.Parallel} at once`
      return `${where.padEnd(40)} ours ${figures[0]!.padEnd(14)} Go ${figures[1]!.padEnd(14)} ${timesFaster(fast, slow).toFixed(1)} times`
    }),
  )
  return lines.join('\n')
}
