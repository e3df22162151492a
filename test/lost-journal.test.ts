// SPDX-License-Identifier: Apache-2.0

// Promise: an agent that starts without the journal of the one before removes from the firewall what has no link any more,
// keeps and lists what may be of living containers, and touches nothing of its own. Needs root.

import assert from 'node:assert/strict'
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually, makeLab, makeNetns, resultOf, skip } from './nodelab.ts'

test('an agent without the journal of the one before cleans the firewall by what lives', { skip }, async () => {
  const node = makeLab({ mode: 'agent' }).nodes[0]!
  const before = await node.startAgent()
  const bridge = {
    ...{ cniVersion: '1.1.0', name: 'brnet', type: 'bridge', isGateway: true, ipMasq: true, macspoofchk: true },
    ipam: { type: 'host-local', dataDir: node.leases, ranges: [[{ subnet: '10.1.0.0/16' }]] },
  }
  type Pod = { type: string; config: object; containerId: string; pod: ReturnType<typeof makeNetns> }
  const pods: Pod[] = ['living', 'gone'].flatMap(id =>
    [
      { type: 'veth-route', config: node.config({ ipMasq: true }) },
      { type: 'bridge', config: bridge },
    ].map(each => ({ ...each, containerId: `${id}${each.type.replace('-', '')}`, pod: makeNetns('pod') })),
  )
  const links = new Map<string, string>()
  for (const { pod, ...it } of pods) {
    const { interfaces } = resultOf(await node.call('ADD', { ...it, netns: pod.path }))
    links.set(it.containerId, interfaces.find(({ name }: { name: string }) => name.startsWith('veth')).name)
  }
  await before.kill('SIGKILL')
  for (const name of readdirSync(node.dataDir)) if (name.startsWith('journal')) rmSync(join(node.dataDir, name))
  for (const { pod, containerId } of pods) if (containerId.startsWith('gone')) pod.remove()
  const rules = () => node.run('nft', 'list', 'ruleset')
  const isIn = (id: string, text: string) => text.includes(links.get(id)!) || text.includes(` ${id} `)
  for (const { containerId } of pods) assert.ok(isIn(containerId, rules()), containerId)

  await using agent = await node.startAgent({ reconcile: 1 })
  const own = { containerId: 'own', netns: makeNetns('pod').path }
  const prevResult = resultOf(await node.call('ADD', own, { more: { ipMasq: true } }))
  await eventually('the dead are gone', () => !pods.some(({ containerId: id }) => /gone/.test(id) && isIn(id, rules())))
  await sleep(1_200) // one round more
  for (const { containerId } of pods.slice(0, 2)) assert.ok(isIn(containerId, rules()), containerId)
  const told = agent.log.filter(line => line.includes('no record knows of these'))
  assert.equal(told.length, 1)
  for (const { containerId } of pods.slice(0, 2)) assert.ok(isIn(containerId, told[0]!), `${told[0]}`)
  assert.ok(!told[0]!.includes(prevResult.interfaces[0].name))
  resultOf(await node.call('CHECK', own, { more: { ipMasq: true, prevResult } }))
  // A DEL without a record finds them, as ever.
  for (const { pod, ...it } of pods.slice(0, 2)) resultOf(await node.call('DEL', { ...it, netns: pod.path }))
  resultOf(await node.call('DEL', own, { more: { ipMasq: true } }))
  assert.doesNotMatch(rules(), /elements/)
})
