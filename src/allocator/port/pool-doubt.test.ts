// SPDX-License-Identifier: Apache-2.0

// Answers of Neutron that may be old or lack something, what others do to the port, and what nobody can explain.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { remainingMs } from '#base'
import { OpenStackError } from '#openstack'
import { assertSettled, directoryFor, owner, poolOn, S4, soon, states, until } from './fake-pool.ts'
import { type FakePort, fakePort } from './fake-port.ts'
import { listIntents } from './port-store.ts'
import { adoptAddress, releaseAddress, releaseOwner } from './release.ts'
import { listAssignedAddresses, listQuarantined } from './store.ts'

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
  const late = Promise.withResolvers<void>()
  const { directory, address } = await askForRemoval(t, port, late.promise)
  const { journal, pool } = poolOn(t, directory, port, { reserve: 1 })
  const pending = pool.acquire(owner(2), S4, soon())
  pending.catch(() => {})
  await sleep(100)
  late.resolve()
  const [next] = await pending
  await sleep(50)
  assert.equal(next!.address, address)
  assert.ok(port.addresses().includes(next!.address), 'what a pod has is on its port')
  await until(() => listIntents(journal, port.id).length === 0, 'the end of all doubt')
})

test('a full subnet in which an earlier removal makes room meanwhile serves who waits', async t => {
  const port = fakePort({ capacity: 1 })
  const { directory, address } = await askForRemoval(t, port)
  // It comes to its end just before the next one of ours.
  const update: FakePort['ports']['update'] = async (id, change, limits) => {
    if (change.fixed_ips?.length === 1) port.removeForeign(address)
    return await port.ports.update(id, change, limits)
  }
  const { pool } = poolOn(t, directory, port, { neutron: async () => ({ ...port, ports: { ...port.ports, update } }) })
  const [next] = await pool.acquire(owner(2), S4, soon())
  assert.equal(next!.address, address)
})

/** An agent releases the only address, asks for its removal and dies. @param late when the cloud carries the write out; not by itself */
async function askForRemoval(t: TestContext, port: FakePort, late = new Promise<void>(() => {})) {
  const directory = directoryFor()
  const first = poolOn(t, directory, port)
  const [address] = await first.pool.acquire(owner(1), S4, soon())
  await first.pool.close()
  const held = { ...port, ports: { ...port.ports, update: heldBack(port, late) } }
  const victim = poolOn(t, directory, port, { neutron: async () => held, longLived: false })
  releaseOwner(victim.journal, owner(1))
  await assert.rejects(victim.pool.settle(soon(50)))
  return { directory, address: address!.address }
}

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

test('a look back that Neutron does not answer keeps no pod from an address that it has given', async t => {
  const port = fakePort()
  let overlaps = 0
  const { journal, pool } = poolOn(t, directoryFor(), port, { longLived: false, onOverlap: () => overlaps++ })
  const { ports } = port as { ports: { get: FakePort['ports']['get'] } }
  const { get } = ports
  port.mishaps.put.push('repeated')
  port.onPut = () => {
    port.onPut = undefined
    port.addForeign('10.0.0.250')
    ports.get = async (_id, { deadline }) => {
      ports.get = get
      await sleep(remainingMs(deadline))
      throw new Error('no answer in time')
    }
  }
  const [given] = await pool.acquire(owner(1), S4, soon())
  assert.equal(ports.get, get, 'the look back was sent')
  assert.equal(overlaps, 1)
  assert.deepEqual(
    listAssignedAddresses(journal).map(each => each.address),
    [given!.address],
  )
  assert.ok(port.addresses().includes(given!.address))
})
