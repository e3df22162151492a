// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { deadlineIn } from '#base'
import { type Journal, openJournal } from '../journal.ts'
import { AllocationError } from '../port/error.ts'
import type { Owner } from '../port/plan.ts'
import { type FakeDriver, fakeDriver } from './fake-driver.ts'
import type { ObjectSettings } from './object.ts'
import { type ObjectPoolOptions, openObjectPool, poolDigitsOf } from './pool.ts'
import { adoptObject, releaseObjectsOf } from './release.ts'
import type { ObjectStep } from './round.ts'
import { listAssignedObjects, listObjects } from './store.ts'

const POOL = 'pool of the test'
const owner = (id: number | string): Owner => ({ network: 'n', containerId: `c${id}`, ifName: 'eth0' })
const soon = (ms = 5_000) => ({ deadline: deadlineIn(ms) })
const release = (journal: Journal, id: number | string) => releaseObjectsOf(journal, 'fake', owner(id))

function directoryFor(): string {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-objects-'))
  // At the very end: hooks run in the order in which they were made, and a pool that is closed later makes its lock anew.
  process.setMaxListeners(0).once('exit', () => rmSync(directory, { recursive: true }))
  return directory
}

type Setup = Partial<ObjectPoolOptions> & Partial<ObjectSettings>

function poolOn(t: TestContext, directory: string, driver: FakeDriver, setup: Setup = {}) {
  const { reserve = 0, max = 1_000, coolDownMs = 0, usableAfterMs = 0, idleMs = 60_000, ...more } = setup
  const journal = openJournal(directory)
  const options = {
    journal,
    pool: POOL,
    kind: 'fake',
    bootId: 'boot-1',
    longLived: true,
    access: '{}',
    detail: '',
    driver: async () => driver,
    settings: { name: 'objects', reserve, max, coolDownMs, usableAfterMs, idleMs, lockDirectory: directory },
    ...more,
  }
  const pool = openObjectPool(options)
  const end = async () => {
    await pool.close()
    journal[Symbol.dispose]()
  }
  let ended: Promise<void> | undefined
  const close = () => (ended ??= end())
  t.after(close)
  return { journal, pool, options, close }
}

const states = (journal: Journal) => listObjects(journal, POOL).map(each => each.state)

/** The cloud has what the journal has. */
function assertSettled(journal: Journal, driver: FakeDriver): void {
  const marks = listObjects(journal, POOL).map(each => each.mark)
  assert.deepEqual(marks.sort(), [...driver.objects.keys()].sort())
  assert.ok(!states(journal).includes('making'))
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (const end = performance.now() + 5_000; !condition(); await sleep(5))
    if (performance.now() > end) throw new Error(`${what} did not come true`)
}

test('a creation that did not get its turn in time leaves no record', async t => {
  const driver = fakeDriver()
  const { create } = driver
  const late = () => Promise.reject(new AllocationError('late', 'Cannot lock server.lock: another process holds it'))
  Object.assign(driver, { create: late })
  const { journal, pool } = poolOn(t, directoryFor(), driver, { max: 1 })
  await assert.rejects(pool.acquire(owner(1), soon()), /Cannot lock/)
  assert.deepEqual(states(journal), [])
  Object.assign(driver, { create })
  await pool.acquire(owner(2), soon())
  assertSettled(journal, driver)
})

test('acquire() takes a ready object without a call to the cloud, and the pool refills and describes afterwards', async t => {
  const driver = fakeDriver()
  const { journal, pool } = poolOn(t, directoryFor(), driver, { reserve: 2 })
  await pool.settle(soon())
  assert.deepEqual(driver.created, [2])
  driver.latencyMs = 200
  const begin = performance.now()
  const found = await pool.acquire(owner(1), soon())
  assert.ok(performance.now() - begin < 100)
  await until(() => driver.objects.size === 3 && driver.described.length === 1, 'the refill')
  assert.deepEqual(driver.described, [`${found.mark} c1`])
  assertSettled(journal, driver)
})

test('acquire() by a hundred at once makes few creations, each of all that wait', async t => {
  const driver = fakeDriver()
  driver.latencyMs = 20
  const { journal, pool } = poolOn(t, directoryFor(), driver, { reserve: 4 })
  const found = await Promise.all(Array.from({ length: 100 }, (_, id) => pool.acquire(owner(id), soon())))
  assert.equal(new Set(found.map(each => each.mark)).size, 100)
  assert.ok(driver.created.length <= 4, `creations of ${driver.created}`)
  assert.equal(listAssignedObjects(journal).length, 100)
})

test('acquire() after a lost answer finds what was made, and makes no other', async t => {
  const driver = fakeDriver()
  const { journal, pool } = poolOn(t, directoryFor(), driver)
  driver.mishaps.push('lostAnswer')
  await pool.acquire(owner(1), soon())
  assert.deepEqual(driver.created, [1])
  assertSettled(journal, driver)
})

test('acquire() asks for half after a creation that came to nothing in its time', async t => {
  const driver = fakeDriver()
  const { pool } = poolOn(t, directoryFor(), driver)
  await pool.settle(soon())
  driver.latencyMs = 20
  driver.mishaps.push('unavailable', 'lost')
  await assert.rejects(pool.acquire(owner('first'), soon()), /no answer/)
  await Promise.all(Array.from({ length: 8 }, (_, id) => pool.acquire(owner(id), soon())))
  const [, lost, ...after] = driver.created
  assert.ok(
    after.every(count => count <= Math.max(1, lost! / 2)),
    `creations of ${driver.created}`,
  )
})

for (const step of ['intent', 'create', 'record', 'list', 'compare'] as const satisfies ObjectStep[])
  test(`a process that ends before "${step}" leaves nothing that the next does not find`, async t => {
    const driver = fakeDriver()
    const directory = directoryFor()
    let steps = 0
    const dies = (name: ObjectStep) => {
      if (name === step && steps++ === 0) throw new Error('killed')
    }
    const first = poolOn(t, directory, driver, { step: dies })
    await assert.rejects(first.pool.acquire(owner(1), soon()), /killed/)
    await first.close()
    const { journal, pool } = poolOn(t, directory, driver, { reserve: 1 })
    const found = await pool.acquire(owner(2), soon())
    assert.ok(driver.objects.has(found.mark))
    await pool.settle(soon())
    const lost = states(journal).filter(each => each === 'making').length
    assert.ok(lost <= 1)
    assert.ok(!states(journal).includes('quarantined'))
    assert.equal(driver.objects.size, listObjects(journal, POOL).length - lost)
  })

test('acquire() serves what fits, says why it does not serve the others, and the next as soon as one is released', async t => {
  const driver = fakeDriver({ capacity: 5 })
  const { journal, pool } = poolOn(t, directoryFor(), driver, { reserve: 2 })
  const all = await Promise.allSettled(Array.from({ length: 8 }, (_, id) => pool.acquire(owner(id), soon())))
  const refused = all.filter(each => each.status === 'rejected')
  assert.equal(refused.length, 3)
  for (const { reason } of refused)
    assert.match(
      reason.message,
      /objects to interface eth0 .*Quota exceeded.* 5 in use.*at most 1000; next try in \d+ s/,
    )
  const served = all.findIndex(each => each.status === 'fulfilled')
  release(journal, served)
  await pool.acquire(owner('late'), soon())
  assert.equal(listAssignedObjects(journal).length, 5)
})

test('acquire() asks a full cloud again only after a while', async t => {
  const driver = fakeDriver({ capacity: 0 })
  const { pool } = poolOn(t, directoryFor(), driver)
  for (let each = 0; each < 5; each++) await assert.rejects(pool.acquire(owner(each), soon()), { fault: 'full' })
  assert.deepEqual(driver.created, [1])
  driver.capacity = 1
  const now = performance.now.bind(performance)
  t.mock.method(performance, 'now', () => now() + 3_000)
  await pool.acquire(owner('late'), soon())
})

test('a reserve whose subnet is gone is not asked for again, until somebody wants an address or brings a place', async t => {
  const driver = fakeDriver()
  driver.mishaps.push('gone', 'gone')
  const errors: unknown[] = []
  const setup = { reserve: 2, onError: (error: unknown) => errors.push(error) }
  const { journal, pool, options } = poolOn(t, directoryFor(), driver, setup)
  pool.kick()
  await until(() => errors.length === 1, 'the word')
  for (let round = 0; round < 3; round++) await pool.settle(soon())
  assert.deepEqual(driver.created, [2])
  await assert.rejects(pool.acquire(owner(1), soon()), /Subnet s4 could not be found/)
  assert.deepEqual(driver.created, [2, 1])
  pool.use(options)
  pool.kick()
  await until(() => driver.objects.size === 2, 'the reserve')
  assertSettled(journal, driver)
})

test('a pool never has more than its limit, and gives a released object at the limit after its cool-down', async t => {
  const driver = fakeDriver()
  const { journal, pool } = poolOn(t, directoryFor(), driver, { max: 3, reserve: 2, coolDownMs: 150 })
  for (const id of [1, 2, 3]) await pool.acquire(owner(id), soon())
  await assert.rejects(pool.acquire(owner(4), soon()), /all 3 that the node may have .*3 in use/)
  release(journal, 2)
  const begin = performance.now()
  await pool.acquire(owner(5), soon())
  assert.ok(performance.now() - begin > 100)
  assert.equal(driver.objects.size, 3)
})

test('a clock that is set back makes nobody wait', async t => {
  const driver = fakeDriver()
  const { journal, pool } = poolOn(t, directoryFor(), driver, { max: 1, coolDownMs: 20 })
  const { mark } = await pool.acquire(owner(1), soon())
  release(journal, 1)
  await pool.settle(soon())
  const now = Date.now.bind(Date)
  t.mock.method(Date, 'now', () => now() - 3_600_000)
  assert.equal((await pool.acquire(owner(2), soon())).mark, mark)
})

test('a released object goes to the next only after it was cleaned', async t => {
  const driver = fakeDriver()
  const { journal, pool } = poolOn(t, directoryFor(), driver, { max: 1 })
  const first = await pool.acquire(owner(1), soon())
  release(journal, 1)
  const second = await pool.acquire(owner(2), soon())
  assert.equal(second.mark, first.mark)
  await until(() => driver.described.length === 2, 'the description')
  assert.deepEqual(driver.described, [first.mark, `${first.mark} c2`])
})

test('objects that nobody needs are removed after a while, but for the reserve', async t => {
  const driver = fakeDriver()
  const { journal, pool } = poolOn(t, directoryFor(), driver, { reserve: 1, idleMs: 40 })
  for (const id of [1, 2, 3]) await pool.acquire(owner(id), soon())
  for (const id of [1, 2, 3]) release(journal, id)
  pool.kick()
  await until(() => driver.objects.size === 1, 'the removal')
  assertSettled(journal, driver)
})

test('the last release is enough for an object to be removed some day', async t => {
  const driver = fakeDriver()
  const { journal, pool } = poolOn(t, directoryFor(), driver, { idleMs: 100 })
  await pool.acquire(owner(1), soon())
  await pool.settle(soon())
  await sleep(50)
  release(journal, 1)
  pool.kick()
  await until(() => driver.objects.size === 0, 'the removal')
})

test('after a reboot the objects of earlier pods are nobody’s', async t => {
  const driver = fakeDriver()
  const directory = directoryFor()
  const before = poolOn(t, directory, driver)
  await before.pool.acquire(owner(1), soon())
  await before.close()
  const { journal, pool } = poolOn(t, directory, driver, { bootId: 'boot-2' })
  await pool.settle(soon())
  assert.deepEqual(states(journal), ['free'])
  assert.equal((await pool.acquire(owner(1), soon())).mark, [...driver.objects.keys()][0])
})

test('a restart in the same boot loses and doubles nothing', async t => {
  const driver = fakeDriver()
  const directory = directoryFor()
  const before = poolOn(t, directory, driver, { reserve: 2 })
  for (const id of [1, 2, 3]) await before.pool.acquire(owner(id), soon())
  await before.pool.settle(soon())
  await before.close()
  const { journal, pool } = poolOn(t, directory, driver, { reserve: 2 })
  for (const id of [4, 5, 6]) await pool.acquire(owner(id), soon())
  await pool.settle(soon())
  assert.equal(new Set(listAssignedObjects(journal).map(each => each.mark)).size, 6)
  assertSettled(journal, driver)
})

test('an object with a mark of the pool that nothing explains is quarantined, until somebody adopts it', async t => {
  const driver = fakeDriver()
  const mark = `${poolDigitsOf(POOL)}0123456789ab`
  driver.objects.set(mark, { id: 'strange', mark, addresses: [], mac: '', detail: '' })
  driver.objects.set('other', { id: 'other', mark: 'ffffffff0123456789ab', addresses: [], mac: '', detail: '' })
  const { journal, pool } = poolOn(t, directoryFor(), driver)
  await pool.settle(soon())
  assert.deepEqual(states(journal), ['quarantined'])
  assert.notEqual((await pool.acquire(owner(1), soon())).mark, mark)
  adoptObject(journal, { mark, coolDownMs: 0 })
  await pool.settle(soon())
  assert.equal((await pool.acquire(owner(2), soon())).mark, mark)
})

test('an empty list and a list that lacks some remove nothing; what it lacks is given to nobody meanwhile', async t => {
  const driver = fakeDriver()
  const directory = directoryFor()
  const { journal, pool, close } = poolOn(t, directory, driver, { reserve: 2 })
  const held = await pool.acquire(owner(1), soon())
  await pool.settle(soon())
  const free = listObjects(journal, POOL).filter(each => each.state === 'free')
  driver.hidden = () => true
  await close()
  const later = poolOn(t, directory, driver, { reserve: 2, bootId: 'boot-2' })
  await later.pool.settle(soon())
  assert.equal(driver.removed.length, 0)
  const found = await later.pool.acquire(owner(2), soon())
  assert.ok(![held, ...free].some(each => each.mark === found.mark))
})

test('an object that cannot be used waits in quarantine, and what was begun only is removed', async t => {
  const driver = fakeDriver()
  const directory = directoryFor()
  const first = poolOn(t, directory, driver, { reserve: 2 })
  await first.pool.settle(soon())
  await first.close()
  const [flawed, part] = [...driver.objects.values()]
  driver.objects.set(flawed!.mark, { ...flawed!, flaw: 'no link came' })
  driver.objects.set(part!.mark, { ...part!, isPart: true })
  const { journal, pool } = poolOn(t, directory, driver, { bootId: 'boot-2' })
  await pool.settle(soon())
  assert.deepEqual(
    listObjects(journal, POOL).map(each => [each.mark, each.state, each.flaw]),
    [[flawed!.mark, 'quarantined', 'no link came']],
  )
})

test('what one attachment asks for is made for it alone, refused to it alone, and removed after it', async t => {
  const driver = fakeDriver()
  const { create } = driver
  driver.create = async (requests, limits) => {
    if (requests.some(each => each.special === 'bad')) {
      driver.mishaps.unshift('full')
    }
    return await create(requests, limits)
  }
  const { journal, pool } = poolOn(t, directoryFor(), driver, { reserve: 1 })
  const [good, bad, plain] = await Promise.allSettled([
    pool.acquire(owner('good'), soon(), { special: 'good' }),
    pool.acquire(owner('bad'), soon(), { special: 'bad' }),
    pool.acquire(owner('plain'), soon()),
  ])
  assert.deepEqual([good.status, bad.status, plain.status], ['fulfilled', 'rejected', 'fulfilled'])
  release(journal, 'good')
  pool.kick()
  await until(() => driver.removed.length === 1, 'the removal')
})

test('without a process that stays a release removes the object at once', async t => {
  const driver = fakeDriver()
  const { journal, pool } = poolOn(t, directoryFor(), driver, { longLived: false, reserve: 3 })
  await pool.acquire(owner(1), soon())
  assert.deepEqual(driver.created, [1])
  release(journal, 1)
  await pool.settle(soon())
  assert.equal(driver.objects.size, 0)
})

test('where objects are made one by one, whoever waits gets what only has to be cleaned', async t => {
  const driver = fakeDriver({ batchMax: 1 })
  const { journal, pool } = poolOn(t, directoryFor(), driver)
  const first = await pool.acquire(owner(1), soon())
  driver.latencyMs = 500
  const begin = performance.now()
  const pair = [2, 3].map(id => pool.acquire(owner(id), soon()))
  release(journal, 1)
  assert.equal((await Promise.race(pair)).mark, first.mark)
  assert.ok(performance.now() - begin < 500)
  await Promise.all(pair)
  assert.equal(driver.objects.size, 2)
})

test('what was begun for an attachment and not finished is removed, and the attachment that asks again is served', async t => {
  const directory = directoryFor()
  const driver = fakeDriver({ batchMax: 1 })
  driver.mishaps.push('lostAnswer')
  const before = poolOn(t, directory, driver, {
    step: name => {
      if (name === 'list' && driver.objects.size > 0) throw new Error('the process dies')
    },
  })
  await assert.rejects(before.pool.acquire(owner(1), soon()))
  await before.close()
  const [part] = driver.objects.values()
  driver.objects.set(part!.mark, { ...part!, isPart: true })
  const { journal, pool } = poolOn(t, directory, driver)
  const served = await pool.acquire(owner(1), soon(2_000))
  assert.notEqual(served.mark, part!.mark)
  await until(() => driver.removed.includes(part!.mark), 'the removal')
  assertSettled(journal, driver)
})
