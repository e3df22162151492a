// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { clear, find, list, newState, put, quickLatency, remove, type State, timestamp } from './state.ts'

const emptyState = (): State =>
  newState({
    latency: quickLatency,
    wireDelayMs: 0,
    tokenTtlMs: 1000,
    tokenCacheMs: 1000,
    maxRoutes: 30,
    maxAddressPairs: 10,
    maxNics: 28,
    requestsPerSecond: 0,
    repeatedShare: 0,
  })

test('list: shows the past as it was, with what is gone and without what came', async () => {
  const state = emptyState()
  put(state, 'flavors', { id: 'a', name: 'old' })
  put(state, 'flavors', { id: 'b', name: 'gone' })
  const thenMs = performance.now()
  await new Promise(resolve => setTimeout(resolve, 2))
  put(state, 'flavors', { id: 'a', name: 'new' })
  remove(state, 'flavors', 'b')
  put(state, 'flavors', { id: 'c', name: 'came' })
  const names = (rows: { name: string }[]): string[] => rows.map(row => row.name).sort()
  assert.deepEqual(names(list(state, 'flavors')), ['came', 'new'])
  assert.deepEqual(names(list(state, 'flavors', thenMs)), ['gone', 'old'])
})

test('put and remove: tell the listeners, clear forgets', () => {
  const state = emptyState()
  let told = 0
  state.listeners.add(() => told++)
  put(state, 'flavors', { id: 'a', name: 'x' })
  remove(state, 'flavors', 'a')
  assert.equal(told, 2)
  put(state, 'flavors', { id: 'a', name: 'x' })
  clear(state)
  assert.equal(find(state, 'flavors', 'a'), undefined)
})

test('timestamp: has whole seconds', () => {
  assert.equal(timestamp(Date.UTC(2026, 0, 2, 3, 4, 5, 678)), '2026-01-02T03:04:05Z')
})
