// SPDX-License-Identifier: Apache-2.0

// Two writers on one router, one on a port's addresses and one on its pairs, and a human who edits all three by hand, as with
// the command line: a look, a moment of thought, the whole list. What does not overlap is never lost. What does, which Neutron
// does not keep apart, is noticed by reading back: ours is repaired, theirs reported, nothing of theirs touched. The same tests
// for every Neutron; only who makes it, and how fast it is, differs.

import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type ListReport,
  listAssignedAddresses,
  listPortAddresses,
  memoryJournal,
  openSharedList,
  pairsDriver,
  routeNeed,
  routesDriver,
  type SharedList,
} from '#allocator'
import { deadlineIn } from '#base'
import { type CloudSession, OpenStackError } from '#openstack'
import { type Node, nodeDirectory, until } from './node.ts'

/** A router and two ports of a network 10.10.10.0/24, of which Neutron gives 10.10.10.2 to .199 to those who choose none. */
export type Ground = {
  readonly cloud: CloudSession
  readonly routerId: string
  readonly subnetId: string
  /** With an address of its own: further ones are those of pods. */
  readonly portId: string
  readonly pairsPortId: string
  /** The node of that port, and its configuration. */
  readonly node: Node
  readonly ipam: object
  /** A PUT as a human's tool sends it. */
  put(path: string, body: object): Promise<unknown>
  /** As it was seen last. */
  routes(): string[]
  pairs(): string[]
  addresses(): string[]
  /** Looks now. */
  refresh(): Promise<void>
  /** Called after each look. */
  readonly listeners: Set<() => void>
}

export type Pace = {
  /** About the time that Neutron takes for a write; a human needs as long to think. */
  readonly commitMs: number
  /** From a write of ours until the look back. */
  readonly verifyMs: number
  /** From a change of ours to the next, at most. */
  readonly pauseMs: number
  /** What is lost is back within this time. @param writeMs what a write of the human took, in the middle */
  noticedMs(writeMs: number): number
  readonly settledMs: number
  /** Changes of each who writes. */
  readonly changes: number
  /** Changes in turn of each who writes. */
  readonly rounds: number
  /** Entries that the cloud permits in a list, that a writer of ours needs at a time, and that the human has. */
  readonly routes: Sizes
  readonly pairs: Sizes
}
type Sizes = { readonly max: number; readonly held: number; readonly his: number }

const HUMANS_HOP = '10.10.10.200'
const limits = () => ({ deadline: deadlineIn(60_000) })

/** What the tests do with a ground, at a pace. */
function sceneOn(t: TestContext, ground: Ground, pace: Pace) {
  const { cloud, routerId, pairsPortId, put } = ground
  const reports: ListReport[] = []
  const open = (kind: 'pairs' | 'routes', onReport?: (report: ListReport) => void): SharedList => {
    const list = openSharedList({
      journal: memoryJournal(),
      driver:
        kind === 'pairs'
          ? pairsDriver(pairsPortId, async () => cloud.neutron)
          : routesDriver(routerId, async () => cloud.neutron),
      access: '{}',
      settings: { entriesMax: pace[kind].max, verifyAfterMs: pace.verifyMs, lockDirectory: nodeDirectory(t) },
      longLived: true,
      onReport: report => {
        reports.push(report)
        onReport?.(report)
      },
      onError: () => {},
    })
    t.after(() => list.close())
    return list
  }
  const times: number[] = []
  const writeMs = () => times.toSorted((a, b) => a - b)[times.length >> 1] ?? 0
  const timed = async <T>(write: () => Promise<T>): Promise<T> => {
    const begin = performance.now()
    try {
      return await write()
    } finally {
      times.push(performance.now() - begin)
    }
  }
  /** Whoever has thought for too long looks again: by then nobody takes what he brings back for a mistake. */
  const lookAndThink = async <T>(look: () => Promise<T | undefined>): Promise<T> => {
    for (;;) {
      const begin = performance.now()
      const seen = await look()
      await sleep(Math.random() * 2 * pace.commitMs)
      if (performance.now() - begin < pace.verifyMs) return seen!
    }
  }
  /** `openstack router set` as it was before it knew better: the whole list. */
  const putRoutes = async (change: (held: readonly string[]) => readonly string[]) => {
    const { routes: held } = await lookAndThink(() => cloud.neutron.routers.get(routerId, limits()))
    const routes = change(held.map(each => each.destination)).map(
      destination => held.find(each => each.destination === destination) ?? { destination, nexthop: HUMANS_HOP },
    )
    await timed(() => put(`routers/${routerId}`, { router: { routes } }))
  }
  return { ...ground, reports, open, lookAndThink, timed, writeMs, putRoutes }
}

/** Notes how long at a time something that should hold does not. */
function watch({ listeners }: Ground, wrong: () => readonly string[]) {
  const since = new Map<string, number>()
  let longestMs = 0
  const look = () => {
    const now = performance.now()
    const wrongNow = new Set(wrong())
    for (const [entry, begin] of since)
      if (!wrongNow.has(entry)) {
        longestMs = Math.max(longestMs, now - begin)
        since.delete(entry)
      }
    for (const entry of wrongNow) if (!since.has(entry)) since.set(entry, now)
  }
  listeners.add(look)
  return { look, longest: () => Math.max(longestMs, ...[...since.values()].map(begin => performance.now() - begin)) }
}

/** What a human did when, and when he was told that something of his may be undone. */
function editsToTell() {
  const edited = new Map<string, { readonly beginMs: number; readonly endMs: number }>()
  const toldMs: number[] = []
  return {
    /** From his look until Neutron's answer. */
    edit: (entry: string, beginMs: number) => edited.set(entry, { beginMs, endMs: performance.now() }),
    tell: () => toldMs.push(performance.now()),
    told: () => toldMs.length,
    assertTold(undone: readonly string[], withinMs: number): void {
      for (const each of undone) {
        const { beginMs, endMs } = edited.get(each)!
        const isTold = toldMs.some(ms => ms > beginMs && ms < endMs + withinMs)
        assert.ok(isTold, `what he did with ${each} is undone, and he was not told`)
      }
    },
  }
}

/** Changes of ours, and one more when the human has done his last: the next look at what he wrote. */
async function* changesOf(count: number, human: Promise<unknown>) {
  let isOver = false
  void human.then(() => (isOver = true))
  for (let change = 0; ; change++) {
    const isLast = change >= count && isOver
    yield change
    if (isLast) return
  }
}

/** One who needs entries of a list and stops needing them, some at a time. `acknowledged` is what the list owes. */
async function changeList(
  list: SharedList,
  { entries, most, pauseMs }: { entries: readonly string[]; most: number; pauseMs: number },
  changes: AsyncIterable<number>,
  acknowledged: Set<string>,
) {
  const held: string[] = []
  for await (const change of changes) {
    const entry = entries[change % entries.length]!
    if (held.length < most && !held.includes(entry)) {
      await list.need(entry, [entry], limits())
      held.push(entry)
      acknowledged.add(entry)
    } else {
      const gone = held.splice(Math.floor(Math.random() * held.length), 1)[0]!
      acknowledged.delete(gone)
      await list.need(gone, [], limits())
    }
    await sleep(Math.random() * pauseMs)
  }
  return held
}

/** A human who adds and removes entries of his own, always with the whole list. */
async function editByHand(
  put: (change: (held: readonly string[]) => readonly string[], entry: string) => Promise<void>,
  entries: readonly string[],
  { changes, commitMs }: Pick<Pace, 'changes' | 'commitMs'>,
): Promise<Set<string>> {
  const wanted = new Set<string>()
  for (let change = 0; change < changes; change++) {
    const entry = entries[change % entries.length]!
    const adds = !wanted.has(entry)
    if (adds) wanted.add(entry)
    else wanted.delete(entry)
    await put(held => (adds ? [...new Set([...held, entry])] : held.filter(each => each !== entry)), entry)
    await sleep(Math.random() * 6 * commitMs)
  }
  return wanted
}

/** Waits until everything is as it is wanted, and tells what is not. */
async function untilEqual(actual: () => string[], wanted: readonly string[], timeoutMs: number): Promise<void> {
  const differ = () => actual().toSorted().join() !== wanted.toSorted().join()
  for (const end = performance.now() + timeoutMs; differ() && performance.now() < end; ) await sleep(20)
  assert.deepEqual(actual().toSorted(), wanted.toSorted())
}

/** @param makeGround makes one that ends with its test */
export function testOtherWriters(
  pace: Pace,
  options: { concurrency: boolean; skip: string | false; timeout?: number },
  makeGround: (t: TestContext) => Promise<Ground>,
): void {
  const { verifyMs, settledMs, changes, rounds, pauseMs } = pace
  const makeScene = async (t: TestContext) => sceneOn(t, await makeGround(t), pace)

  describe('other writers', options, () => {
    test('two writers and a human on one router: nothing of anybody is lost for long, and all is as each wants it', async t => {
      const scene = await makeScene(t)
      const { open, routes, reports, putRoutes, writeMs } = scene
      const owed = new Set<string>()
      const networks = (second: number) =>
        Array.from({ length: second === 99 ? pace.routes.his : 20 }, (_, at) => `10.${second}.${at * 2}.0/24`)
      const ours = new Set([...networks(30), ...networks(31)])
      const lost = watch(scene, () => [...owed].filter(each => !routes().includes(each)))
      const toNeeds = (list: SharedList, hop: string): SharedList => ({
        ...list,
        need: (user, members, within) =>
          list.need(
            user,
            members.map(each => routeNeed(each, hop)),
            within,
          ),
      })
      const human = editByHand(putRoutes, networks(99), pace)
      const write = (second: number, hop: string) =>
        changeList(
          toNeeds(open('routes'), hop),
          { entries: networks(second), most: pace.routes.held, pauseMs },
          changesOf(changes, human),
          owed,
        )
      const [a, b, his] = await Promise.all([write(30, '10.10.10.11'), write(31, '10.10.10.12'), human])
      const wanted = [...a, ...b, ...his]
      await untilEqual(routes, wanted, settledMs)
      lost.look()
      const repaired = reports.flatMap(each => each.repaired).length
      const returned = reports.flatMap(each => each.returned).length
      t.diagnostic(
        `${repaired} repaired, ${returned} taken out again, longest loss ${Math.round(lost.longest())} ms where a write takes ${Math.round(writeMs())} ms`,
      )
      assert.ok(repaired + returned > 0, 'nothing overlapped: the test has tested nothing')
      assert.ok(lost.longest() < pace.noticedMs(writeMs()))
      // What was reported of his is his, and none of it ours.
      for (const report of reports)
        for (const entry of [...report.foreignAdded, ...report.foreignRemoved])
          if (entry.endsWith(HUMANS_HOP)) assert.ok(!ours.has(entry.split(' ')[0]!))
    })

    test('a human edits the pairs of a port that we write: ours is back soon, and what may be lost of his is reported', async t => {
      const scene = await makeScene(t)
      const { open, pairs, reports, cloud, pairsPortId, lookAndThink, timed, writeMs } = scene
      const edits = editsToTell()
      const owed = new Set<string>()
      const ours = Array.from({ length: 20 }, (_, at) => `10.10.10.${100 + at * 2}`)
      const his = Array.from({ length: pace.pairs.his }, (_, at) => `192.0.2.${at * 2}`)
      const lost = watch(scene, () => [...owed].filter(each => !pairs().includes(each)))
      const put = async (change: (held: readonly string[]) => readonly string[], entry: string) => {
        const beginMs = performance.now()
        const port = await lookAndThink(() => cloud.neutron.ports.get(pairsPortId, limits()))
        const next = change((port.allowed_address_pairs ?? []).map(each => each.ip_address))
        const allowed_address_pairs = next.map(ip_address => ({ ip_address }))
        await timed(() => cloud.neutron.ports.update(pairsPortId, { allowed_address_pairs }, limits()))
        edits.edit(entry, beginMs)
      }
      const human = editByHand(put, his, pace)
      const writing = changeList(
        open('pairs', report => {
          if (report.overlapped || report.foreignRemoved.length > 0) edits.tell()
        }),
        { entries: ours, most: pace.pairs.held, pauseMs },
        changesOf(changes, human),
        owed,
      )
      const [held, wanted] = await Promise.all([writing, human])
      const oursNow = () =>
        pairs()
          .filter(each => ours.includes(each))
          .sort()
      await untilEqual(oursNow, held, settledMs)
      await sleep(4 * verifyMs)
      assert.deepEqual(oursNow(), [...held].sort())
      lost.look()
      const hisNow = pairs().filter(each => his.includes(each))
      const undone = [...wanted].filter(each => !hisNow.includes(each)).concat(hisNow.filter(each => !wanted.has(each)))
      const repaired = reports.flatMap(each => each.repaired).length
      t.diagnostic(
        `${undone.length} edits by hand undone, ${edits.told()} reported; ${repaired} repaired, longest loss ${Math.round(lost.longest())} ms where a write takes ${Math.round(writeMs())} ms`,
      )
      assert.ok(repaired + edits.told() > 0, 'nothing overlapped: the test has tested nothing')
      assert.ok(lost.longest() < pace.noticedMs(writeMs()))
      edits.assertTold(undone, pace.noticedMs(writeMs()))
      assert.deepEqual(
        pairs().filter(each => !ours.includes(each) && !his.includes(each)),
        [],
      )
    })

    test('a human edits the addresses of a port that carries pods: theirs is put back soon, his is no pod’s, and what is undone of his is told soon', async t => {
      const scene = await makeScene(t)
      const { node, ipam, addresses, cloud, portId, subnetId: subnet_id, lookAndThink, timed, writeMs } = scene
      const [own] = addresses()
      const his = Array.from({ length: 10 }, (_, at) => `10.10.10.${230 + at}`)
      const living = () => listAssignedAddresses(node.world.journal).map(each => each.address)
      const owed = new Set<string>()
      const lost = watch(scene, () => [...owed].filter(each => !addresses().includes(each)))
      const pods = async (changes: AsyncIterable<number>) => {
        const held: { id: string; address: string }[] = []
        for await (const change of changes)
          if (held.length === 0 || change % 12 < 6) {
            const id = `c${change}`
            // A port that is written all the time may be "try again later" for a runtime.
            let reply = await node.call('ADD', id, ipam)
            while (reply.json.code === 11) reply = await node.call('ADD', id, ipam)
            assert.equal(reply.exitCode, 0, reply.stdout)
            const address = reply.json.ips![0]!.address.split('/')[0]!
            assert.ok(!his.includes(address), `${address} is his, and a pod has it`)
            held.push({ id, address })
            owed.add(address)
          } else {
            const { id, address } = held.shift()!
            owed.delete(address)
            assert.equal((await node.call('DEL', id, ipam)).exitCode, 0)
          }
        return held
      }
      const edits = editsToTell()
      const notice = () => {
        const overlaps = node.warnings.filter(text => /at the same moment/.test(text)).length
        while (edits.told() < overlaps) edits.tell()
      }
      scene.listeners.add(notice)
      const put = async (change: (held: readonly string[]) => readonly string[], entry: string) => {
        // What he remembers may be another's by now, and then he looks again.
        for (;;) {
          const beginMs = performance.now()
          const port = await lookAndThink(() => cloud.neutron.ports.get(portId, limits()))
          const next = change(port.fixed_ips.map(each => each.ip_address))
          try {
            const fixed_ips = next.map(ip_address => ({ subnet_id, ip_address }))
            await timed(() => cloud.neutron.ports.update(portId, { fixed_ips }, limits()))
            edits.edit(entry, beginMs)
            return
          } catch (error) {
            if (!(error instanceof OpenStackError) || error.type !== 'IpAddressAlreadyAllocated') throw error
          }
        }
      }
      const human = editByHand(put, his, pace)
      const [held, wanted] = await Promise.all([pods(changesOf(changes, human)), human])
      const isWhole = () => held.every(each => addresses().includes(each.address))
      await until(isWhole, 'every pod has its address', settledMs)
      await sleep(4 * verifyMs)
      lost.look()
      assert.ok(isWhole())
      assert.deepEqual(living().sort(), held.map(each => each.address).sort())
      notice()
      const undone = his.filter(each => wanted.has(each) !== addresses().includes(each))
      edits.assertTold(undone, pace.noticedMs(writeMs()))
      assert.ok(addresses().includes(own!))
      // What he brought back by an older list cannot be told from what he wants: it is listed, and nobody's. What he wrote
      // before the node's first look at the port is foreign, as the node's own address is.
      const isListed = (each: string) =>
        listPortAddresses(node.world.journal, portId).some(
          ({ address, state }) => address === each && ['foreign', 'assigned', 'quarantined'].includes(state),
        )
      await until(() => addresses().every(isListed), 'everything else is listed', settledMs)
      const repaired = node.warnings.filter(text => /put back/.test(text)).length
      const listed = node.warnings.filter(text => /quarantine|removed again/.test(text)).length
      t.diagnostic(
        `${repaired} told as repaired, ${listed} as brought back or his, ${edits.told()} as overlapping; ${undone.length} of his undone; longest loss ${Math.round(lost.longest())} ms where a write takes ${Math.round(writeMs())} ms`,
      )
      assert.ok(repaired + listed + edits.told() > 0, 'nothing overlapped: the test has tested nothing')
      assert.ok(lost.longest() < pace.noticedMs(writeMs()))
    })

    test('changes that do not overlap are never lost, and nobody is told anything', async t => {
      const { open, pairs, routes, putRoutes, reports, cloud, pairsPortId, refresh } = await makeScene(t)
      const [a, b, list] = [open('routes'), open('routes'), open('pairs')]
      const wanted: { routes: string[]; pairs: string[] } = { routes: [], pairs: [] }
      for (let round = 0; round < rounds; round++) {
        for (const [writer, second] of [
          [a, 30],
          [b, 31],
        ] as const) {
          await writer.need(`r${round}`, [routeNeed(`10.${second}.${round * 2}.0/24`, '10.10.10.11')], limits())
          wanted.routes.push(`10.${second}.${round * 2}.0/24`)
        }
        await putRoutes(held => [...held, `10.99.${round}.0/24`])
        wanted.routes.push(`10.99.${round}.0/24`)
        await list.need(`p${round}`, [`10.10.10.${100 + round * 2}`], limits())
        const port = (await cloud.neutron.ports.get(pairsPortId, limits()))!
        const next = [...port.allowed_address_pairs!, { ip_address: `192.0.2.${round * 2}` }]
        await cloud.neutron.ports.update(pairsPortId, { allowed_address_pairs: next }, limits())
        wanted.pairs.push(`10.10.10.${100 + round * 2}`, `192.0.2.${round * 2}`)
        await refresh()
        assert.deepEqual([routes().sort(), pairs().sort()], [wanted.routes.toSorted(), wanted.pairs.toSorted()])
      }
      await sleep(3 * verifyMs)
      await refresh()
      assert.deepEqual([routes().sort(), pairs().sort()], [wanted.routes.toSorted(), wanted.pairs.toSorted()])
      assert.deepEqual(
        reports.flatMap(each => [...each.repaired, ...each.returned, ...each.foreignRemoved]),
        [],
      )
    })
  })
}
