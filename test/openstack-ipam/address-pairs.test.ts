// SPDX-License-Identifier: Apache-2.0

// Our entries in a port's allowed_address_pairs, beside those of others, in the simulated OpenStack. Needs no root.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Journal, type ListReport, memoryJournal, openSharedList, pairsDriver, type SharedList } from '#allocator'
import { deadlineIn } from '#base'
import { type CloudSession, cloudFromConf, openCloud } from '#openstack'
import { find, type Simulator, startSimulator } from '#simulator'
import { isPut, limits } from './cloud.ts'
import { nodeDirectory, until } from './node.ts'

type Setup = {
  readonly simulator: Simulator
  readonly cloud: CloudSession
  readonly portId: string
  readonly journal: Journal
  readonly reports: ListReport[]
  readonly errors: unknown[]
  open(options?: { longLived?: boolean; entriesMax?: number }): SharedList
  /** What Neutron has, without MACs. */
  pairs(): string[]
  /** Somebody edits the list by hand: a look, a moment in which something happens, the whole list. */
  edit(change: (held: string[]) => string[], meanwhile?: () => Promise<void>): Promise<void>
}

async function setUp(t: TestContext): Promise<Setup> {
  const simulator = await startSimulator({ latency: { commitMs: 10 } })
  t.after(() => simulator.close())
  const { username, password, project } = simulator.accounts.demo
  const cloud = openCloud(cloudFromConf({ username, password, project, domain: 'default', authUrl: simulator.authUrl }))
  t.after(() => cloud.close())
  const portId = simulator.demo().servers['worker-1']!.ports[0]!.id
  const directory = nodeDirectory(t)
  const journal = memoryJournal()
  const reports: ListReport[] = []
  const errors: unknown[] = []
  const pairs = () => find(simulator.state, 'ports', portId)!.allowed_address_pairs.map(each => each.ip_address)
  return {
    simulator,
    cloud,
    portId,
    journal,
    reports,
    errors,
    pairs,
    open({ longLived = true, entriesMax = 10 } = {}) {
      const list = openSharedList({
        journal,
        driver: pairsDriver(portId, async () => cloud.neutron),
        access: '{}',
        settings: { entriesMax, verifyAfterMs: 500, lockDirectory: directory },
        longLived,
        onReport: report => reports.push(report),
        onError: error => errors.push(error),
      })
      t.after(() => list.close())
      return list
    },
    async edit(change, meanwhile) {
      const port = (await cloud.neutron.ports.get(portId, limits()))!
      const held = (port.allowed_address_pairs ?? []).map(each => each.ip_address)
      await meanwhile?.()
      const next = change(held).map(ip_address => ({ ip_address }))
      await cloud.neutron.ports.update(portId, { allowed_address_pairs: next }, limits())
    },
  }
}

const block = (from: number, count: number) => Array.from({ length: count }, (_, at) => `10.10.10.${from + at}`)

test('a pair that somebody adds at the same moment: Neutron finds ours twice in the request, and the need is served', async t => {
  const { simulator, cloud, portId, open, pairs } = await setUp(t)
  const list = open()
  await list.need('a', ['10.10.10.40'], limits())
  simulator.settings.latency = { ...simulator.settings.latency, commitMs: 500 }
  const allowed_address_pairs = ['10.10.10.40', '10.10.10.60'].map(ip_address => ({ ip_address }))
  const human = cloud.neutron.ports.update(portId, { allowed_address_pairs }, limits())
  await sleep(100)
  await Promise.all([list.need('b', ['10.10.10.60'], limits()), human])
  assert.deepEqual(pairs().sort(), ['10.10.10.40', '10.10.10.60'])
})

test('addresses of several users become the fewest pairs, those of others stay, and a release leaves theirs alone', async t => {
  const { open, pairs, edit, portId, cloud } = await setUp(t)
  await edit(() => ['192.0.2.1', '192.0.2.64/26'])
  await cloud.neutron.ports.update(
    portId,
    {
      allowed_address_pairs: [
        { ip_address: '192.0.2.1' },
        { ip_address: '192.0.2.64/26' },
        { ip_address: '10.10.10.70', mac_address: '02:00:00:00:00:01' },
      ],
    },
    limits(),
  )
  const theirs = ['192.0.2.1', '192.0.2.64/26', '10.10.10.70']
  const list = open()
  await list.need('a', block(64, 8), limits())
  assert.deepEqual(pairs().sort(), [...theirs, '10.10.10.64/29'].sort())
  await list.need('b', block(72, 8), limits())
  assert.deepEqual(pairs().sort(), [...theirs, '10.10.10.64/28'].sort())
  // One that is there already is shared with its owner, and stays his.
  await list.need('c', ['192.0.2.1'], limits())
  await list.need('b', [], limits())
  assert.deepEqual(pairs().sort(), [...theirs, '10.10.10.64/29'].sort())
  for (const user of ['a', 'c']) list.release(user)
  await until(() => pairs().length === 3, 'the release')
  assert.deepEqual(pairs().sort(), theirs.sort())
})

test('fifty users at once are few writes, and a need that is met makes no call', async t => {
  const { open, pairs, simulator } = await setUp(t)
  const list = open()
  simulator.forgetRequests()
  await Promise.all(block(64, 48).map((address, at) => list.need(`user-${at}`, [address], limits())))
  assert.deepEqual(pairs().sort(), ['10.10.10.64/27', '10.10.10.96/28'])
  const writes = simulator.requests().filter(isPut).length
  assert.ok(writes <= 2, `${writes} writes`)
  simulator.forgetRequests()
  await list.need('user-7', ['10.10.10.71'], limits())
  assert.equal(simulator.requests().length, 0)
})

test('at the limit the error has limit, numbers and remedy, nothing is sent, and a pair that is freed is used', async t => {
  const { open, pairs, edit, simulator } = await setUp(t)
  await edit(() => block(200, 9).map((_, at) => `192.0.2.${at * 2}`))
  const list = open()
  await list.need('a', ['10.10.10.64'], limits())
  simulator.forgetRequests()
  await assert.rejects(list.need('b', ['10.10.10.80'], limits()), {
    fault: 'full',
    message: /Cannot add 1 to the address pairs of port .*: the limit is 10, 1 are ours and 9 are others’/,
    remedy: /raise max_allowed_address_pair/,
  })
  assert.equal(simulator.requests().filter(isPut).length, 0)
  await assert.rejects(list.demandRoom('b', ['10.10.10.80'], limits()), { fault: 'full' })
  // One that joins a pair of ours needs none of its own.
  await list.need('b', ['10.10.10.65'], limits())
  assert.equal(pairs().length, 10)
  await edit(held => held.filter(each => each !== '192.0.2.0'))
  await list.need('c', ['10.10.10.80'], limits())
  assert.ok(pairs().includes('10.10.10.80'))
})

test('a cloud with a lower limit than the configuration tells it, and is asked for more a minute later: an operator may have raised it', async t => {
  const { open, simulator, pairs } = await setUp(t)
  simulator.settings.maxAddressPairs = 2
  const list = open({ entriesMax: 50 })
  const three = ['10.10.10.64', '10.10.10.66', '10.10.10.68']
  await assert.rejects(list.need('a', three, limits()), { fault: 'full', message: /the limit is 2, 0 are ours/ })
  await list.need('a', three.slice(0, 2), limits())
  simulator.forgetRequests()
  await assert.rejects(list.need('b', ['10.10.10.70'], limits()), { fault: 'full' })
  assert.equal(simulator.requests().filter(isPut).length, 0)
  simulator.settings.maxAddressPairs = 3
  const now = performance.now.bind(performance)
  t.mock.method(performance, 'now', () => now() + 61_000)
  await list.need('b', ['10.10.10.70'], { deadline: deadlineIn(5_000) })
  assert.equal(pairs().length, 3)
})

for (const act of ['cut-after', 'answer-after'] as const)
  test(`a write whose answer is lost (${act}) is known to be ours`, async t => {
    const { open, pairs, simulator } = await setUp(t)
    const list = open()
    simulator.inject({ act, method: 'PUT', path: '/ports/' })
    await list.need('a', ['10.10.10.64'], limits())
    assert.deepEqual(pairs(), ['10.10.10.64'])
    await list.need('a', [], limits())
    assert.deepEqual(pairs(), [])
  })

test('what a killed process has written is released by the next one', async t => {
  const { open, pairs, simulator } = await setUp(t)
  const first = open()
  simulator.inject({ act: 'hang-after', method: 'PUT', path: '/ports/' })
  await assert.rejects(first.need('a', ['10.10.10.64'], { deadline: deadlineIn(300) }))
  await first.close()
  assert.deepEqual(pairs(), ['10.10.10.64'])
  const second = open()
  second.release('a')
  await until(() => pairs().length === 0, 'the release')
})

test('an older list that somebody writes over ours is noticed, ours repaired, theirs left alone and reported', async t => {
  const { open, pairs, edit, reports } = await setUp(t)
  const list = open()
  await list.need('a', ['10.10.10.64'], limits())
  await edit(
    held => [...held, '192.0.2.7'],
    async () => {
      await list.need('b', ['10.10.10.80'], limits())
      await list.need('a', [], limits())
    },
  )
  assert.deepEqual(pairs().sort(), ['10.10.10.64', '192.0.2.7'], 'the older list has won')
  await until(() => pairs().join() === '10.10.10.80,192.0.2.7', 'the repair')
  const [report] = reports
  assert.deepEqual(
    [report?.repaired, report?.returned, report?.foreignAdded],
    [['10.10.10.80'], ['10.10.10.64'], ['192.0.2.7']],
  )
})

for (const [when, waitMs] of [
  ['after the first look', 700],
  ['by a cloud that is slow', 4_000],
] as const)
  test(`what an older list brings back ${when} is taken out again`, async t => {
    const { open, pairs, edit, reports } = await setUp(t)
    const list = open()
    await list.need('a', ['10.10.10.64'], limits())
    list.release('a')
    await until(() => pairs().length === 0, 'the release')
    // The first look comes after half a second.
    await sleep(waitMs)
    await edit(() => ['192.0.2.1', '10.10.10.64'])
    await until(() => pairs().join() === '192.0.2.1', 'the second removal', 6_000)
    assert.deepEqual(
      reports.flatMap(each => each.returned),
      ['10.10.10.64'],
    )
  })

test('answers that lack pairs of others take none from anybody: not the first one, and none of the same revision', async t => {
  const { open, pairs, edit, simulator, portId } = await setUp(t)
  const theirs = ['192.0.2.1', '192.0.2.3']
  await edit(() => theirs)
  const hide = (times: number) =>
    simulator.inject({ act: 'partial', missing: 1, times, method: 'GET', path: `/ports/${portId}` })
  const list = open()
  hide(1)
  await list.need('a', ['10.10.10.64'], limits())
  assert.deepEqual(pairs().sort(), ['10.10.10.64', ...theirs])
  hide(2)
  await list.need('b', ['10.10.10.66'], limits())
  assert.deepEqual(pairs().sort(), ['10.10.10.64', '10.10.10.66', ...theirs])
  simulator.inject({ act: 'partial', missing: 9, times: 9, method: 'GET', path: `/ports/${portId}` })
  await assert.rejects(list.need('c', ['10.10.10.68'], { deadline: deadlineIn(10_000) }), {
    fault: 'strange',
    message:
      /^Cannot use what Neutron shows of the address pairs of port \S+: it lacks 192\.0\.2\.1, 192\.0\.2\.3, which it had at the same revision \d+;/,
  })
  await fetch(`${simulator.url}/simulator/inject`, { method: 'DELETE' })
  await list.need('c', ['10.10.10.68'], limits())
  assert.deepEqual(pairs().sort(), ['10.10.10.64', '10.10.10.66', '10.10.10.68', ...theirs])
  // What somebody really takes out is gone at once, and not put in again.
  await edit(held => held.filter(each => each !== '192.0.2.1'))
  await list.need('d', ['10.10.10.70'], limits())
  assert.deepEqual(pairs().sort(), ['10.10.10.64', '10.10.10.66', '10.10.10.68', '10.10.10.70', '192.0.2.3'])
})

test('what comes back in time for a mistake, and is seen later, is taken out again', async t => {
  const { open, pairs, edit, reports, journal } = await setUp(t)
  const list = open({ longLived: false })
  await list.need('a', ['10.10.10.64'], limits())
  await list.need('a', [], limits())
  // Of the ten seconds for a mistake, one is left at the last look.
  journal.sql('UPDATE shared_entry SET changed_ms = changed_ms - 9000').run()
  await list.settle(limits())
  await edit(() => ['10.10.10.64'])
  await sleep(1_500)
  await list.settle(limits())
  assert.deepEqual(
    reports.map(each => each.returned),
    [['10.10.10.64']],
  )
  assert.deepEqual(pairs(), [])
})

test('what comes back too late for a mistake stays, and is reported', async t => {
  const { open, pairs, edit, reports, journal } = await setUp(t)
  const list = open()
  await list.need('a', ['10.10.10.64'], limits())
  await list.need('a', [], limits())
  journal.sql('UPDATE shared_entry SET changed_ms = changed_ms - 3600000').run()
  await edit(() => ['10.10.10.64'])
  await until(() => reports.length > 0, 'a report')
  assert.deepEqual(reports[0]!.foreignAdded, ['10.10.10.64'])
  assert.deepEqual([reports.length, pairs()], [1, ['10.10.10.64']])
})

test('a write that may have undone somebody’s is reported', async t => {
  const { open, edit, reports, simulator } = await setUp(t)
  const list = open()
  simulator.settings.latency = { ...simulator.settings.latency, commitMs: 400 }
  const editing = edit(held => [...held, '192.0.2.7'])
  await new Promise(resolve => setTimeout(resolve, 100))
  await Promise.all([editing, list.need('a', ['10.10.10.64'], limits())])
  assert.ok(reports.some(report => report.overlapped))
})

test('without an agent a process looks again before it ends, and on a port without port security nothing is needed', async t => {
  const { open, pairs, cloud, portId, simulator } = await setUp(t)
  const list = open({ longLived: false })
  simulator.forgetRequests()
  await list.need('a', ['10.10.10.64'], limits())
  // Two looks before it writes, for the first one proves nothing, and one after.
  assert.deepEqual(simulator.requests('GET', /ports/).length, 3)
  await list.need('a', [], limits())
  await cloud.neutron.ports.update(portId, { security_groups: [], port_security_enabled: false }, limits())
  await list.need('b', ['10.10.10.66'], limits())
  assert.deepEqual(pairs(), [])
})

test('a call that brings other credentials in the middle of a write does not disturb it', async t => {
  const { open, pairs, simulator, cloud, portId } = await setUp(t)
  simulator.settings.latency = { ...simulator.settings.latency, commitMs: 0, readMs: 30 }
  const list = open()
  const needing = list.need('a', ['10.10.10.64'], limits())
  const settings = { entriesMax: 10, verifyAfterMs: 150, lockDirectory: nodeDirectory(t) }
  const renew = () => list.use({ driver: pairsDriver(portId, async () => cloud.neutron), access: '{}', settings })
  const renewing = setInterval(renew, 5)
  await needing.finally(() => clearInterval(renewing))
  assert.deepEqual(pairs(), ['10.10.10.64'])
})
