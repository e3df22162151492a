// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { judge } from './goals.ts'
import { type Cell, type Figures, mergeCells, type SideName, sideNames, timesFaster } from './measured.ts'

const figures = (name: SideName, median: number, change: Partial<Figures> = {}): Figures => ({
  Name: name,
  Median: median,
  P99: median * 2,
  CPU: median,
  Others: 0,
  Calls: 96,
  Echoes: 4,
  RoundMedians: [median, median, median],
  ...change,
})
const cell = (Pods: number, Parallel: number, ...Sides: Figures[]): Cell => ({ Verb: 'ADD', Pods, Parallel, Sides })
const { ours, oursMasq, ptp, ptpMasq, bare, oneShot } = sideNames

test('timesFaster: one disturbed round does not count', () => {
  const slow = figures(ptp, 8, { RoundMedians: [8, 8, 80] })
  assert.equal(timesFaster(figures(ours, 2), slow), 4)
})

test('judge: asks for the goal of the number of pods, between 0 and 1000 in proportion', () => {
  const goals = (pods: number) => judge([cell(pods, 1, figures(ours, 1), figures(ptp, 8))], 1).map(({ goal }) => goal)
  assert.match(goals(0)[0]!, /ADD, 0 pods, 1 at once: median of ours 4 times below ptp/)
  assert.match(goals(500)[0]!, / 5 times/)
  assert.match(goals(1000)[0]!, / 6 times/)
})

test('judge: half strictness halves the ratios, and leaves the time above bare work to whole runs', () => {
  const one = cell(0, 1, figures(ours, 3), figures(ptp, 8), figures(bare, 1.5))
  assert.deepEqual(
    judge([one], 1).map(({ met }) => met),
    [false, false, false],
  )
  assert.deepEqual(
    judge([one], 0.5).map(({ met }) => met),
    [true, true],
  )
})

test('judge: with 32 at once the worst call counts too', () => {
  const slow = figures(ptpMasq, 400, { P99: 400 })
  const verdicts = judge([cell(1000, 32, figures(oursMasq, 10, { P99: 20 }), slow)], 1)
  assert.deepEqual(
    verdicts.map(({ met, measured }) => [met, measured]),
    [
      [false, '20 times'],
      [true, '40 times'],
    ],
  )
})

test('judge: says nothing of sides that were not measured', () => {
  assert.deepEqual(judge([cell(0, 1, figures(ours, 1))], 1), [])
})

test('judge: a call without agent has a time of its own, which a quick run does not judge', () => {
  const verdicts = (ms: number, strictness: number) => judge([cell(0, 1, figures(oneShot, ms))], strictness)
  assert.deepEqual(
    [verdicts(59, 1), verdicts(61, 1), verdicts(61, 0.5)].map(each => each.map(({ met }) => met)),
    [[true], [false], []],
  )
})

test('mergeCells: sides of the same cell stand side by side', () => {
  const merged = mergeCells(
    [cell(0, 1, figures(ours, 1)), cell(200, 1, figures(ours, 2))],
    [cell(0, 1, figures(oneShot, 50)), cell(0, 8, figures(oneShot, 90))],
  )
  assert.deepEqual(
    merged.map(({ Pods, Parallel, Sides }) => [Pods, Parallel, ...Sides.map(({ Name }) => Name)]),
    [
      [0, 1, ours, oneShot],
      [200, 1, ours],
      [0, 8, oneShot],
    ],
  )
})
