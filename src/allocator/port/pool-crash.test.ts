// SPDX-License-Identifier: Apache-2.0

// Reboots, power cuts, and processes that are killed at a step.

import assert from 'node:assert/strict'
import { mkdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Journal, openJournal } from '../journal.ts'
import { directoryFor, owner, poolOn, S4, soon, states, until } from './fake-pool.ts'
import { fakePort } from './fake-port.ts'
import { releaseOwner } from './release.ts'
import type { RoundStep } from './round-options.ts'
import { listQuarantined } from './store.ts'

test('a new boot releases what pods of the last one had', async t => {
  const port = fakePort()
  const directory = directoryFor()
  const first = poolOn(t, directory, port)
  await first.pool.acquire(owner(1), S4, soon())
  await first.pool.close()
  const second = poolOn(t, directory, port, { bootId: 'boot-2' })
  second.pool.kick()
  await until(() => port.addresses().length === 1, 'the removal')
})

test('after a power cut nothing is handed out before the port was looked at', async t => {
  const port = fakePort()
  const directory = directoryFor()
  const first = poolOn(t, directory, port, { reserve: 1 })
  await first.pool.settle(soon())
  await first.pool.close()
  const reserved = port.addresses().find(each => each !== '10.0.0.10')!
  port.removeForeign(reserved)
  const second = poolOn(t, directory, port, { bootId: 'boot-2' })
  const [address] = await second.pool.acquire(owner(1), S4, soon())
  assert.ok(port.addresses().includes(address!.address))
})

test('the last commits of the journal are lost in a power cut: nothing doubled, what nobody can explain is listed', async t => {
  const port = fakePort()
  const directory = directoryFor()
  const kept = join(directoryFor(), 'kept')
  const first = poolOn(t, directory, port)
  await first.pool.acquire(owner(1), S4, soon())
  first.journal.sql('VACUUM INTO ?').run(join(directory, 'snapshot.db'))
  const [late] = await first.pool.acquire(owner(2), S4, soon())
  await first.pool.close()
  mkdirSync(kept)
  renameSync(join(directory, 'snapshot.db'), join(kept, 'journal.db'))
  const { journal, pool } = poolOn(t, kept, port, { bootId: 'boot-2' })
  const [next] = await pool.acquire(owner(3), S4, soon())
  assert.notEqual(next!.address, late!.address)
  assert.deepEqual(
    listQuarantined(journal).map(each => each.address),
    [late!.address],
  )
  await pool.settle(soon())
  assert.deepEqual(port.addresses().sort(), ['10.0.0.10', late!.address, next!.address].sort())
})

test('an address that an intent explains and a pod of this node has is put into quarantine', async t => {
  const port = fakePort()
  const directory = directoryFor()
  const victim = dying(directory, 'record')
  const { pool } = poolOn(t, directory, port, { journal: victim.journal, step: victim.step })
  await assert.rejects(pool.acquire(owner(1), S4, soon(300)))
  const made = port.addresses().find(each => each !== '10.0.0.10')!
  const { journal, pool: heir } = poolOn(t, directory, port, { inUse: address => address === made })
  await heir.settle(soon())
  assert.deepEqual(
    listQuarantined(journal).map(each => each.address),
    [made],
  )
})

const addSteps: RoundStep[] = ['get', 'compare', 'intent', 'put', 'answer', 'record']
const removeSteps: RoundStep[] = ['get', 'disassociate', 'compare', 'remove-intent', 'remove-put', 'remove-record']

/** A process that is killed at a step: from then on it changes neither journal nor cloud. */
function dying(directory: string, at: RoundStep) {
  const state = { dead: false }
  const live = openJournal(directory)
  const guard = () => {
    if (state.dead) throw new Error('killed')
  }
  const journal: Journal = {
    ...live,
    sql: text => {
      guard()
      return live.sql(text)
    },
    transaction: (run, options) => {
      guard()
      return live.transaction(run, options)
    },
    [Symbol.dispose]: () => live[Symbol.dispose](),
  }
  const step = (name: RoundStep) => {
    guard()
    if (name === at) {
      state.dead = true
      throw new Error('killed')
    }
  }
  return { journal, step, live }
}

for (const at of addSteps)
  for (const longLived of [true, false])
    test(`killed before "${at}" of an addition (${longLived ? 'agent' : 'one call'}): nothing doubled, nothing left`, async t => {
      const port = fakePort()
      const directory = directoryFor()
      const victim = dying(directory, at)
      const { pool } = poolOn(t, directory, port, { journal: victim.journal, step: victim.step, longLived, reserve: 2 })
      await assert.rejects(pool.acquire(owner(1), S4, soon(300)))
      const { journal, pool: heir } = poolOn(t, directory, port, { reserve: 0 })
      // The runtime sends a DEL after an ADD that failed.
      releaseOwner(journal, owner(1))
      const [address] = await heir.acquire(owner(2), S4, soon())
      releaseOwner(journal, owner(2))
      await heir.settle(soon())
      assert.deepEqual(port.addresses(), ['10.0.0.10'], `${address!.address} was given`)
      assert.deepEqual(listQuarantined(journal), [])
      assert.deepEqual(states(journal, port), { '10.0.0.10': 'foreign' })
    })

for (const at of removeSteps)
  test(`killed before "${at}" of a removal: the next process finishes it`, async t => {
    const port = fakePort()
    const directory = directoryFor()
    const first = poolOn(t, directory, port)
    const [address] = await first.pool.acquire(owner(1), S4, soon())
    port.bind(address!.address)
    await first.pool.close()
    const victim = dying(directory, at)
    const { pool } = poolOn(t, directory, port, { journal: victim.journal, step: victim.step, longLived: false })
    releaseOwner(victim.live, owner(1))
    await assert.rejects(pool.settle(soon(300)))
    const { journal, pool: heir } = poolOn(t, directory, port)
    await heir.settle(soon())
    assert.deepEqual(port.addresses(), ['10.0.0.10'])
    assert.deepEqual(states(journal, port), { '10.0.0.10': 'foreign' })
  })
