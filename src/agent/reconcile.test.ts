// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { findAttachment, openJournal, putAttachment, setAttachmentState, tryEnterLane } from '#allocator'
import type { World } from '#plugins'
import { reconcile } from './reconcile.ts'

const key = { network: 'net', containerId: 'c1', ifName: 'eth0', type: 'veth-route' }

function worldOf(context: TestContext): World {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-reconcile-'))
  const journal = openJournal(directory)
  context.after(() => {
    journal[Symbol.dispose]()
    rmSync(directory, { recursive: true, force: true })
  })
  putAttachment(journal, {
    ...key,
    state: 'adding',
    bootId: 'boot',
    netns: '/run/netns/none',
    netnsDevice: 1,
    netnsInode: 2,
    config: '{}',
    traces: '{}',
  })
  return { journal, dataDir: directory, bootId: 'boot', host: { listOwnedLinks: async () => [] } } as unknown as World
}

test('reconcile() leaves an attachment alone whose ADD ended while it waited for its turn', async context => {
  context.mock.timers.enable({ apis: ['Date'], now: 1_000_000 })
  const world = worldOf(context)
  context.mock.timers.tick(20_000)
  const released = await reconcile(world, new Set(), async (_, work) => {
    setAttachmentState(world.journal, key, 'ready')
    return work()
  })
  assert.deepEqual(released, [])
  assert.equal(findAttachment(world.journal, key)?.state, 'ready')
})

test('reconcile() leaves an attachment alone that another process is at work on', async context => {
  context.mock.timers.enable({ apis: ['Date'], now: 1_000_000 })
  const world = worldOf(context)
  context.mock.timers.tick(20_000)
  using lane = tryEnterLane(world.dataDir, key)
  assert.ok(lane)
  assert.deepEqual(await reconcile(world, new Set(), (_, work) => work()), [])
  assert.equal(findAttachment(world.journal, key)?.state, 'adding')
})

test('reconcile() releases in one round also those of one interface in two networks', async context => {
  context.mock.timers.enable({ apis: ['Date'], now: 1_000_000 })
  const world = worldOf(context)
  const nothing = async () => {}
  Object.assign(world.host, { detachRoutedPod: nothing, removeLinks: nothing })
  const config = JSON.stringify({ config: { name: 'net' }, path: [], args: '' })
  const traces = JSON.stringify({ hostLink: 'veth1', owner: 'mine', addresses: [] })
  const first = { ...findAttachment(world.journal, key)!, config, traces }
  putAttachment(world.journal, first)
  putAttachment(world.journal, { ...first, network: 'other' })
  context.mock.timers.tick(20_000)
  const released = await reconcile(world, new Set(), (_, work) => work())
  assert.deepEqual(
    released.map(({ attachment, error }) => [attachment.network, error]),
    [
      ['net', undefined],
      ['other', undefined],
    ],
  )
})
