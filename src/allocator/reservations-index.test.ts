// SPDX-License-Identifier: Apache-2.0
// Goal: both indices keep the same promise. Method: the same changes on each, and what a directory would hold then.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openJournal } from './journal.ts'
import { journalIndex, memoryIndex, type ReservationIndex } from './reservations-index.ts'

const kinds: { [name: string]: (t: TestContext) => (directory: string) => ReservationIndex } = {
  memoryIndex: t => directory => memoryIndex(`${t.name} ${directory}`),
  journalIndex: t => {
    const home = mkdtempSync(join(tmpdir(), 'index-'))
    const journal = openJournal(home)
    t.after(() => {
      journal[Symbol.dispose]()
      rmSync(home, { recursive: true })
    })
    return directory => journalIndex(journal, directory)
  },
}
const a = { address: '10.0.0.2', containerId: 'a', ifName: 'eth0' }
const a6 = { address: 'fd00::2', containerId: 'a', ifName: 'eth0' }
const b = { address: '10.0.0.3', containerId: 'b', ifName: 'eth0' }
const say = (index: ReservationIndex) => [index.stamp(), [...index.addresses()].sort(), index.find(a).sort()]

for (const [name, make] of Object.entries(kinds)) {
  test(`${name}: knows whose an address is, in one directory`, t => {
    const open = make(t)
    open('one').store('s1', { kind: 'rewritten', all: [a, a6, b] })
    assert.deepEqual(say(open('one')), ['s1', [a.address, b.address, a6.address], [a.address, a6.address]])
    assert.deepEqual(open('one').find({ containerId: 'a', ifName: 'net1' }), [])
    assert.deepEqual(say(open('two')), [undefined, [], []])
    assert.deepEqual([open('one').has(b.address), open('two').has(b.address)], [true, false])
  })

  test(`${name}: follows changes, also of an address to another owner`, t => {
    const index = make(t)('one')
    index.store('s1', { kind: 'rewritten', all: [a, a6, b] })
    index.store('s2', { kind: 'changed', added: [{ ...b, address: a.address }], removed: [a6.address, '10.9.9.9'] })
    assert.deepEqual(say(index), ['s2', [a.address, b.address], []])
    assert.deepEqual(index.find(b).sort(), [a.address, b.address])
    index.store('s3', { kind: 'rewritten', all: [a] })
    assert.deepEqual(say(index), ['s3', [a.address], [a.address]])
  })

  test(`${name}: forgets a directory that is gone`, t => {
    const open = make(t)
    open('one').store('s1', { kind: 'rewritten', all: [a] })
    open('one').forget()
    assert.deepEqual(say(open('one')), [undefined, [], []])
  })
}
