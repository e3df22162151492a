// SPDX-License-Identifier: Apache-2.0

// Two writers on one router, one on a port's addresses and one on its pairs, and a human who edits all three by hand, as with
// the command line: a look, a moment of thought, the whole list. What does not overlap is never lost. What does, which Neutron
// does not keep apart, is noticed by reading back: ours is repaired, theirs reported, nothing of theirs touched. The same tests
// for every Neutron; only who makes it, and how fast it is, differs.

import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ListReport, listAssignedAddresses, listPortAddresses, routeNeed, type SharedList } from '#allocator'
import { until } from './node.ts'
import {
  BYSTANDER,
  type Change,
  changeList,
  changesOf,
  editByHand,
  editsToTell,
  type Ground,
  HUMANS_HOP,
  isOlder,
  type Kind,
  limits,
  lookAgainAfter,
  missingOf,
  type Owed,
  type Pace,
  sceneOn,
  untilEqual,
  watch,
} from './writers.ts'

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
