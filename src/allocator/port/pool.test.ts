// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { tryLock } from '#libc'
import { joinArrivals } from './arrivals.ts'
import { assertSettled, directoryFor, owner, poolOn, S4, S6, soon, states, until } from './fake-pool.ts'
import { fakePort } from './fake-port.ts'
import { listIntents } from './port-store.ts'
import { releaseOwner } from './release.ts'
import { listAssignedAddresses, listPortAddresses } from './store.ts'
import { listWants } from './want-store.ts'

test('acquire() serves 64 callers at once with one or two writes and 64 different addresses', async t => {
  const port = fakePort()
  port.latencyMs = 5
  const { journal, pool } = poolOn(t, directoryFor(), port)
  const found = await Promise.all(Array.from({ length: 64 }, (_, id) => pool.acquire(owner(id), S4, soon())))
  assert.equal(new Set(found.map(each => each[0]!.address)).size, 64)
  assert.ok(port.calls.put <= 2, `${port.calls.put} writes`)
  assertSettled(journal, port)
})

test('acquire() by processes of one call each is one write for all who had begun', async t => {
  const port = fakePort()
  const directory = directoryFor()
  // Stands for a process that has not come further than its start.
  const starting = openSync(join(directory, 'starting'), 'a')
  assert.ok(tryLock(starting))
  const alone = (id: number) =>
    poolOn(t, directory, port, { longLived: false, arrivals: joinArrivals(directory) }).pool.acquire(
      owner(id),
      S4,
      soon(30_000),
    )
  const first = alone(1)
  await sleep(100)
  const others = [2, 3, 4].map(alone)
  await sleep(100)
  assert.deepEqual(port.calls, { get: 0, put: 0, list: 0, disassociate: 0 })
  closeSync(starting)
  const found = await Promise.all([first, ...others])
  assert.equal(new Set(found.map(each => each[0]!.address)).size, 4)
  assert.deepEqual(port.added, [4])
})

test('acquire() gives from the reserve also after the clock was set back', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port, { reserve: 3, usableAfterMs: 20 })
  await pool.settle(soon())
  await until(() => port.addresses().length === 4, 'the reserve')
  const reserve = listPortAddresses(journal, port.id).map(each => each.address)
  const now = Date.now.bind(Date)
  t.mock.method(Date, 'now', () => now() - 3_600_000)
  for (const id of [1, 2]) {
    const [address] = await pool.acquire(owner(id), S4, soon())
    assert.ok(reserve.includes(address!.address))
  }
})

test('acquire() from the reserve makes no call and needs no wait', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port, { reserve: 3 })
  await pool.settle(soon())
  await until(() => port.addresses().length === 4, 'the reserve')
  port.latencyMs = 500
  const begin = performance.now()
  const [address] = await pool.acquire(owner(1), S4, soon())
  assert.ok(performance.now() - begin < 100)
  assert.equal(states(journal, port)[address!.address], 'assigned')
})

test('acquire() fills the reserve again in the background', async t => {
  const port = fakePort()
  const { pool } = poolOn(t, directoryFor(), port, { reserve: 2 })
  await pool.acquire(owner(1), S4, soon())
  await until(() => port.addresses().length === 4, 'host, pod and reserve')
})

test('acquire() returns when the address works on the wire, not before', async t => {
  const port = fakePort()
  const { pool } = poolOn(t, directoryFor(), port, { usableAfterMs: 150 })
  const begin = performance.now()
  await pool.acquire(owner(1), S4, soon())
  assert.ok(performance.now() - begin >= 145)
})

test('acquire() returns as soon as a probe says that the address works', async t => {
  const port = fakePort()
  let probes = 0
  const probe = async (addresses: readonly string[]) => (++probes < 2 ? [] : addresses)
  const { pool } = poolOn(t, directoryFor(), port, { usableAfterMs: 30_000, probe })
  const begin = performance.now()
  await pool.acquire(owner(1), S4, soon())
  assert.ok(performance.now() - begin < 2_000)
  assert.equal(probes, 2)
})

test('the reserve is probed in the background, and a pod that comes later does not wait', async t => {
  const port = fakePort()
  const probe = async (addresses: readonly string[]) => addresses
  const { journal, pool } = poolOn(t, directoryFor(), port, { usableAfterMs: 30_000, reserve: 1, probe })
  pool.kick()
  await until(
    () => listPortAddresses(journal, port.id).some(each => each.state === 'free' && !each.settling),
    'the probe',
  )
  const begin = performance.now()
  await pool.acquire(owner(1), S4, soon())
  assert.ok(performance.now() - begin < 90)
})

test('acquire() refuses at once what cannot be usable within the deadline, and gives it back', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port, { usableAfterMs: 60_000 })
  await assert.rejects(pool.acquire(owner(1), S4, soon(500)), { fault: 'late' })
  assert.deepEqual(listAssignedAddresses(journal), [])
})

test('acquire() refuses an attachment that has an address already, and leaves it that', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port)
  const [first] = await pool.acquire(owner(1), S4, soon())
  await assert.rejects(pool.acquire(owner(1), S4, soon()), { fault: 'duplicate' })
  assert.deepEqual(
    listAssignedAddresses(journal).map(each => each.address),
    [first!.address],
  )
})

test('acquire() gives an address per IP version, or none', async t => {
  const port = fakePort({ subnets: ['s4', 's6'] })
  const { journal, pool } = poolOn(t, directoryFor(), port, {
    settings: { subnetIds: ['s4', 's6'], reserve: 1, coolDownMs: 0, usableAfterMs: 0, lockDirectory: directoryFor() },
  })
  const found = await pool.acquire(owner(1), [...S4, ...S6], soon())
  assert.deepEqual(found.map(each => each.subnetId).sort(), ['s4', 's6'])
  await until(() => port.addresses().length === 6, 'a reserve of both')
  assertSettled(journal, port)
})

test('acquire() serves as many as a full subnet has, and tells the others why', async t => {
  const port = fakePort({ capacity: 5 })
  const { journal, pool } = poolOn(t, directoryFor(), port, { reserve: 4 })
  const found = await Promise.allSettled(Array.from({ length: 12 }, (_, id) => pool.acquire(owner(id), S4, soon())))
  assert.equal(found.filter(each => each.status === 'fulfilled').length, 5)
  for (const each of found) if (each.status === 'rejected') assert.equal(each.reason.fault, 'full')
  assertSettled(journal, port)
  releaseOwner(journal, listAssignedAddresses(journal)[0]!.owner!)
  await pool.acquire(owner('next'), S4, soon())
})

test('acquire() keeps foreign addresses and never gives them away', async t => {
  const port = fakePort()
  port.addForeign('10.0.0.250')
  const { journal, pool } = poolOn(t, directoryFor(), port)
  await pool.acquire(owner(1), S4, soon())
  releaseOwner(journal, owner(1))
  await pool.settle(soon())
  assert.deepEqual(port.addresses(), ['10.0.0.10', '10.0.0.250'])
  assert.deepEqual(states(journal, port), { '10.0.0.10': 'foreign', '10.0.0.250': 'foreign' })
})

test('an address that an operator took from its pod, and that Neutron gives again, stays the pod’s', async t => {
  const port = fakePort({ capacity: 1 })
  const { journal, pool } = poolOn(t, directoryFor(), port)
  const [first] = await pool.acquire(owner(1), S4, soon())
  port.removeForeign(first!.address)
  await assert.rejects(pool.acquire(owner(2), S4, soon()), /none is left/)
  assert.deepEqual(
    listAssignedAddresses(journal).map(each => [each.address, each.owner!.containerId]),
    [[first!.address, 'c1']],
  )
  assertSettled(journal, port)
})

test('acquire() looks again when somebody else wrote meanwhile', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port)
  port.onPut = () => {
    port.onPut = undefined
    port.addForeign('10.0.0.251')
  }
  const [address] = await pool.acquire(owner(1), S4, soon())
  assert.notEqual(address!.address, '10.0.0.251')
  assert.equal(states(journal, port)['10.0.0.251'], 'quarantined')
  assert.ok(port.addresses().includes('10.0.0.251'))
})

test('acquire() finds what a write did whose answer was lost, and does not write again', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port)
  port.mishaps.put.push('lostAnswer')
  await pool.acquire(owner(1), S4, soon())
  assert.equal(port.calls.put, 1)
  assertSettled(journal, port)
})

test('acquire() asks again when an answer is older than one seen before', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port)
  await pool.acquire(owner(1), S4, soon())
  port.mishaps.get.push('stale', 'stale')
  await pool.acquire(owner(2), S4, soon())
  assert.equal(listAssignedAddresses(journal).length, 2)
  assertSettled(journal, port)
})

test('acquire() fails with the cloud’s own error and leaves no wish', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port)
  port.mishaps.put.push('refused')
  await assert.rejects(pool.acquire(owner(1), S4, soon()), { type: 'ConnectionFailed' })
  assert.deepEqual(listWants(journal, port.id), [])
  assert.deepEqual(listAssignedAddresses(journal), [])
})

test('acquire() ends with its caller', async t => {
  const port = fakePort()
  port.latencyMs = 100
  const { journal, pool } = poolOn(t, directoryFor(), port)
  const caller = new AbortController()
  const pending = pool.acquire(owner(1), S4, { ...soon(), signal: caller.signal })
  await until(() => port.calls.put === 1, 'the write')
  caller.abort()
  await assert.rejects(pending, { fault: 'aborted' })
  await pool.settle(soon())
  assert.deepEqual(port.addresses(), ['10.0.0.10'])
  assertSettled(journal, port)
})

test('a released address waits for its cool-down in the reserve', async t => {
  const port = fakePort({ capacity: 1 })
  const { journal, pool } = poolOn(t, directoryFor(), port, { reserve: 1, coolDownMs: 200 })
  const [first] = await pool.acquire(owner(1), S4, soon())
  releaseOwner(journal, owner(1))
  pool.kick()
  const begin = performance.now()
  const [second] = await pool.acquire(owner(2), S4, soon())
  assert.equal(second!.address, first!.address)
  assert.ok(performance.now() - begin > 150)
})

test('a released address is taken off its floating IP before it leaves the port', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port)
  const [address] = await pool.acquire(owner(1), S4, soon())
  port.bind(address!.address)
  releaseOwner(journal, owner(1))
  await pool.settle(soon())
  assert.equal(port.calls.disassociate, 1)
  assert.deepEqual(port.addresses(), ['10.0.0.10'])
})

test('an address with a floating IP is not handed out', async t => {
  const port = fakePort()
  const { pool } = poolOn(t, directoryFor(), port, { reserve: 1 })
  await pool.settle(soon())
  const reserved = port.addresses().find(each => each !== '10.0.0.10')!
  port.bind(reserved)
  await pool.settle(soon())
  const [address] = await pool.acquire(owner(1), S4, soon())
  assert.notEqual(address!.address, reserved)
})

test('64 releases are one write', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port)
  await Promise.all(Array.from({ length: 64 }, (_, id) => pool.acquire(owner(id), S4, soon())))
  const before = port.calls.put
  for (let id = 0; id < 64; id++) {
    releaseOwner(journal, owner(id))
    pool.kick()
  }
  await until(() => port.addresses().length === 1, 'the removal')
  assert.ok(port.calls.put - before <= 2)
  await until(() => listIntents(journal, port.id).length === 0, 'the record')
  assertSettled(journal, port)
})

test('a release that the cloud refuses is tried again', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port)
  await pool.acquire(owner(1), S4, soon())
  port.mishaps.put.push('refused')
  releaseOwner(journal, owner(1))
  pool.kick()
  await until(() => port.addresses().length === 1, 'the removal')
})

test('processes that live for one call serve each other: 16 at once, at most a write per lock', async t => {
  const port = fakePort()
  port.latencyMs = 5
  const directory = directoryFor()
  const alone = () => poolOn(t, directory, port, { longLived: false })
  const callers = Array.from({ length: 16 }, alone)
  const found = await Promise.all(callers.map(({ pool }, id) => pool.acquire(owner(id), S4, soon())))
  assert.equal(new Set(found.map(each => each[0]!.address)).size, 16)
  assert.ok(port.calls.put <= 3, `${port.calls.put} writes`)
  assertSettled(callers[0]!.journal, port)
})
