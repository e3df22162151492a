// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { findAttachment, openJournal, putAttachment } from '#allocator'
import { deadlineIn } from '#base'
import { type Call, type Ipam, readValidAttachments } from '#cni'
import { type Attach, interfacePlugin } from './interface.ts'
import { keyOf, recordOf } from './record.ts'
import type { World } from './world.ts'

// The frame that all interface plugins have in common, around one whose link is an entry in a set.

const TYPE = 'test'
type Traces = { link: string }

function setUp(t: TestContext, ipamType = 'test-ipam') {
  const dataDir = mkdtempSync(join(tmpdir(), 'mooring-interface-'))
  t.after(() => rmSync(dataDir, { recursive: true }))
  const journal = openJournal(dataDir)
  t.after(() => journal[Symbol.dispose]())
  const links = new Set<string>()
  const leases = new Set<string>()
  const steps: string[] = []
  /** Attachments that the IPAM plugin was told of by the last GC. */
  let living: string[] = []
  const failing = { attach: false, detach: false, release: false }
  const fail = (what: keyof typeof failing) => {
    if (failing[what]) throw new Error(`${what} failed`)
  }
  const ipam = {
    async add({ containerId }: Call) {
      leases.add(containerId)
      return { ips: [{ address: '10.0.0.5/24' }] }
    },
    async del({ containerId }: Call) {
      steps.push('release')
      fail('release')
      leases.delete(containerId)
    },
    async gc({ config }: Call) {
      living = readValidAttachments(config)!.map(({ containerId }) => containerId)
      for (const each of leases) if (!living.includes(each)) leases.delete(each)
    },
  } as unknown as Ipam
  const linkOf = ({ containerId }: Call) => `link of ${containerId}`
  const plugin = interfacePlugin<null, Traces>({
    type: TYPE,
    ipam: 'required',
    parse: () => null,
    async attach({ call, takeAddresses, note, undo }: Attach<null, Traces>) {
      const result = await takeAddresses()
      const traces = { link: linkOf(call) }
      note(traces)
      links.add(traces.link)
      undo(() => detach(traces))
      fail('attach')
      return result
    },
    detach,
    findTraces: async ({ call }) => (links.has(linkOf(call)) ? [{ link: linkOf(call) }] : []),
    isThere: async ({ link }) => links.has(link),
    findFaults: async () => [],
  })
  async function detach({ link }: Traces): Promise<void> {
    steps.push('detach')
    fail('detach')
    links.delete(link)
  }
  const config = { name: 'cni0', cniVersion: '1.1.0', type: TYPE, ipam: { type: ipamType } }
  const callOf = (containerId: string, more: Partial<Call> = {}): Call => ({
    ...{ command: 'ADD', containerId, ifName: 'eth0', netns: '', netnsFd: undefined, args: '', path: [] },
    ...{ stdin: new Uint8Array(0), config, network: 'cni0', cniVersion: '1.1.0', prevResult: undefined, env: {} },
    ...{ deadline: deadlineIn(1_000), signal: new AbortController().signal },
    ...more,
  })
  const world = { journal, bootId: 'boot', longLived: false, dataDir, ipam: async () => ipam } as unknown as World
  const state = (containerId: string) => findAttachment(journal, keyOf(callOf(containerId), TYPE))?.state
  return { plugin, world, callOf, state, failing, steps, links, leases, living: () => living }
}

test('del() gives the address back after the link is gone, and not before', async t => {
  const { plugin, world, callOf, state, failing, steps, links, leases } = setUp(t)
  await plugin.add(callOf('c1'), world)
  failing.detach = true
  for (let time = 1; time <= 2; time++) {
    await assert.rejects(plugin.del(callOf('c1'), world), /detach failed/)
    assert.deepEqual([[...links], [...leases], state('c1')], [['link of c1'], ['c1'], 'deleting'])
  }
  failing.detach = false
  await plugin.del(callOf('c1'), world)
  assert.deepEqual([[...links], [...leases], state('c1')], [[], [], undefined])
  assert.deepEqual(steps, ['detach', 'detach', 'detach', 'release'])
})

test('del() gives the address back where the link went by itself, or nothing is recorded, or nothing was made yet', async t => {
  const { plugin, world, callOf, links, leases } = setUp(t)
  await plugin.add(callOf('gone'), world)
  links.delete('link of gone')
  await plugin.del(callOf('gone'), world)
  leases.add('unknown')
  await plugin.del(callOf('unknown'), world)
  const begun = { ...keyOf(callOf('begun'), TYPE), ...recordOf(callOf('begun'), 'boot'), traces: 'null' }
  putAttachment(world.journal, { ...begun, state: 'adding' })
  leases.add('begun')
  await plugin.del(callOf('begun'), world)
  assert.deepEqual([...leases], [])
})

test('del() of what nothing is recorded of keeps the address as well, as long as the link stays', async t => {
  const { plugin, world, callOf, failing, links, leases } = setUp(t)
  links.add('link of c1')
  leases.add('c1')
  failing.detach = true
  await assert.rejects(plugin.del(callOf('c1'), world), /detach failed/)
  assert.deepEqual([...leases], ['c1'])
  failing.detach = false
  await plugin.del(callOf('c1'), world)
  assert.deepEqual([[...links], [...leases]], [[], []])
})

test('del() removes the link although the address cannot be given back, and gives it back with the next', async t => {
  const { plugin, world, callOf, state, failing, links, leases } = setUp(t)
  await plugin.add(callOf('c1'), world)
  failing.release = true
  await assert.rejects(plugin.del(callOf('c1'), world), /release failed/)
  assert.deepEqual([[...links], [...leases], state('c1')], [[], ['c1'], 'deleting'])
  failing.release = false
  await plugin.del(callOf('c1'), world)
  assert.deepEqual([[...leases], state('c1')], [[], undefined])
})

test('del() removes what it can where the namespace cannot be looked into, and keeps the address: the link may be there', async t => {
  const { plugin, world, callOf, state, links, leases } = setUp(t)
  await plugin.add(callOf('c1'), world)
  // Longer than any name may be: what stands for too few descriptors, which a test cannot have.
  const { journal } = world
  journal.sql('UPDATE attachment SET netns = ?').run(`/run/netns/${'x'.repeat(300)}`)
  await assert.rejects(plugin.del(callOf('c1'), world), { code: 'ENAMETOOLONG' })
  assert.deepEqual([[...links], [...leases], state('c1')], [[], ['c1'], 'deleting'])
  journal.sql("UPDATE attachment SET netns = '/run/netns/none'").run()
  await plugin.del(callOf('c1'), world)
  assert.deepEqual([...leases], [])
})

test('del() with dhcp gives the address back first, by the link', async t => {
  const { plugin, world, callOf, steps } = setUp(t, 'dhcp')
  await plugin.add(callOf('c1'), world)
  await plugin.del(callOf('c1'), world)
  assert.deepEqual(steps, ['release', 'detach'])
})

test('add() that fails and cannot take the link back keeps the address until somebody can', async t => {
  const { plugin, world, callOf, state, failing, links, leases } = setUp(t)
  Object.assign(failing, { attach: true, detach: true })
  await assert.rejects(plugin.add(callOf('c1'), world))
  assert.deepEqual([[...links], [...leases], state('c1')], [['link of c1'], ['c1'], 'adding'])
  Object.assign(failing, { attach: false, detach: false })
  await plugin.add(callOf('c1'), world)
  assert.deepEqual([[...links], [...leases], state('c1')], [['link of c1'], ['c1'], 'ready'])
})

test('gc() keeps the address of a dead container whose link could not be removed, and tells', async t => {
  const { plugin, world, callOf, failing, leases, living } = setUp(t)
  await plugin.add(callOf('c1'), world)
  world.journal.sql('UPDATE attachment SET changed_ms = 0').run()
  failing.detach = true
  const collect = () => plugin.gc(callOf('', { command: 'GC' }), world, [])
  await assert.rejects(collect(), /detach failed/)
  assert.deepEqual([living(), [...leases]], [['c1'], ['c1']])
  failing.detach = false
  await collect()
  assert.deepEqual([living(), [...leases]], [[], []])
})
