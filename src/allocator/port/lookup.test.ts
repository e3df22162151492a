// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryJournal } from '../journal.ts'
import { findLookup, putLookup } from './port-store.ts'

test('putLookup(): what was not looked for again in a month is forgotten', t => {
  const day = 86_400_000
  using journal = memoryJournal()
  t.mock.timers.enable({ apis: ['Date'], now: 100 * day })
  putLookup(journal, 'by an address that the node has no more', '{}')
  t.mock.timers.setTime(120 * day)
  putLookup(journal, 'by the next one', '{}')
  t.mock.timers.setTime(140 * day)
  putLookup(journal, 'by the last one', '{}')
  const isKnown = (lookup: string) => findLookup(journal, lookup) !== undefined
  assert.equal(isKnown('by an address that the node has no more'), false)
  assert.deepEqual([isKnown('by the next one'), isKnown('by the last one')], [true, true])
})
