// SPDX-License-Identifier: Apache-2.0

// Goal: 64 ADDs at once on one port of Neutron, by 64 processes, give 64 different addresses and no error, with an agent
// and without, in as few writes as the calls allow; Neutron's list equals the journal; then 64 DELs leave what was there
// before. Needs root.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, test } from 'node:test'
import { makeCloudNode } from './crash/cloud.ts'
import {
  type Attachment,
  assertSameState,
  eventually,
  makeManyNetns,
  type Node,
  type Outcome,
  resultOf,
  rowsOf,
  skip,
  start,
  stateOfKernel,
} from './nodelab.ts'
import { isWholeRun } from './whole-run.ts'

/** A process each takes its time on a small machine: 16 of them, but with `--all`. */
const atOnce = (mode: Node['mode']) => (mode === 'standalone' && !isWholeRun ? 16 : 64)

describe('many at once on one Neutron port', { skip }, () => {
  for (const mode of ['standalone', 'agent'] as const)
    test(mode, async t => {
      await using cloud = await makeCloudNode(mode)
      const { node, simulator } = cloud
      await using _agent = mode === 'agent' ? await node.startAgent({ reconcile: 1 }) : undefined
      const many = atOnce(mode)
      const all = makeManyNetns('pod', many).map((netns, index): Attachment => ({ containerId: `p${index}`, netns }))
      const foreign = cloud.fixedIps()
      resultOf(await node.call('ADD', all[0]!, cloud.options()))
      resultOf(await node.call('DEL', all[0]!, cloud.options()))
      await eventually('Neutron is told', () => cloud.fixedIps().length === foreign.length)
      const kernel = stateOfKernel(node)

      simulator.forgetRequests()
      const begin = performance.now()
      const outcomes = await Promise.all(all.map(it => node.call('ADD', it, cloud.options())))
      const writes = simulator.requests('PUT', '/ports/').length
      const tokens = simulator.requests('POST', '/auth/tokens').length
      t.diagnostic(`${many} ADDs in ${Math.round(performance.now() - begin)} ms, ${writes} writes, ${tokens} tokens`)
      const addresses = outcomes.map(outcome => resultOf(outcome).ips[0].address.split('/')[0] as string)
      assert.equal(new Set(addresses).size, many)
      assert.deepEqual([...foreign, ...addresses].sort(), cloud.fixedIps())
      assert.deepEqual(addressesIn(node.dataDir), cloud.fixedIps())
      assert.ok(tokens <= 2, `${tokens} tokens`)
      // Without an agent a write waits for all who have begun, and beginning is the shim's millisecond, not the third of a second of Node.js:
      // all but those whom this process did not get to start meanwhile, and they share the second.
      if (mode === 'standalone') assert.ok(writes <= 2, `${writes} writes`)

      const outcomesOfDel = await Promise.all(all.map(it => node.call('DEL', it, cloud.options())))
      for (const outcome of outcomesOfDel) resultOf(outcome)
      await eventually('Neutron is told', () => cloud.fixedIps().length === foreign.length, 20_000)
      assert.deepEqual(cloud.fixedIps(), foreign)
      assertSameState(stateOfKernel(node), kernel)
    })
})

test('calls that begin while another has its wish recorded share its write', { skip }, async () => {
  await using cloud = await makeCloudNode('standalone')
  const { node, simulator } = cloud
  const all = makeManyNetns('pod', 3).map((netns, index): Attachment => ({ containerId: `s${index}`, netns }))
  resultOf(await node.call('ADD', all[0]!, cloud.options()))
  resultOf(await node.call('DEL', all[0]!, cloud.options()))
  // A call that gets no further than its start, until it is ended.
  const starting = start(['/usr/bin/flock', '--shared', join(node.dataDir, 'starting'), '/usr/bin/cat'], {
    holdStdin: true,
  })
  simulator.forgetRequests()
  const calls: Promise<Outcome>[] = []
  for (const attachment of all) {
    calls.push(node.call('ADD', attachment, cloud.options()))
    await eventually('the wish is recorded', () => wishesIn(node.dataDir) === calls.length)
  }
  assert.equal(simulator.requests('PUT', '/ports/').length, 0)
  starting.child.stdin!.end()
  for (const outcome of await Promise.all(calls)) resultOf(outcome)
  await starting.outcome
  assert.equal(simulator.requests('PUT', '/ports/').length, 1)
  for (const attachment of all) resultOf(await node.call('DEL', attachment, cloud.options()))
})

const wishesIn = (dataDir: string) => rowsOf(dataDir).filter(row => row.startsWith('port_want')).length

/** Addresses of the port that the journal knows, in order. */
function addressesIn(dataDir: string): string[] {
  const db = new DatabaseSync(join(dataDir, 'journal.db'))
  try {
    return db
      .prepare('SELECT address FROM port_address')
      .all()
      .map(row => String(row['address']))
      .sort()
  } finally {
    db.close()
  }
}
