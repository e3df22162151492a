// SPDX-License-Identifier: Apache-2.0

import type { Verdict } from './goals.ts'
import { type Cell, digits, type Figures, type SideName, sideNames, sideOf, timesFaster } from './measured.ts'

/** From here on the rest of the machine may have slowed a cell down: it is marked. */
const OTHERS_CORES = 0.15

/** Ours and the peer that it is compared with. */
const pairs: readonly (readonly [SideName, SideName])[] = [
  [sideNames.ours, sideNames.ptp],
  [sideNames.oursMasq, sideNames.ptpMasq],
  [sideNames.oursMasq, sideNames.ptpMasqNft],
]

/** Every cell: median / p99 in milliseconds, and how many times ours is faster. */
export function latencyTable(cells: readonly Cell[]): string {
  const names = Object.values(sideNames).filter(name => cells.some(cell => sideOf(cell, name) !== undefined))
  const compared = pairs.filter(pair => pair.every(name => names.includes(name)))
  const head = ['', 'pods', 'at once', ...names, ...compared.map(([, slow]) => `× ${slow}`)]
  const rows = (['ADD', 'DEL'] as const).flatMap(verb =>
    cells
      .filter(cell => cell.Verb === verb)
      .map(cell => [
        verb,
        String(cell.Pods),
        String(cell.Parallel),
        ...names.map(name => latency(sideOf(cell, name))),
        ...compared.map(([fast, slow]) => times(sideOf(cell, fast), sideOf(cell, slow))),
      ]),
  )
  return table(head, rows)
}

const times = (fast: Figures | undefined, slow: Figures | undefined) =>
  fast === undefined || slow === undefined ? '' : timesFaster(fast, slow).toFixed(1)

const latency = (side: Figures | undefined) =>
  side === undefined ? '' : `${digits(side.Median)} / ${digits(side.P99)}${side.Others > OTHERS_CORES ? '*' : ''}`

/** CPU time per call, and how the median grows with the pods. */
export function growthTable(cells: readonly Cell[]): string {
  const sequential = cells.filter(cell => cell.Verb === 'ADD' && cell.Parallel === 1)
  const [first, last] = [sequential[0], sequential.at(-1)]
  if (first === undefined || last === undefined || first === last) return ''
  const head = ['ADD', `CPU ms, ${first.Pods} pods`, `CPU ms, ${last.Pods} pods`, `growth ${first.Pods} → ${last.Pods}`]
  const rows = first.Sides.flatMap(side => {
    const after = last.Sides.find(({ Name }) => Name === side.Name)
    if (after === undefined) return []
    return [[side.Name, digits(side.CPU), digits(after.CPU), `× ${(after.Median / side.Median).toFixed(2)}`]]
  })
  return table(head, rows)
}

/** One line per goal. */
export const goalLines = (verdicts: readonly Verdict[]): string =>
  verdicts.map(({ goal, measured, met }) => `${met ? 'met   ' : 'MISSED'}  ${goal}: ${measured}`).join('\n')

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map(row => row[column]?.length ?? 0)))
  const line = (cells: readonly string[]) =>
    `| ${cells.map((text, column) => text.padEnd(widths[column] ?? 0)).join(' | ')} |`
  return [line(head), `|${widths.map(width => '-'.repeat(width + 2)).join('|')}|`, ...rows.map(line)].join('\n')
}
