// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { closeSync, mkdirSync, mkdtempSync, openSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { deadlineIn } from '#base'
import { tryLock } from '#libc'
import { OpenStackError } from '#openstack'
import { type Journal, openJournal } from '../journal.ts'
import { joinArrivals } from './arrivals.ts'
import { type FakePort, fakePort } from './fake-port.ts'
import type { Owner } from './plan.ts'
import { openPortPool, type PortPoolOptions } from './pool.ts'
import { adoptAddress, releaseAddress, releaseOwner } from './release.ts'
import type { RoundStep } from './round-options.ts'
import { listAssignedAddresses, listIntents, listPortAddresses, listQuarantined, listWants } from './store.ts'

const owner = (id: number | string): Owner => ({ network: 'n', containerId: `c${id}`, ifName: 'eth0' })
const soon = (ms = 5_000) => ({ deadline: deadlineIn(ms) })

const S4 = [{ subnetIds: ['s4'] }]
const S6 = [{ subnetIds: ['s6'] }]

type Setup = Partial<PortPoolOptions> & { reserve?: number; coolDownMs?: number; usableAfterMs?: number }

function directoryFor(): string {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-pool-'))
  // At the very end: hooks run in the order in which they were made, and a pool that is closed later makes its lock anew.
  process.setMaxListeners(0).once('exit', () => rmSync(directory, { recursive: true }))
  return directory
}

function poolOn(t: TestContext, directory: string, port: FakePort, setup: Setup = {}) {
  const { reserve = 0, coolDownMs = 0, usableAfterMs = 0, ...more } = setup
  const journal = more.journal ?? openJournal(directory)
  const pool = openPortPool({
    journal,
    portId: port.id,
    bootId: 'boot-1',
    longLived: true,
    access: '{}',
    neutron: async () => port,
    settings: { subnetIds: ['s4'], reserve, coolDownMs, usableAfterMs, lockDirectory: directory },
    ...more,
  })
  t.after(async () => {
    await pool.close()
    journal[Symbol.dispose]()
  })
  return { journal, pool }
}

const states = (journal: Journal, port: FakePort): Record<string, string> =>
  Object.fromEntries(listPortAddresses(journal, port.id).map(each => [each.address, each.state]))

/** Neutron's list is the journal's, nothing is counted twice, and nothing is open. */
function assertSettled(journal: Journal, port: FakePort): void {
  assert.deepEqual(Object.keys(states(journal, port)).sort(), port.addresses().sort())
  assert.deepEqual(listIntents(journal, port.id), [])
  assert.deepEqual(listWants(journal, port.id), [])
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    if (condition()) return
    await sleep(10)
  }
  assert.fail(`${what} did not come true`)
}

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

test('one answer that lacks addresses takes none from anybody', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port, { reserve: 2 })
  for (const id of [1, 2, 3]) await pool.acquire(owner(id), S4, soon())
  await until(() => port.addresses().length === 6, 'the reserve')
  const before = port.addresses()
  port.mishaps.get.push('partial')
  await Promise.all([4, 5, 6].map(id => pool.acquire(owner(id), S4, soon())))
  assert.deepEqual(
    before.filter(address => !port.addresses().includes(address)),
    [],
  )
  assert.deepEqual(listQuarantined(journal), [])
})

test('a first answer that lacks addresses takes none from the node', async t => {
  const port = fakePort()
  port.addForeign('10.0.0.250')
  const { journal, pool } = poolOn(t, directoryFor(), port)
  port.mishaps.get.push('partial')
  await pool.acquire(owner(1), S4, soon())
  assert.deepEqual(port.addresses().slice(0, 1), ['10.0.0.10'])
  assert.ok(port.addresses().includes('10.0.0.250'))
  assert.deepEqual(listQuarantined(journal), [])
})

test('two answers without any address give the node’s own to no pod, before the port is known and after', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port)
  for (const id of [1, 2]) {
    port.mishaps.get.push('empty', 'empty')
    const [given] = await pool.acquire(owner(id), S4, soon())
    assert.notEqual(given!.address, '10.0.0.10')
    assert.ok(port.addresses().includes('10.0.0.10'))
  }
  assert.deepEqual(listQuarantined(journal), [])
})

/** As often as a port is looked at before an answer is taken, and once more. */
const every = (without: readonly string[], times = 5) => Array.from({ length: times }, () => ({ without }))
const NODE = { mac: 'fa:16:3e:00:00:01', addresses: ['10.0.0.10'] }
const settingsOf = (directory: string, more: object = {}) => ({
  ...{ subnetIds: ['s4'], reserve: 0, coolDownMs: 0, usableAfterMs: 0, lockDirectory: directory },
  ...more,
})

test('two first answers that lack the node’s own address take it from nobody, and give it to no pod', async t => {
  const port = fakePort({ capacity: 2 })
  port.addForeign('10.0.0.250')
  const directory = directoryFor()
  const { journal, pool } = poolOn(t, directory, port, { settings: settingsOf(directory, { nic: NODE }) })
  port.mishaps.get.push(...every(['10.0.0.10'], 2))
  const given = await pool.acquire(owner(1), S4, soon())
  assert.notEqual(given[0]!.address, '10.0.0.10')
  assert.ok(port.addresses().includes('10.0.0.10'), 'the node has its address still')
  assert.equal(states(journal, port)['10.0.0.10'], 'foreign')
  assert.deepEqual(listQuarantined(journal), [])
})

test('as long as a port seems to have none of its NIC’s addresses nothing is written to it', async t => {
  const port = fakePort()
  port.addForeign('10.0.0.250')
  const directory = directoryFor()
  const { pool } = poolOn(t, directory, port, { settings: settingsOf(directory, { nic: NODE }) })
  port.mishaps.get.push(...every(['10.0.0.10']))
  await assert.rejects(pool.acquire(owner(1), S4, soon()), {
    fault: 'strange',
    message:
      'Cannot use what Neutron shows of port port-1: it lacks 10.0.0.10, which its NIC has (fa:16:3e:00:00:01); ' +
      'nothing is written on such ground',
  })
  assert.equal(port.calls.put, 0)
  port.mishaps.get.length = 0
  await pool.acquire(owner(1), S4, soon())
  assert.ok(port.addresses().includes('10.0.0.10'))
})

test('a NIC of another MAC, or with addresses that Neutron does not give it, is no reason to doubt', async t => {
  const strangers = { mac: 'fa:16:3e:00:00:02', addresses: ['10.0.0.66'] }
  const withOthers = { ...NODE, addresses: ['10.0.0.10', '10.0.0.99'] }
  for (const nic of [strangers, withOthers]) {
    const port = fakePort()
    const directory = directoryFor()
    const { pool } = poolOn(t, directory, port, { settings: settingsOf(directory, { nic }) })
    await pool.acquire(owner(1), S4, soon())
  }
})

test('an address that the node’s NIC has is the node’s, whatever a write of ours might explain', async t => {
  const port = fakePort()
  const directory = directoryFor()
  const nic = { ...NODE, addresses: ['10.0.0.10', '10.0.0.99'] }
  const { journal, pool } = poolOn(t, directory, port, { settings: settingsOf(directory, { nic }) })
  await pool.acquire(owner(1), S4, soon())
  port.mishaps.put.push('unavailable')
  port.onPut = undefined
  const pending = pool.acquire(owner(2), S4, soon())
  await until(() => port.calls.put === 2, 'the write that does nothing')
  port.addForeign('10.0.0.99')
  const [given] = await pending
  assert.notEqual(given!.address, '10.0.0.99')
  assert.equal(states(journal, port)['10.0.0.99'], 'foreign')
})

test('what the port had at the same revision it has: equal answers without it are not believed', async t => {
  const port = fakePort()
  port.addForeign('10.0.0.250')
  const { journal, pool } = poolOn(t, directoryFor(), port)
  await pool.acquire(owner(1), S4, soon())
  await pool.settle(soon())
  port.mishaps.get.push(...every(['10.0.0.250', '10.0.0.10'], 2))
  await pool.acquire(owner(2), S4, soon())
  for (const address of ['10.0.0.10', '10.0.0.250']) {
    assert.ok(port.addresses().includes(address), address)
    assert.equal(states(journal, port)[address], 'foreign')
  }
  const writes = port.calls.put
  port.mishaps.get.push(...every(['10.0.0.250']))
  await assert.rejects(pool.acquire(owner(3), S4, soon()), {
    fault: 'strange',
    message:
      /^Cannot use what Neutron shows of port port-1: it lacks 10\.0\.0\.250, which it had at the same revision \d+;/,
  })
  assert.equal(port.calls.put, writes)
})

test('what somebody takes off the port beside a write of ours is gone at the next look', async t => {
  const port = fakePort()
  port.addForeign('10.0.0.250')
  const { journal, pool } = poolOn(t, directoryFor(), port)
  await pool.acquire(owner(1), S4, soon())
  // The answer to our own write is the first that lacks it.
  const update = port.ports.update
  const shown = {
    ...port,
    ports: {
      ...port.ports,
      update: async (...args: Parameters<typeof update>) => {
        await update(...args)
        port.removeForeign('10.0.0.250')
        return (await port.ports.get(port.id, soon()))!
      },
    },
  }
  pool.use({ neutron: async () => shown, access: '{}', settings: settingsOf(directoryFor()) })
  await pool.acquire(owner(2), S4, soon())
  await pool.acquire(owner(3), S4, soon())
  assert.equal(states(journal, port)['10.0.0.250'], undefined)
  assertSettled(journal, port)
})

test('a server’s port that seems to have no address at all is written to by nobody', async t => {
  const port = fakePort()
  const { pool } = poolOn(t, directoryFor(), port)
  port.mishaps.get.push('empty', 'empty', 'empty', 'empty')
  await assert.rejects(pool.acquire(owner(1), S4, soon()), { fault: 'strange', message: /it has no address at all/ })
  assert.equal(port.calls.put, 0)
})

test('what an operator takes from a pod is put back', async t => {
  const port = fakePort()
  const restored: string[] = []
  const { pool } = poolOn(t, directoryFor(), port, { onReport: report => restored.push(...report.repaired) })
  const [first] = await pool.acquire(owner(1), S4, soon())
  port.removeForeign(first!.address)
  await pool.settle(soon())
  assert.deepEqual(restored, [first!.address])
  assert.ok(port.addresses().includes(first!.address))
})

test('answers that stay old take nothing from anybody, and a database that was restored is believed', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port)
  for (const id of [1, 2, 3]) await pool.acquire(owner(id), S4, soon())
  releaseOwner(journal, owner(3))
  port.mishaps.get.push(...Array.from({ length: 4 }, () => 'stale' as const))
  await pool.settle(soon())
  assertSettled(journal, port)
  assert.deepEqual(Object.values(states(journal, port)).sort(), ['assigned', 'assigned', 'foreign'])
  port.restoreOlder()
  await pool.acquire(owner(4), S4, soon())
  await pool.settle(soon())
  assertSettled(journal, port)
  assert.equal(listAssignedAddresses(journal).length, 3)
})

test('an address whose removal is still on its way to the cloud is nobody’s next', async t => {
  const port = fakePort({ capacity: 1 })
  const directory = directoryFor()
  const first = poolOn(t, directory, port)
  const [address] = await first.pool.acquire(owner(1), S4, soon())
  await first.pool.close()
  // The agent asks for the removal and dies; the cloud carries the write out later.
  const late = Promise.withResolvers<void>()
  const held = { ...port, ports: { ...port.ports, update: heldBack(port, late.promise) } }
  const victim = poolOn(t, directory, port, { neutron: async () => held, longLived: false })
  releaseOwner(victim.journal, owner(1))
  await assert.rejects(victim.pool.settle(soon(50)))
  const { journal, pool } = poolOn(t, directory, port, { reserve: 1 })
  const pending = pool.acquire(owner(2), S4, soon())
  pending.catch(() => {})
  await sleep(100)
  late.resolve()
  const [next] = await pending
  await sleep(50)
  assert.equal(next!.address, address!.address)
  assert.ok(port.addresses().includes(next!.address), 'what a pod has is on its port')
  await until(() => listIntents(journal, port.id).length === 0, 'the end of all doubt')
})

/** A write that comes to the cloud later than its caller waits. */
const heldBack =
  (port: FakePort, until: Promise<void>): FakePort['ports']['update'] =>
  async (...args) => {
    void until.then(async () => await port.ports.update(...args)).catch(() => {})
    await sleep(20)
    throw new OpenStackError({
      service: 'neutron',
      action: 'update port',
      reason: 'no answer',
      status: 0,
      type: 'TimeOut',
      kind: 'transient',
      effect: 'unknown',
    })
  }

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

test('quarantine: an operator adopts or releases an address; nobody else does', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port)
  await pool.settle(soon())
  port.addForeign('10.0.0.252')
  port.addForeign('10.0.0.253')
  await pool.settle(soon())
  assert.deepEqual(
    listQuarantined(journal).map(each => each.address),
    ['10.0.0.252', '10.0.0.253'],
  )
  assert.equal(adoptAddress(journal, { portId: port.id, address: '10.0.0.252', coolDownMs: 0 }), true)
  assert.equal(releaseAddress(journal, { portId: port.id, address: '10.0.0.253' }), true)
  assert.equal(releaseAddress(journal, { portId: port.id, address: '10.0.0.10' }), false)
  const [address] = await pool.acquire(owner(1), S4, soon())
  assert.equal(address!.address, '10.0.0.252')
  await until(() => !port.addresses().includes('10.0.0.253'), 'the removal')
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

test('an address that we have removed and that an older list of somebody brings back is removed again, and not put into quarantine', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port, { longLived: false })
  const [address] = await pool.acquire(owner(1), S4, soon())
  releaseOwner(journal, owner(1))
  await pool.settle(soon())
  assert.deepEqual(port.addresses(), ['10.0.0.10'])
  port.addForeign(address!.address)
  await pool.settle(soon())
  assert.deepEqual(port.addresses(), ['10.0.0.10'])
  // Another one that somebody adds is his.
  port.addForeign('10.0.0.250')
  await pool.settle(soon())
  assert.deepEqual(states(journal, port), { '10.0.0.10': 'foreign', '10.0.0.250': 'quarantined' })
})

test('an address that somebody takes off the port is put back for its attachment', async t => {
  const port = fakePort()
  const { journal, pool } = poolOn(t, directoryFor(), port, { longLived: false })
  const [address] = await pool.acquire(owner(1), S4, soon())
  port.removeForeign(address!.address)
  const report = await pool.settle(soon())
  assert.deepEqual([report!.repaired, report!.lost], [[address!.address], []])
  assert.ok(port.addresses().includes(address!.address))
  assertSettled(journal, port)
})

for (const [what, add] of [
  ['one address', ['10.0.0.250']],
  ['two addresses', ['10.0.0.250', '10.0.0.251']],
] as const)
  test(`${what} that somebody adds while Neutron makes our write again: no pod’s, and told`, async t => {
    const port = fakePort()
    let overlaps = 0
    const onOverlap = () => overlaps++
    const { journal, pool } = poolOn(t, directoryFor(), port, { longLived: false, onOverlap })
    port.mishaps.put.push('repeated')
    port.onPut = () => {
      port.onPut = undefined
      add.forEach(port.addForeign)
    }
    const [given] = await pool.acquire(owner(1), S4, soon())
    assert.ok(!(add as readonly string[]).includes(given!.address))
    assert.deepEqual(port.addresses(), ['10.0.0.10', given!.address].sort(), 'Neutron has undone his')
    assert.equal(overlaps, 1)
    assertSettled(journal, port)
  })

test('an address that somebody adds while Neutron makes our removal again: undone, and told', async t => {
  const port = fakePort()
  let overlaps = 0
  const onOverlap = () => overlaps++
  const { journal, pool } = poolOn(t, directoryFor(), port, { longLived: false, onOverlap })
  await pool.acquire(owner(1), S4, soon())
  releaseOwner(journal, owner(1))
  port.mishaps.put.push('repeated')
  port.onPut = () => {
    port.onPut = undefined
    port.addForeign('10.0.0.250')
  }
  await pool.settle(soon())
  assert.deepEqual(port.addresses(), ['10.0.0.10'])
  assert.equal(overlaps, 1)
  assertSettled(journal, port)
})

test('where Neutron takes no names it chooses itself', async t => {
  const port = fakePort()
  const refused = new OpenStackError({
    ...{
      service: 'neutron',
      action: 'update port',
      reason: 'disallowed by policy',
      status: 403,
      type: 'HTTPForbidden',
    },
    ...{ kind: 'auth', effect: 'none' },
  })
  const update: typeof port.ports.update = async (id, changes, limits) => {
    const names = (changes.fixed_ips ?? []).filter(each => each.ip_address !== undefined)
    if (names.some(each => !port.addresses().includes(each.ip_address!))) throw refused
    return await port.ports.update(id, changes, limits)
  }
  const strict = { ...port, ports: { ...port.ports, update } }
  const { journal, pool } = poolOn(t, directoryFor(), port, { neutron: async () => strict })
  for (const id of [1, 2]) await pool.acquire(owner(id), S4, soon())
  assert.equal(port.calls.put, 2)
  assertSettled(journal, port)
})
