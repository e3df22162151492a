// SPDX-License-Identifier: Apache-2.0

import { type Cell, type Figures, type SideName, sideNames, sideOf, timesFaster } from './measured.ts'

/** One goal as it was measured. */
export type Verdict = { readonly goal: string; readonly measured: string; readonly met: boolean }

/**
 * The goals of the design, for one run.
 * @param strictness 1 asks for the goals themselves; less for that part of each ratio, which leaves room for a machine that does
 *   other things. Times are no ratios, and judged by a whole run on a quiet machine alone.
 */
export function judge(cells: readonly Cell[], strictness: number): Verdict[] {
  return cells.flatMap(cell =>
    (cell.Verb === 'ADD' ? judgeAdd(cell, strictness) : judgeDel(cell, strictness)).map(verdict => ({
      ...verdict,
      goal: `${cell.Verb}, ${cell.Pods} pods, ${cell.Parallel} at once: ${verdict.goal}`,
    })),
  )
}

/** Node.js alone needs 30 to 40 ms to start and end. */
const ONE_SHOT_MS = 60

function judgeAdd(cell: Cell, strictness: number): Verdict[] {
  const { ours, oursMasq, ptp, ptpMasq, bare, oneShot } = sideNames
  const masqGoal = cell.Parallel === 1 ? between(cell.Pods, 10, 25) : between(cell.Pods, 10, 40)
  return [
    ...(cell.Parallel === 1
      ? [
          strictness < 1 ? undefined : aboveBare(cell, ours, bare, 1),
          faster(cell, ours, ptp, strictness * between(cell.Pods, 4, 6)),
          lessCpu(cell, ours, ptp, strictness * 4),
          strictness < 1 ? undefined : atMost(cell, oneShot, ONE_SHOT_MS),
        ]
      : [fasterAtWorst(cell, oursMasq, ptpMasq, strictness * masqGoal)]),
    faster(cell, oursMasq, ptpMasq, strictness * masqGoal),
  ].filter(verdict => verdict !== undefined)
}

function judgeDel(cell: Cell, strictness: number): Verdict[] {
  const { ours, oursMasq, ptp, ptpMasq } = sideNames
  return [
    faster(cell, ours, ptp, strictness),
    faster(cell, oursMasq, ptpMasq, strictness * (cell.Parallel === 1 ? 1 : 10)),
  ].filter(verdict => verdict !== undefined)
}

/** The design names goals for 0 and for 1000 pods; between them they grow with the pods. */
const between = (pods: number, atNone: number, atThousand: number) =>
  atNone + (atThousand - atNone) * Math.min(1, pods / 1000)

type Pair = (cell: Cell, fast: SideName, slow: SideName, limit: number) => Verdict | undefined

/** A verdict on two sides; undefined where one was not measured. */
const onBoth =
  (verdict: (fast: Figures, slow: Figures, limit: number) => Verdict): Pair =>
  (cell, fast, slow, limit) => {
    const sides = [sideOf(cell, fast), sideOf(cell, slow)] as const
    return sides[0] === undefined || sides[1] === undefined ? undefined : verdict(sides[0], sides[1], limit)
  }

const ratio = (fast: Figures, slow: Figures, what: string, measured: number, limit: number): Verdict => ({
  goal: `${what} of ${fast.Name} ${round(limit)} times below ${slow.Name}`,
  measured: `${round(measured)} times`,
  met: measured >= limit,
})

const faster = onBoth((fast, slow, limit) => ratio(fast, slow, 'median', timesFaster(fast, slow), limit))
const fasterAtWorst = onBoth((fast, slow, limit) => ratio(fast, slow, 'p99', slow.P99 / fast.P99, limit))
const lessCpu = onBoth((fast, slow, limit) => ratio(fast, slow, 'CPU', slow.CPU / fast.CPU, limit))
const aboveBare = onBoth((ours, bare, limit) => ({
  goal: `median of ${ours.Name} at most ${round(limit)} ms above ${bare.Name}`,
  measured: `${round(ours.Median - bare.Median)} ms`,
  met: ours.Median - bare.Median <= limit,
}))

function atMost(cell: Cell, name: SideName, limitMs: number): Verdict | undefined {
  const side = sideOf(cell, name)
  if (side === undefined) return undefined
  return {
    goal: `median of ${name} at most ${round(limitMs)} ms`,
    measured: `${round(side.Median)} ms`,
    met: side.Median <= limitMs,
  }
}

const round = (value: number) => Number(value.toPrecision(3))
