// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type EntryState, foreignChange, planList, UNSEEN_MS } from './plan.ts'

const plan = (shown: string[], known: Record<string, EntryState>, wanted: string[], ageMs = 0) =>
  planList({
    shown,
    wanted,
    known: Object.entries(known).map(([entry, state]) => ({ entry, state, changedMs: 1_000_000 - ageMs })),
    echoMs: 5_000,
    appearedMs: 1_000_000,
    nowMs: 1_000_000,
  })

test('planList() adds what is wanted and removes what is ours and not wanted, never what is another’s', () => {
  const { add, remove, lost } = plan(['theirs', 'old'], { old: 'held' }, ['new'])
  assert.deepEqual([add, remove, lost], [['new'], ['old'], []])
})

test('planList() leaves to its owner what was there before it was wanted, also afterwards', () => {
  assert.equal(plan(['theirs'], {}, ['theirs']).states.get('theirs'), 'foreign')
  const after = plan(['theirs'], { theirs: 'foreign' }, [])
  assert.deepEqual([after.remove, after.states.get('theirs'), after.states.has('theirs')], [[], undefined, true])
})

test('planList() takes as ours what an earlier write of ours made whose answer was not seen', () => {
  assert.equal(plan(['ours'], { ours: 'adding' }, ['ours']).states.get('ours'), 'held')
  assert.deepEqual(plan(['ours'], { ours: 'adding' }, []).remove, ['ours'])
})

test('planList() waits for an unanswered write as long as it may take effect', () => {
  assert.equal(plan([], { ours: 'adding' }, []).states.has('ours'), false)
  assert.equal(plan([], { ours: 'adding' }, [], UNSEEN_MS + 1).states.get('ours'), 'removed')
})

test('planList() puts back what somebody took out, and says so', () => {
  const { add, lost } = plan([], { ours: 'held' }, ['ours'])
  assert.deepEqual([add, lost], [['ours'], ['ours']])
})

test('planList() takes out again what came back by an older list, for a while', () => {
  const { remove, returned } = plan(['ours'], { ours: 'removed' }, [])
  assert.deepEqual([remove, returned], [['ours'], ['ours']])
  for (const shown of [[], ['ours']]) {
    const later = plan(shown, { ours: 'removed' }, [], 6_000)
    assert.deepEqual([later.remove, later.states.has('ours'), later.states.get('ours')], [[], true, undefined])
  }
  assert.equal(plan(['ours'], { ours: 'removed' }, ['ours'], 6_000).states.get('ours'), 'foreign')
})

test('planList() keeps what was about to be removed and is wanted again', () => {
  const { add, remove, states } = plan(['ours'], { ours: 'removing' }, ['ours'])
  assert.deepEqual([add, remove, states.get('ours')], [[], [], 'held'])
})

test('foreignChange() names what others did', () => {
  const change = foreignChange(['a', 'b', 'ours'], ['b', 'c', 'new'], new Set(['ours', 'new']))
  assert.deepEqual(change, { added: ['c'], removed: ['a'] })
})
