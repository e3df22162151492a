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
  /** A PUT as a human's tool sends it. @returns the body of the answer */
  put(path: string, body: object): Promise<unknown>
  /** As it was seen last. */
  routes(): string[]
  pairs(): string[]
  addresses(): string[]
  /** When the look began that tells all this. */
  seenMs(): number
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
  /** After this long nobody begins another change. */
  readonly endAfterMs: number
  /** Changes in turn of each who writes. */
  readonly rounds: number
  /** Entries that the cloud permits in a list, that a writer of ours needs at a time, and that the human has. */
  readonly routes: Sizes
  readonly pairs: Sizes
}
type Revised = { readonly revision_number?: number | undefined }
/** What a test looks at, and a ground keeps in view. */
export type Kind = 'routes' | 'pairs' | 'addresses'
type Sizes = { readonly max: number; readonly held: number; readonly his: number }

const HUMANS_HOP = '10.10.10.200'
/** Of others, and never changed. */
const BYSTANDER = { route: '10.98.0.0/24', pair: '198.51.100.7' } as const
const limits = () => ({ deadline: deadlineIn(60_000) })

type Change = (held: readonly string[]) => readonly string[]

/** Whether somebody wrote between a look and the answer to the write on its ground. */
const isOlder = (look: Revised, answer: Revised): boolean =>
  (answer.revision_number ?? 0) > (look.revision_number ?? Number.POSITIVE_INFINITY) + 1

/** What the tests do with a ground, at a pace. */
function sceneOn(t: TestContext, ground: Ground, pace: Pace) {
  const { cloud, routerId, pairsPortId, put } = ground
  const reports: ListReport[] = []
  let made = 0
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
    return {
      ...list,
      need: (...args) => {
        made++
        return list.need(...args)
      },
    }
  }
  const endMs = performance.now() + pace.endAfterMs
  const isLate = () => performance.now() > endMs
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
  const putRoutes = async (change: Change) => {
    const router = await lookAndThink(() => cloud.neutron.routers.get(routerId, limits()))
    const { routes: held } = router
    const routes = change(held.map(each => each.destination)).map(
      destination => held.find(each => each.destination === destination) ?? { destination, nexthop: HUMANS_HOP },
    )
    const answer = (await timed(() => put(`routers/${routerId}`, { router: { routes } }))) as { router: Revised }
    return { isOverlapping: isOlder(router, answer.router) }
  }
  return { ...ground, made: () => made, isLate, reports, open, lookAndThink, timed, writeMs, putRoutes }
}

/** What is owed, and since when. */
type Owed = Map<string, number>

/** @param seenMs when the look began: what was acknowledged later it need not show */
const missingOf = (owed: Owed, shown: readonly string[], seenMs: number): string[] =>
  [...owed].filter(([entry, sinceMs]) => sinceMs < seenMs && !shown.includes(entry)).map(([entry]) => entry)

/** Notes how long at a time something that should hold does not. */
function watch({ listeners }: Ground, wrong: () => readonly string[]) {
  const since = new Map<string, number>()
  const lossesMs: number[] = []
  const noticesMs: number[] = []
  const noticed = new Set<string>()
  const look = () => {
    const now = performance.now()
    const wrongNow = new Set(wrong())
    for (const [entry, begin] of since)
      if (!wrongNow.has(entry)) {
        lossesMs.push(now - begin)
        since.delete(entry)
        noticed.delete(entry)
      }
    for (const entry of wrongNow) if (!since.has(entry)) since.set(entry, now)
  }
  listeners.add(look)
  return {
    look,
    /** That our side has seen it: at once, where no look of the test's came first. */
    notice(entry: string): void {
      const begin = since.get(entry) ?? performance.now()
      if (!noticed.has(entry)) noticesMs.push(performance.now() - begin)
      if (since.has(entry)) noticed.add(entry)
    },
    longest: () => Math.max(0, ...lossesMs, ...[...since.values()].map(begin => performance.now() - begin)),
    /** In words, for people. */
    summary: () => `noticed ${spreadOf(noticesMs)}, back ${spreadOf(lossesMs)}`,
  }
}

/** How many, the middle one and the longest. */
function spreadOf(timesMs: readonly number[]): string {
  if (timesMs.length === 0) return 'none'
  const sorted = timesMs.toSorted((a, b) => a - b)
  return `${sorted.length} (median ${Math.round(sorted[sorted.length >> 1]!)} ms, worst ${Math.round(sorted.at(-1)!)} ms)`
}

type Edit = {
  readonly entry: string
  readonly adds: boolean
  /** From his look until Neutron's answer. */
  readonly beginMs: number
  readonly endMs: number
  isUndone: boolean
}

/** What a human did when, which of it somebody undid, and when he was told that something of his may be undone. */
function editsToTell({ listeners, seenMs }: Ground, listed: () => readonly string[]) {
  const edits: Edit[] = []
  const latest = new Map<string, Edit>()
  const toldMs: number[] = []
  let overlapping = 0
  const look = () => {
    const shown = new Set(listed())
    for (const edit of latest.values())
      if (edit.endMs < seenMs() && shown.has(edit.entry) !== edit.adds) edit.isUndone = true
  }
  listeners.add(look)
  const whenTold = ({ beginMs }: Edit) => toldMs.find(ms => ms > beginMs) ?? Number.POSITIVE_INFINITY
  const listUndone = () => edits.filter(each => each.isUndone)
  return {
    look,
    /** @param isOverlapping whether Neutron counted another write since his look */
    async edit(entry: string, adds: boolean, beginMs: number, write: () => Promise<{ isOverlapping: boolean }>) {
      latest.delete(entry)
      const { isOverlapping } = await write()
      if (isOverlapping) overlapping++
      const edit = { entry, adds, beginMs, endMs: performance.now(), isUndone: false }
      edits.push(edit)
      latest.set(entry, edit)
    },
    tell: () => toldMs.push(performance.now()),
    told: () => toldMs.length,
    undone: () => listUndone().length,
    assertTold(withinMs: number): void {
      for (const edit of listUndone()) {
        const what = `that he ${edit.adds ? 'added' : 'removed'} ${edit.entry} is undone, and he was`
        assert.ok(whenTold(edit) < edit.endMs + withinMs, `${what} not told in ${Math.round(withinMs)} ms`)
      }
    },
    /** In words, for people. */
    summary: () =>
      `${edits.length} edits by hand, ${overlapping} of them on an older list, ${listUndone().length} undone, ${toldMs.length} times told; ` +
      `of an undone one ${spreadOf(listUndone().map(each => Math.max(0, whenTold(each) - each.endMs)))}`,
  }
}

/** Changes of ours, and one more when the human has done his last: the next look at what he wrote. */
async function* changesOf(count: number, isLate: () => boolean, human: Promise<unknown>) {
  let isOver = false
  void human.then(() => (isOver = true))
  for (let change = 0; ; change++) {
    const isLast = isOver && (change >= count || isLate())
    yield change
    if (isLast) return
  }
}

/** One who needs entries of a list and stops needing them, some at a time. `acknowledged` is what the list owes. */
async function changeList(
  list: SharedList,
  { entries, most, pauseMs }: { entries: readonly string[]; most: number; pauseMs: number },
  changes: AsyncIterable<number>,
  acknowledged: Owed,
) {
  const held: string[] = []
  for await (const change of changes) {
    const entry = entries[change % entries.length]!
    if (held.length < most && !held.includes(entry)) {
      await list.need(entry, [entry], limits())
      held.push(entry)
      acknowledged.set(entry, performance.now())
    } else {
      const gone = held.splice(Math.floor(Math.random() * held.length), 1)[0]!
      acknowledged.delete(gone)
      await list.need(gone, [], limits())
    }
    await sleep(Math.random() * pauseMs)
  }
  return held
}

/** An edit whose write Neutron refused because of another's is begun again. @param types of errors */
async function lookAgainAfter(types: RegExp, edit: () => Promise<void>): Promise<void> {
  for (;;)
    try {
      await edit()
      return
    } catch (error) {
      if (!(error instanceof OpenStackError) || !types.test(error.type)) throw error
    }
}

/** A human who adds and removes entries of his own, always with the whole list. */
async function editByHand(
  put: (change: Change, entry: string, adds: boolean) => Promise<void>,
  entries: readonly string[],
  { changes, commitMs }: Pick<Pace, 'changes' | 'commitMs'>,
  isLate: () => boolean,
): Promise<Set<string>> {
  const wanted = new Set<string>()
  for (let change = 0; change < changes && !isLate(); change++) {
    const entry = entries[change % entries.length]!
    const adds = !wanted.has(entry)
    if (adds) wanted.add(entry)
    else wanted.delete(entry)
    await put(held => (adds ? [...new Set([...held, entry])] : held.filter(each => each !== entry)), entry, adds)
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
  makeGround: (t: TestContext, looksAt: readonly Kind[]) => Promise<Ground>,
): void {
  const { verifyMs, settledMs, changes, rounds, pauseMs } = pace
  const makeScene = async (t: TestContext, ...looksAt: Kind[]) => sceneOn(t, await makeGround(t, looksAt), pace)

  describe('other writers', options, () => {
    test('two writers and a human on one router: nothing of anybody is lost for long, and all is as each wants it', async t => {
      const scene = await makeScene(t, 'routes')
      const { open, routes, refresh, reports, putRoutes, writeMs } = scene
      await putRoutes(held => [...held, BYSTANDER.route])
      await refresh()
      const owed: Owed = new Map()
      const networks = (second: number) =>
        Array.from({ length: second === 99 ? pace.routes.his : 20 }, (_, at) => `10.${second}.${at * 2}.0/24`)
      const ours = new Set([...networks(30), ...networks(31)])
      const lost = watch(scene, () => missingOf(owed, routes(), scene.seenMs()))
      const touched = watch(scene, () => (routes().includes(BYSTANDER.route) ? [] : [BYSTANDER.route]))
      const edits = editsToTell(scene, routes)
      const toNeeds = (list: SharedList, hop: string): SharedList => ({
        ...list,
        need: (user, members, within) =>
          list.need(
            user,
            members.map(each => routeNeed(each, hop)),
            within,
          ),
      })
      const put = (change: Change, entry: string, adds: boolean) =>
        edits.edit(entry, adds, performance.now(), () => putRoutes(change))
      const human = editByHand(put, networks(99), pace, scene.isLate)
      const notice = ({ repaired }: ListReport) => {
        for (const entry of repaired) lost.notice(entry.split(' ')[0]!)
      }
      const write = (second: number, hop: string) =>
        changeList(
          toNeeds(open('routes', notice), hop),
          { entries: networks(second), most: pace.routes.held, pauseMs },
          changesOf(changes, scene.isLate, human),
          owed,
        )
      const repaired = () => reports.flatMap(each => each.repaired).length
      const returned = () => reports.flatMap(each => each.returned).length
      t.after(() =>
        t.diagnostic(
          `${scene.made()} changes of ours, ${repaired()} repaired, ${returned()} taken out again; ours that were missing: ${lost.summary()}; ${edits.summary()}; a write takes ${Math.round(writeMs())} ms`,
        ),
      )
      const [a, b, his] = await Promise.all([write(30, '10.10.10.11'), write(31, '10.10.10.12'), human])
      const wanted = [...a, ...b, ...his, BYSTANDER.route]
      await untilEqual(routes, wanted, settledMs)
      lost.look()
      assert.ok(repaired() + returned() > 0, 'nothing overlapped: the test has tested nothing')
      assert.ok(lost.longest() < pace.noticedMs(writeMs()))
      assert.equal(touched.longest(), 0, `${BYSTANDER.route} of others was gone`)
      assert.equal(edits.undone(), 0, 'single routes are written: nothing of his is undone')
      // What was reported of his is his, and none of it ours.
      for (const report of reports)
        for (const entry of [...report.foreignAdded, ...report.foreignRemoved])
          if (entry.endsWith(HUMANS_HOP)) assert.ok(!ours.has(entry.split(' ')[0]!))
    })

    test('a human edits the pairs of a port that we write: ours is back soon, and what may be lost of his is reported', async t => {
      const scene = await makeScene(t, 'pairs')
      const { open, pairs, refresh, reports, cloud, pairsPortId, lookAndThink, timed, writeMs } = scene
      const allowed_address_pairs = [{ ip_address: BYSTANDER.pair }]
      await cloud.neutron.ports.update(pairsPortId, { allowed_address_pairs }, limits())
      await refresh()
      const touched = watch(scene, () => (pairs().includes(BYSTANDER.pair) ? [] : [BYSTANDER.pair]))
      const edits = editsToTell(scene, pairs)
      const owed: Owed = new Map()
      const ours = Array.from({ length: 20 }, (_, at) => `10.10.10.${100 + at * 2}`)
      const his = Array.from({ length: pace.pairs.his }, (_, at) => `192.0.2.${at * 2}`)
      const lost = watch(scene, () => missingOf(owed, pairs(), scene.seenMs()))
      const put = (change: Change, entry: string, adds: boolean) =>
        lookAgainAfter(/^(DuplicateAddressPairInRequest|AllowedAddressPairExhausted)$/, () =>
          edits.edit(entry, adds, performance.now(), async () => {
            const port = await lookAndThink(() => cloud.neutron.ports.get(pairsPortId, limits()))
            const next = change((port.allowed_address_pairs ?? []).map(each => each.ip_address))
            const allowed_address_pairs = next.map(ip_address => ({ ip_address }))
            const answer = await timed(() =>
              cloud.neutron.ports.update(pairsPortId, { allowed_address_pairs }, limits()),
            )
            return { isOverlapping: isOlder(port, answer) }
          }),
        )
      const human = editByHand(put, his, pace, scene.isLate)
      const writing = changeList(
        open('pairs', report => {
          if (report.overlapped || report.foreignRemoved.length > 0) edits.tell()
          for (const entry of report.repaired) lost.notice(entry)
        }),
        { entries: ours, most: pace.pairs.held, pauseMs },
        changesOf(changes, scene.isLate, human),
        owed,
      )
      const repaired = () => reports.flatMap(each => each.repaired).length
      t.after(() =>
        t.diagnostic(
          `${scene.made()} changes of ours, ${repaired()} repaired; ours that were missing: ${lost.summary()}; ${edits.summary()}; a write takes ${Math.round(writeMs())} ms`,
        ),
      )
      const [held] = await Promise.all([writing, human])
      const oursNow = () =>
        pairs()
          .filter(each => ours.includes(each))
          .sort()
      await untilEqual(oursNow, held, settledMs)
      await sleep(4 * verifyMs)
      assert.deepEqual(oursNow(), [...held].sort())
      lost.look()
      assert.ok(repaired() + edits.told() > 0, 'nothing overlapped: the test has tested nothing')
      assert.ok(lost.longest() < pace.noticedMs(writeMs()))
      edits.assertTold(pace.noticedMs(writeMs()))
      assert.equal(touched.longest(), 0, `${BYSTANDER.pair} of others was gone`)
      assert.deepEqual(
        pairs().filter(each => !ours.includes(each) && !his.includes(each)),
        [BYSTANDER.pair],
      )
    })

    test('a human edits the addresses of a port that carries pods: theirs is put back soon, his is no pod’s, and what is undone of his is told soon', async t => {
      const scene = await makeScene(t, 'addresses')
      const { node, ipam, addresses, cloud, portId, subnetId: subnet_id, lookAndThink, timed, writeMs } = scene
      const [own] = addresses()
      const his = Array.from({ length: 10 }, (_, at) => `10.10.10.${230 + at}`)
      const living = () => listAssignedAddresses(node.world.journal).map(each => each.address)
      const owed: Owed = new Map()
      const lost = watch(scene, () => missingOf(owed, addresses(), scene.seenMs()))
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
            owed.set(address, performance.now())
          } else {
            const { id, address } = held.shift()!
            owed.delete(address)
            assert.equal((await node.call('DEL', id, ipam)).exitCode, 0)
          }
        return held
      }
      const edits = editsToTell(scene, addresses)
      const notice = () => {
        const overlaps = node.warnings.filter(text => /at the same moment/.test(text)).length
        while (edits.told() < overlaps) edits.tell()
      }
      scene.listeners.add(notice)
      const put = (change: Change, entry: string, adds: boolean) =>
        // What he remembers may be another's by now.
        lookAgainAfter(/^IpAddressAlreadyAllocated$/, () =>
          edits.edit(entry, adds, performance.now(), async () => {
            const port = await lookAndThink(() => cloud.neutron.ports.get(portId, limits()))
            const next = change(port.fixed_ips.map(each => each.ip_address))
            const fixed_ips = next.map(ip_address => ({ subnet_id, ip_address }))
            const answer = await timed(() => cloud.neutron.ports.update(portId, { fixed_ips }, limits()))
            return { isOverlapping: isOlder(port, answer) }
          }),
        )
      const human = editByHand(put, his, pace, scene.isLate)
      const repaired = () => node.warnings.filter(text => /put back/.test(text)).length
      const listed = () => node.warnings.filter(text => /quarantine|removed again/.test(text)).length
      t.after(() =>
        t.diagnostic(
          `${repaired()} told as repaired, ${listed()} as brought back or his, ${edits.told()} as overlapping; ours that were missing: ${lost.summary()}; ${edits.summary()}; a write takes ${Math.round(writeMs())} ms`,
        ),
      )
      const [held] = await Promise.all([pods(changesOf(changes, scene.isLate, human)), human])
      const isWhole = () => held.every(each => addresses().includes(each.address))
      await until(isWhole, 'every pod has its address', settledMs)
      await sleep(4 * verifyMs)
      lost.look()
      assert.ok(isWhole())
      assert.deepEqual(living().sort(), held.map(each => each.address).sort())
      notice()
      edits.assertTold(pace.noticedMs(writeMs()))
      assert.ok(addresses().includes(own!))
      // What he brought back by an older list cannot be told from what he wants: it is listed, and nobody's. What he wrote
      // before the node's first look at the port is foreign, as the node's own address is.
      const isListed = (each: string) =>
        listPortAddresses(node.world.journal, portId).some(
          ({ address, state }) => address === each && ['foreign', 'assigned', 'quarantined'].includes(state),
        )
      await until(() => addresses().every(isListed), 'everything else is listed', settledMs)
      assert.ok(repaired() + listed() + edits.told() > 0, 'nothing overlapped: the test has tested nothing')
      assert.ok(lost.longest() < pace.noticedMs(writeMs()))
    })

    test('changes that do not overlap are never lost, and nobody is told anything', async t => {
      const { open, pairs, routes, putRoutes, reports, cloud, pairsPortId, refresh } = await makeScene(
        t,
        'routes',
        'pairs',
      )
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
