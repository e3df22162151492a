// SPDX-License-Identifier: Apache-2.0

// The steps of a schedule as a runtime, an operator and a bad day take them.

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Injection } from '#simulator'
import type { Answer } from './node.ts'
import { assertNow, attachmentOf } from './oracle.ts'
import type { HandDoes, Step } from './schedule.ts'
import { heal, isCondemned, ownTimeMs, type Pod, passTime, podOf, type World } from './world.ts'

/** What a kernel answers that refuses to work on a link. */
const AGAIN_LATER = 11
/** Its namespace went while it was under way. */
const INVALID_NETNS = 8
/** One answer did not show the node's own address. */
const INVALID_CONFIG = 7
/** That, again later, no address left, the cloud's own refusal, a second ADD. */
const ADD_CODES = [INVALID_CONFIG, AGAIN_LATER, 101, 102, 104]
/** A DEL waits for no cloud, but here for the other schedules at the same time. */
const DEL_MS = 10_000
/** After an ADD, until a list that does not know it may be held against it. */
const GC_GUARD_MS = 100
/** What goes on in the background after a call. */
const AFTERWARDS_MS = 15

export async function perform(world: World, step: Step): Promise<void> {
  const { node } = world
  switch (step.step) {
    case 'add':
      return await add(world, step.pod)
    case 'del':
      return await del(world, step.pod, step.sandbox)
    case 'forget':
      return forget(world, step.pod)
    case 'abandon':
      return await abandon(world, step)
    case 'gc':
      return await gc(world, step.list)
    case 'together':
      return void (await Promise.all(step.parts.map(part => perform(world, part))))
    case 'fault':
      return inject(world, step.injection)
    case 'restart':
      await node.stop('in order')
      return await node.start()
    case 'kill':
      node.arm(step.fuse)
      await perform(world, step.of)
      await sleep(AFTERWARDS_MS)
      node.arm(undefined)
      return await node.start()
    case 'down':
      return await down(world, step.pods)
    case 'reboot':
      return await reboot(world)
    case 'hand':
      return await editByHand(world, step.does)
    case 'plug':
      return world.kernel.delayNextNic?.(step.comes)
    case 'refuse':
      return world.kernel.refuse?.(step)
    case 'pass':
      await heal(world)
      return passTime(world, step.seconds)
  }
}

/** A state from before this cloud would be that of another one. */
function inject({ simulator, startedMs }: World, injection: Injection): void {
  const { ageMs } = injection
  simulator.inject(
    ageMs === undefined ? injection : { ...injection, ageMs: Math.min(ageMs, performance.now() - startedMs) },
  )
}

async function add(world: World, number: number, signal?: AbortSignal): Promise<void> {
  const pod = podOf(world, number)
  const { condemned, dels, sandbox } = pod
  const before = pod.addresses
  const isAlone = pod.running++ === 0 && !isCondemned(world, pod)
  const answer = await world.node.call('ADD', pod.containerId, { sandbox: pod.sandbox, ...(signal && { signal }) })
  pod.running--
  const when = `ADD of ${pod.containerId}`
  assertAddFailsWell(answer, when, pod.sandbox === sandbox ? ADD_CODES : [...ADD_CODES, INVALID_NETNS])
  // One whose runtime has gone on, or that lost a race with a DEL, is nobody's until a DEL.
  if (answer?.exitCode === 0 && pod.dels === dels && !signal?.aborted) {
    if (isAlone && pod.condemned === condemned) assert.equal(before, undefined, `${when}: it runs already`)
    pod.addresses = answer.json.ips!.map(({ address }) => address.split('/')[0]!)
    // Not when the answer was read: a busy machine may have taken its time over it.
    pod.addedMs = attachmentOf(world, pod.containerId)?.changedMs ?? Date.now()
  }
  assertNow(world, when)
}

function assertAddFailsWell(answer: Answer, when: string, codes: readonly number[]): void {
  if (answer === undefined || answer.exitCode === 0) return
  assert.ok(codes.includes(answer.json.code!), `${when}: ${JSON.stringify(answer.json)}`)
}

async function del(world: World, number: number, sandbox: 'there' | 'gone' | 'none'): Promise<void> {
  const pod = podOf(world, number)
  pod.addresses = undefined
  pod.dels++
  if (sandbox === 'gone') removeSandbox(pod)
  const begin = ownTimeMs()
  const when = `DEL of ${pod.containerId}`
  let answer: Answer
  let mayFail: boolean
  // A runtime that got no answer, or an error, asks again.
  do {
    const refusals = world.kernel.refusals?.()
    pod.running++
    answer = await world.node.call('DEL', pod.containerId, { sandbox: sandbox === 'there' ? pod.sandbox : undefined })
    pod.running--
    mayFail = world.kernel.refusals?.() !== refusals
    if (answer?.exitCode !== 0) assertNow(world, `${when}, which is not done`)
  } while (answer === undefined || (mayFail && answer.json.code === AGAIN_LATER))
  assert.equal(answer.exitCode, 0, `${when}: ${JSON.stringify(answer.json)}`)
  if (world.schedule.process === 'agent')
    assert.ok(ownTimeMs() - begin < DEL_MS, `${when} took ${ownTimeMs() - begin} ms`)
  if (pod.running === 0 && pod.addresses === undefined) {
    const held = world.mode.inJournal(world.node.journal).filter(each => each.containerId === pod.containerId)
    assert.deepEqual(held, [], when)
  }
  assertNow(world, when)
}

function forget(world: World, number: number): void {
  const pod = podOf(world, number)
  pod.addresses = undefined
  pod.dels++
  // What an ADD under way makes in there, it makes after the end.
  if (pod.running === 0) world.forgotten.add(pod.sandbox.path)
  removeSandbox(pod)
  assertNow(world, `the end of ${pod.containerId}`)
}

function removeSandbox(pod: Pod): void {
  pod.sandbox?.remove()
  pod.sandbox = undefined
}

async function abandon(world: World, step: Extract<Step, { step: 'abandon' }>): Promise<void> {
  const caller = new AbortController()
  const pod = podOf(world, step.pod)
  // One that runs keeps what it has: the runtime would not ask again.
  if (pod.addresses !== undefined) return
  const timer = setTimeout(() => caller.abort(), step.afterMs)
  const adding = add(world, step.pod, caller.signal)
  await Promise.race([adding, new Promise(resolve => caller.signal.addEventListener('abort', resolve))])
  // A runtime sends the DEL while the ADD is still being given up.
  if (step.del && caller.signal.aborted) await del(world, step.pod, 'there')
  await adding
  clearTimeout(timer)
}

async function gc(world: World, list: 'valid' | 'old' | 'empty' | 'absent'): Promise<void> {
  const { node, pods, lists } = world
  const listed = [...pods.values()].filter(pod => pod.addresses !== undefined && list !== 'empty')
  if (list === 'old') {
    const other = [0, 1, 2, 3, 4, 5].find(number => pods.get(number)?.addresses === undefined)
    if (other !== undefined) await add(world, other)
  }
  const valid = listed.map(({ containerId }) => ({ containerID: containerId, ifname: 'eth0' }))
  if (list !== 'absent') {
    lists.add(listed)
    for (const pod of pods.values()) if (!listed.includes(pod)) pod.condemned++
  }
  const config = list === 'absent' ? {} : { 'cni.dev/valid-attachments': valid }
  const refusals = world.kernel.refusals?.()
  const answer = await node.call('GC', '', { config })
  const mayFail = world.kernel.refusals?.() !== refusals
  if (answer !== undefined && !(mayFail && answer.json.code === AGAIN_LATER))
    assert.equal(answer.exitCode, 0, `GC: ${JSON.stringify(answer.json)}`)
  for (const pod of list === 'absent' ? [] : pods.values()) {
    // What is not in the list goes, unless it is so new that the list may not know it.
    if (pod.addresses === undefined || listed.includes(pod)) continue
    if (attachmentOf(world, pod.containerId)?.state === 'ready') continue
    assert.ok(Date.now() - pod.addedMs >= GC_GUARD_MS, `GC of ${pod.containerId}, which has just been added`)
    pod.addresses = undefined
  }
  lists.delete(listed)
  assertNow(world, `GC with list ${list}`)
}

async function down(world: World, numbers: readonly number[]): Promise<void> {
  await world.node.stop('killed')
  for (const number of numbers) {
    const pod = podOf(world, number)
    pod.addresses = undefined
    pod.dels++
    world.node.promise(pod.containerId)
  }
  await world.node.start()
  assertNow(world, 'agent started with promised DELs')
}

async function reboot(world: World): Promise<void> {
  await world.node.stop('killed')
  for (const pod of world.pods.values()) {
    pod.addresses = undefined
    pod.dels++
    removeSandbox(pod)
  }
  world.kernel.reboot?.()
  await world.node.start({ bootId: `boot-${++world.boots}` })
}

/** What an operator does with the server's ports while nothing else is under way: address-pairs.test.ts edits at the same time. */
async function editByHand(world: World, does: HandDoes): Promise<void> {
  const { mode, node } = world
  await node.stop('in order')
  // Addresses carry no owner: one that appears while the fate of a write of ours is open cannot be told from ours.
  if (mode.mayEdit(node.journal)) await mode.edit(world, does)
  await node.start()
}
