// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type AddressState,
  comparePort,
  difference,
  type PlanFacts,
  type PortAddress,
  type PortIntent,
  planPort,
  shrinkAfterMs,
  type Want,
} from './plan.ts'

const shown = (...addresses: string[]) => addresses.map(ip_address => ({ subnet_id: 's4', ip_address }))

const known = (state: AddressState, address: string, more: Partial<PortAddress> = {}): PortAddress => ({
  portId: 'p',
  address,
  subnetId: 's4',
  state,
  owner: undefined,
  bootId: '',
  floatingIp: undefined,
  usableMs: 0,
  settling: false,
  changedMs: 0,
  ...more,
})

const intent = (id: number, count: number, before: string[] = []): PortIntent => ({
  id,
  portId: 'p',
  before,
  adding: { s4: count },
  naming: [],
  removing: [],
  createdMs: 1_000,
})

const now = { nowMs: 2_000 }

test('comparePort() attributes exactly what an intent asked for', () => {
  const found = comparePort(shown('a', 'b', 'c'), [known('foreign', 'a')], [intent(1, 2, ['a'])], now)
  assert.deepEqual(found.attributed, shown('b', 'c'))
  assert.deepEqual(found.strange, [])
  assert.deepEqual(found.settled, [1])
})

test('comparePort() quarantines all when the number is another than any set of intents gives', () => {
  const found = comparePort(shown('a', 'b', 'c', 'd'), [known('foreign', 'a')], [intent(1, 2, ['a'])], now)
  assert.deepEqual(found.attributed, [])
  assert.deepEqual(found.strange, shown('b', 'c', 'd'))
  assert.deepEqual(found.settled, [])
})

test('comparePort() finds the subset of intents that took effect', () => {
  const found = comparePort(shown('a', 'b', 'c', 'd'), [known('foreign', 'a')], [intent(1, 2), intent(2, 3)], now)
  assert.deepEqual(found.attributed, shown('b', 'c', 'd'))
  assert.deepEqual(found.settled, [2])
})

test('comparePort() takes nothing that was there before the write', () => {
  const found = comparePort(shown('a', 'b'), [known('foreign', 'a')], [intent(1, 1, ['a', 'b'])], now)
  assert.deepEqual(found.strange, shown('b'))
})

test('comparePort() quarantines an attributable address that something on the node uses', () => {
  const found = comparePort(shown('a', 'b'), [known('foreign', 'a')], [intent(1, 1)], {
    ...now,
    inUse: address => address === 'b',
  })
  assert.deepEqual(found.attributed, [])
  assert.deepEqual(found.strange, shown('b'))
})

test('comparePort() keeps an intent without effect open until no proxy can hold its request any more', () => {
  assert.deepEqual(comparePort(shown('a'), [known('foreign', 'a')], [intent(1, 1)], now).settled, [])
  assert.deepEqual(comparePort(shown('a'), [known('foreign', 'a')], [intent(1, 1)], { nowMs: 10_000_000 }).settled, [1])
})

test('comparePort() reports an assigned address that is gone and forgets the others', () => {
  const found = comparePort(shown('a'), [known('foreign', 'a'), known('assigned', 'b'), known('free', 'c')], [], now)
  assert.deepEqual(
    found.lost.map(each => each.address),
    ['b'],
  )
  assert.deepEqual(
    found.vanished.map(each => each.address),
    ['c'],
  )
})

test('difference() finds new addresses wherever the sorted answer puts them', () => {
  assert.deepEqual(difference(shown('10.0.0.17', '10.0.0.50'), shown('10.0.0.165', '10.0.0.17', '10.0.0.50')), [
    { subnet_id: 's4', ip_address: '10.0.0.165' },
  ])
})

const want = (id: number): Want => ({
  id,
  portId: 'p',
  subnetIds: ['s4'],
  owner: { network: 'n', containerId: `c${id}`, ifName: 'eth0' },
  expiresMs: 1e12,
})

const facts = (more: Partial<PlanFacts>): PlanFacts => ({
  known: [],
  wants: [],
  leaving: new Set(),
  reserveSubnets: [['s4']],
  reserve: 0,
  coolDownMs: 30_000,
  soonMs: 2_000,
  exhausted: new Set(),
  full: new Set(),
  refused: new Set(),
  refill: true,
  batchMax: Number.POSITIVE_INFINITY,
  room: Number.POSITIVE_INFINITY,
  shrink: true,
  nowMs: 100_000,
  ...more,
})

test('planPort() serves from what is free and asks for the rest and the reserve in one write', () => {
  const plan = planPort(facts({ known: [known('free', 'a')], wants: [want(1), want(2), want(3)], reserve: 4 }))
  assert.deepEqual(
    plan.assign.map(each => [each.want.id, each.address.address]),
    [[1, 'a']],
  )
  assert.deepEqual(plan.serve, { s4: 2 })
  assert.deepEqual(plan.refill, { s4: 4 })
})

test('planPort() removes again what was asked to be removed without an answer, whoever waits', () => {
  const releasing = [known('releasing', 'a'), known('releasing', 'b')]
  const plan = planPort(
    facts({ known: releasing, wants: [want(1)], reserve: 2, exhausted: new Set(['s4']), leaving: new Set(['a']) }),
  )
  assert.deepEqual(plan.remove, [releasing[0]])
  assert.deepEqual(
    plan.assign.map(each => each.address.address),
    ['b'],
  )
})

test('comparePort() keeps a removal in mind while the port shows what it was to remove', () => {
  const removal = { ...intent(1, 0), adding: {}, removing: ['b'] }
  const settled = (...addresses: string[]) =>
    comparePort(shown(...addresses), [known('foreign', 'a'), known('releasing', 'b')], [removal], now).settled
  assert.deepEqual(settled('a', 'b'), [])
  assert.deepEqual(settled('a'), [1])
})

test('planPort() never hands out an address with a floating IP', () => {
  const plan = planPort(facts({ known: [known('free', 'a', { floatingIp: 'f' })], wants: [want(1)] }))
  assert.deepEqual(plan.assign, [])
  assert.deepEqual(plan.serve, { s4: 1 })
  assert.deepEqual(plan.remove, [])
})

test('planPort() keeps released addresses for the reserve until it is full, after a cool-down', () => {
  const released = [known('releasing', 'a', { changedMs: 90_000 }), known('releasing', 'b', { changedMs: 95_000 })]
  const plan = planPort(facts({ known: released, reserve: 1 }))
  assert.deepEqual(
    plan.keep.map(each => [each.address.address, each.usableMs]),
    [['a', 120_000]],
  )
  assert.deepEqual(
    plan.remove.map(each => each.address),
    ['b'],
  )
})

test('planPort() does not hand out an address during its cool-down while others can be had', () => {
  const cooling = known('free', 'a', { usableMs: 120_000 })
  assert.deepEqual(planPort(facts({ known: [cooling], wants: [want(1)], reserve: 1 })).serve, { s4: 1 })
  const plan = planPort(facts({ known: [cooling], wants: [want(1)], reserve: 1, exhausted: new Set(['s4']) }))
  assert.equal(plan.assign.length, 1)
})

test('planPort() gives the rest of a full subnet to those who wait, released ones too', () => {
  const plan = planPort(
    facts({ known: [known('releasing', 'a')], wants: [want(1), want(2)], exhausted: new Set(['s4']), reserve: 4 }),
  )
  assert.deepEqual(
    plan.assign.map(each => each.address.address),
    ['a'],
  )
  assert.deepEqual([plan.serve, plan.refill], [{}, {}])
})

test('planPort() removes what is free beyond the reserve, the last to be usable first', () => {
  const plan = planPort(
    facts({ known: [known('free', 'late', { usableMs: 200_000 }), known('free', 'a')], reserve: 1 }),
  )
  assert.deepEqual(
    plan.remove.map(each => each.address),
    ['late'],
  )
})

const ids = (addresses: readonly { readonly address: string }[]) => addresses.map(each => each.address)
const assigned = (plan: ReturnType<typeof planPort>) =>
  plan.assign.map(each => [each.want.id, each.address.address] as const)

test('planPort() serves from the next subnet only when the one before is full', () => {
  const wants = [{ ...want(1), subnetIds: ['s4', 's5', 's6'] }]
  const spare = known('free', 'b', { subnetId: 's5' })
  assert.deepEqual(planPort(facts({ wants, known: [spare] })).serve, { s4: 1 })
  const exhausted = facts({ wants, exhausted: new Set(['s4']) })
  assert.deepEqual(planPort(exhausted).serve, { s5: 1 })
  assert.deepEqual(planPort({ ...exhausted, full: new Set(['s5']) }).serve, { s6: 1 })
  assert.deepEqual(assigned(planPort({ ...exhausted, known: [spare] })), [[1, 'b']])
})

test('planPort() asks a subnet again that was full a while ago when nothing else is left', () => {
  const wants = [{ ...want(1), subnetIds: ['s4', 's5'] }]
  const full = new Set(['s4', 's5'])
  assert.deepEqual(planPort(facts({ wants, full })).serve, { s4: 1 })
  assert.deepEqual(planPort(facts({ wants, full, exhausted: new Set(['s4']) })).serve, { s5: 1 })
  const none = planPort(facts({ wants, full, exhausted: full }))
  assert.deepEqual([none.serve, none.assign], [{}, []])
})

test('planPort() uses what a full subnet still has before another is asked', () => {
  const wants = [{ ...want(1), subnetIds: ['s4', 's5'] }]
  const plan = planPort(facts({ wants, known: [known('free', 'a')], full: new Set(['s4']) }))
  assert.deepEqual([assigned(plan), plan.serve], [[[1, 'a']], {}])
  const cooling = [known('free', 'a', { usableMs: 120_000 })]
  assert.deepEqual(planPort(facts({ wants, known: cooling, full: new Set(['s4']) })).serve, { s5: 1 })
})

test('planPort() keeps the reserve in the first subnet that is not full', () => {
  const reserveSubnets = [['s4', 's5']]
  assert.deepEqual(planPort(facts({ reserveSubnets, reserve: 2 })).refill, { s4: 2 })
  const full = facts({ reserveSubnets, reserve: 2, full: new Set(['s4']), known: [known('free', 'a')] })
  assert.deepEqual([planPort(full).refill, planPort(full).remove], [{ s5: 2 }, []])
  const back = facts({ reserveSubnets, reserve: 1, known: [known('free', 'b', { subnetId: 's5' })] })
  assert.deepEqual([planPort(back).refill, ids(planPort(back).remove)], [{ s4: 1 }, ['b']])
})

test('planPort() asks for a named address apart from the others, and for one only once', () => {
  const named = (id: number, address: string) => ({ ...want(id), address })
  const plan = planPort(facts({ wants: [named(1, 'x'), want(2), named(3, 'x'), named(4, 'y')] }))
  assert.deepEqual(
    plan.name.map(each => each.id),
    [1, 4],
  )
  assert.deepEqual(plan.serve, { s4: 1 })
  assert.deepEqual(planPort(facts({ wants: [named(1, 'x')], refused: new Set([1]) })).name, [])
})

test('planPort() gives a named address of the port whatever its cool-down, and to nobody else', () => {
  const wants = [want(1), { ...want(2), address: 'a' }]
  for (const state of ['free', 'releasing'] as const) {
    const plan = planPort(facts({ wants, known: [known(state, 'a', { usableMs: 150_000 })], reserve: 1 }))
    assert.deepEqual([assigned(plan), plan.serve, plan.keep, plan.remove], [[[2, 'a']], { s4: 1 }, [], []])
  }
})

test('comparePort() attributes what unanswered writes named, also where two named the same', () => {
  const [one, other] = [
    { ...intent(1, 2), naming: ['a', 'b'] },
    { ...intent(2, 3), naming: ['b', 'c', 'd'] },
  ]
  const both = comparePort(shown('a', 'b', 'c', 'd'), [], [one, other], now)
  assert.deepEqual(both.attributed, shown('a', 'b', 'c', 'd'))
  assert.deepEqual(both.settled, [1, 2])
  // The answer of one was seen: what it made is recorded.
  const rest = comparePort(
    shown('a', 'b', 'c', 'd'),
    ['b', 'c', 'd'].map(each => known('assigned', each)),
    [one],
    now,
  )
  assert.deepEqual([rest.attributed, rest.strange, rest.settled], [shown('a'), [], [1]])
})

test('comparePort() attributes what a write named beside what nobody can explain', () => {
  const found = comparePort(shown('a', 'z'), [], [{ ...intent(1, 1), naming: ['a'] }, intent(2, 2)], now)
  assert.deepEqual([found.attributed, found.strange, found.settled], [shown('a'), shown('z'), [1]])
})

test('comparePort() attributes a named address only to the write that named it', () => {
  const write: PortIntent = { ...intent(1, 1), naming: ['10.0.0.7'] }
  const compared = (address: string) => comparePort(shown(address), [], [write], { nowMs: 2_000 })
  assert.equal(compared('10.0.0.7').attributed.length, 1)
  assert.equal(compared('10.0.0.8').strange.length, 1)
})

test('planPort() never adds beyond the cap: those who wait come before the reserve, and who is left out is named', () => {
  const plan = planPort(facts({ wants: [want(1), want(2), want(3)], reserve: 4, room: 2 }))
  assert.deepEqual([plan.serve, plan.refill, plan.capped.map(each => each.id)], [{ s4: 2 }, {}, [3]])
  const roomy = planPort(facts({ wants: [want(1)], reserve: 4, room: 3 }))
  assert.deepEqual([roomy.serve, roomy.refill, roomy.capped], [{ s4: 1 }, { s4: 2 }, []])
  const full = planPort(facts({ known: [known('free', 'a')], wants: [want(1), want(2)], room: 0 }))
  assert.deepEqual([full.assign.length, full.serve, full.capped.map(each => each.id)], [1, {}, [2]])
  const named = planPort(facts({ wants: [{ ...want(1), address: '10.0.0.7' }], room: 0 }))
  assert.deepEqual([named.name, named.capped.map(each => each.id)], [[], [1]])
})

test('planPort() gives what was just released rather than go beyond the cap', () => {
  const plan = planPort(facts({ known: [known('releasing', 'a')], wants: [want(1)], room: 0 }))
  assert.deepEqual([assigned(plan), plan.capped], [[[1, 'a']], []])
})

test('planPort() keeps what a surge has left over until it may shrink, and then what the reserve does not need goes', () => {
  const left = [known('releasing', 'a'), known('free', 'b'), known('free', 'c')]
  const kept = planPort(facts({ known: left, reserve: 1, shrink: false }))
  assert.deepEqual([kept.keep.map(each => each.address.address), kept.remove, kept.surplus.length], [['a'], [], 2])
  const shrunk = planPort(facts({ known: left, reserve: 1 }))
  assert.deepEqual([shrunk.keep, shrunk.remove.length, shrunk.surplus], [[], 2, []])
})

test('shrinkAfterMs() spreads the nodes of a cluster over one further cool-down', () => {
  assert.deepEqual([shrinkAfterMs(30_000, 0), shrinkAfterMs(30_000, 0.5), shrinkAfterMs(0, 0.9)], [30_000, 45_000, 0])
})
