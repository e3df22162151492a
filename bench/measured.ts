// SPDX-License-Identifier: Apache-2.0

/** What `lab/peers bench --json` writes, as far as it is used here. Times are in milliseconds. */
export type Cell = {
  readonly Verb: 'ADD' | 'DEL'
  readonly Pods: number
  readonly Parallel: number
  readonly Sides: readonly Figures[]
}
export type Figures = {
  readonly Name: string
  readonly Median: number
  readonly P99: number
  /** Per call: the plugin's processes and the daemon's share. */
  readonly CPU: number
  /** Cores that the rest of the machine kept busy meanwhile. */
  readonly Others: number
  readonly Calls: number
  readonly Echoes: number
  readonly RoundMedians: readonly number[]
}

/** The sides of a run, by what they are. */
export const sideNames = {
  ours: 'ours',
  oursMasq: 'ours, masq',
  ptp: 'ptp',
  ptpMasq: 'ptp, masq iptables',
  ptpMasqNft: 'ptp, masq nftables',
  bare: 'bare work',
  oneShot: 'ours, no agent',
} as const
export type SideName = (typeof sideNames)[keyof typeof sideNames]

/** Cells of two runs as one table: sides of the same cell stand side by side. */
export function mergeCells(cells: readonly Cell[], more: readonly Cell[]): Cell[] {
  const isSame = (a: Cell, b: Cell) => a.Verb === b.Verb && a.Pods === b.Pods && a.Parallel === b.Parallel
  const joined = cells.map(cell => {
    const other = more.find(each => isSame(each, cell))
    return other === undefined ? cell : { ...cell, Sides: [...cell.Sides, ...other.Sides] }
  })
  return [...joined, ...more.filter(each => !cells.some(cell => isSame(cell, each)))]
}

export const sideOf = (cell: Cell, name: string): Figures | undefined => cell.Sides.find(side => side.Name === name)

/** Milliseconds with three digits that mean something. */
export const digits = (value: number): string =>
  value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0)

/**
 * How many times faster `fast` is than `slow`: the median of the rounds' ratios of medians, which a load that comes and
 * goes does not touch.
 */
export function timesFaster(fast: Figures, slow: Figures): number {
  const ratios = fast.RoundMedians.map((median, round) => (slow.RoundMedians[round] ?? Number.NaN) / median)
    .filter(ratio => !Number.isNaN(ratio))
    .sort((a, b) => a - b)
  return ratios[(ratios.length - 1) >> 1] ?? Number.NaN
}
