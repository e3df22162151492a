// SPDX-License-Identifier: Apache-2.0

// Goal: a GC that removes what is left of a container takes nothing from the same container that is attached anew meanwhile,
// and what a call is under way for it leaves to the next GC. Method: the node of a schedule, whose kernel takes its time over
// the first removal. Needs no root.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { EBUSY } from '#libc'
import { NetlinkError } from '#netlink'
import { fakeKernel, type Kernel, type KernelSite } from './schedules/kernel.ts'
import { modes } from './schedules/mode.ts'
import { assertNow, attachmentOf } from './schedules/oracle.ts'
import { makeSchedule } from './schedules/schedule.ts'
import { podOf, startWorld } from './schedules/world.ts'

/** As old as GC wants an attachment. */
const GC_AGE_MS = 150
/** What a kernel answers that does not do it now. */
const AGAIN_LATER = 11

/** A world whose kernel begins with the first removal of a pod, and goes on with it when it is told to. */
async function worldOf(process: 'agent' | 'perCall', { fails }: { fails: boolean }) {
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>()
  const { promise: goesOn, resolve: goOn } = Promise.withResolvers<void>()
  let hasBegun = false
  const slow = (site: KernelSite): Kernel => {
    const kernel = fakeKernel(site)
    const { detachRoutedPod } = kernel.host
    const host = {
      ...kernel.host,
      async detachRoutedPod(args: Parameters<typeof detachRoutedPod>[0]) {
        const isFirst = !hasBegun
        hasBegun = true
        begin()
        if (isFirst) await goesOn
        if (isFirst && fails) throw new NetlinkError('remove the pod', EBUSY)
        await detachRoutedPod(args)
      },
    }
    return { ...kernel, host }
  }
  const mode = { ...modes[0]!, kernels: { fake: slow, real: slow } }
  const schedule = { ...makeSchedule(1, 'addresses'), process, reserve: 2 }
  return { world: await startWorld(schedule, { mode, real: false }), begun, goOn }
}

for (const process of ['agent', 'perCall'] as const)
  test(`an ADD during the GC of the same container keeps what it gets (${process})`, async () => {
    const made = await worldOf(process, { fails: false })
    const { begun, goOn } = made
    await using world = made.world
    // Nothing waits for a test that has failed.
    using _end = { [Symbol.dispose]: goOn }
    const add = async () => {
      const { containerId, sandbox } = podOf(world, 0)
      return await world.node.call('ADD', containerId, { sandbox })
    }
    assert.equal((await add())?.exitCode, 0)
    await sleep(GC_AGE_MS)
    const pod = podOf(world, 0)
    pod.sandbox.remove()
    pod.sandbox = undefined as never

    const collecting = world.node.call('GC', '', { config: { 'cni.dev/valid-attachments': [] } })
    await begun
    const adding = add()
    // It may wait for the GC, or go before.
    await Promise.race([adding, sleep(300)])
    goOn()
    assert.equal((await collecting)?.exitCode, 0)
    const answer = await adding
    assert.equal(answer?.exitCode, 0, JSON.stringify(answer?.json))
    assert.equal(attachmentOf(world, pod.containerId)?.state, 'ready')
    podOf(world, 0).addresses = answer.json.ips!.map(({ address }) => address.split('/')[0]!)
    assertNow(world, 'after both')
  })

for (const process of ['agent', 'perCall'] as const)
  test(`a GC leaves a container to its DEL that is under way, tells no error, and the next GC takes it (${process})`, async () => {
    const made = await worldOf(process, { fails: true })
    const { begun, goOn } = made
    await using world = made.world
    // Nothing waits for a test that has failed.
    using _end = { [Symbol.dispose]: goOn }
    const { node, mode } = world
    const held = () => mode.inJournal(node.journal).flatMap(each => each.containerId || [])
    const gc = async () => await node.call('GC', '', { config: { 'cni.dev/valid-attachments': [] } })
    const [busy, dead] = [podOf(world, 0), podOf(world, 1)]
    for (const { containerId, sandbox } of [busy, dead])
      assert.equal((await node.call('ADD', containerId, { sandbox }))?.exitCode, 0)
    await sleep(GC_AGE_MS)

    const deleting = node.call('DEL', busy.containerId, { sandbox: busy.sandbox })
    await begun
    assert.deepEqual(await gc(), { exitCode: 0, json: {} })
    assert.deepEqual(held(), [busy.containerId])
    assert.equal(attachmentOf(world, busy.containerId)?.state, 'deleting')
    assert.equal(attachmentOf(world, dead.containerId), undefined)
    goOn()
    assert.equal((await deleting)?.json.code, AGAIN_LATER)
    assert.deepEqual(held(), [busy.containerId])

    assert.deepEqual(await gc(), { exitCode: 0, json: {} })
    assert.deepEqual(held(), [])
    assert.equal(attachmentOf(world, busy.containerId), undefined)
    assert.deepEqual(world.kernel.podLinks(), [])
    assert.deepEqual(world.warnings, [])
  })
