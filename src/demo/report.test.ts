// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Passage } from './probes.ts'
import { closing, isAsPromised, passageTable, type Report, table } from './report.ts'

const passage = (more: Partial<Passage> = {}): Passage => ({
  what: 'pod to pod',
  from: 'pod-1',
  to: 'pod-2',
  passes: true,
  fault: undefined,
  ms: 0.5,
  lost: 0,
  afterMs: 0,
  way: ['pod-1', 'worker-1', 'pod-2'],
  ...more,
})
const report = (more: Partial<Report> = {}): Report => ({
  cloud: 'a cloud',
  network: 'a network',
  attached: [],
  furtherMs: [],
  comparison: undefined,
  passages: [passage()],
  leftovers: [],
  failure: undefined,
  seconds: 9,
  ...more,
})

test('isAsPromised takes one failure of any kind, and no packet at all, for a failure', () => {
  assert.equal(isAsPromised(report()), true)
  assert.equal(isAsPromised(report({ passages: [passage(), passage({ passes: false })] })), false)
  assert.equal(isAsPromised(report({ leftovers: ['a link'] })), false)
  assert.equal(isAsPromised(report({ failure: 'interrupted' })), false)
  assert.equal(isAsPromised(report({ passages: [] })), false)
})

test('closing names what is left and what failed', () => {
  const text = closing(report({ leftovers: ['a link'], passages: [passage({ passes: false })], failure: 'no cloud' }))
  assert.match(text, /no cloud(.|\n)*1 of 1 paths fail(.|\n)*a link(.|\n)*Not as promised/)
})

test('passageTable shows the way of the packet, and why a path fails', () => {
  const text = passageTable(
    report({ passages: [passage(), passage({ passes: false, fault: 'no answer', ms: undefined })] }),
  )
  assert.match(text, /pod-1 > pod-2 +passes +0.50 ms +pod-1 > worker-1 > pod-2\n/)
  assert.match(text, /FAILS: no answer/)
})

test('table pads every column to its widest cell', () => {
  assert.equal(
    table([
      ['a', 'bb', 'c'],
      ['aaa', 'b', ''],
    ]),
    '  a    bb  c\n  aaa  b',
  )
})
