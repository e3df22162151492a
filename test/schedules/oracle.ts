// SPDX-License-Identifier: Apache-2.0

// What has to be true of a schedule's world: after every answer, and in the end.

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { findAttachment, listAttachments } from '#allocator'
import { parseIp, parsePrefix, prefixContains, tryParsePrefix } from '#base'
import { NODE_ADDRESS } from './hand.ts'
import { NETWORK } from './node.ts'
import { heal, isCondemned, ownTimeMs, passTime, podOf, type World } from './world.ts'

/** Nothing that is left to do takes that long on a busy machine: it stands for what never ends. */
const SETTLE_MS = 25_000
/** A number that no step uses. */
const PROBE = 99

/** No address has two owners, by results, by the journal, in the kernel; who runs has what it was given. */
export function assertNow(world: World, when: string): void {
  const { node, mode, kernel, foreign, simulator } = world
  const { ips } = simulator.demo().servers['worker-1']!.ports[0]!
  assert.ok(ips.includes(NODE_ADDRESS), `${when}: the node's own address is gone`)
  const pods = [...world.pods.values()].filter(pod => !isCondemned(world, pod))
  const held = mode.inJournal(node.journal)
  const carried = kernel.carried()
  const behindLinks = carried.map(each => each.address)
  const owners = new Map<string, string>()
  for (const { containerId, addresses = [] } of pods)
    for (const address of addresses) {
      assert.ok(!owners.has(address), `${when}: ${address} is ${owners.get(address)}'s and ${containerId}'s`)
      assert.ok(!foreign.has(address), `${when}: ${address} is the operator's and ${containerId}'s`)
      owners.set(address, containerId)
      const recorded = held.filter(each => each.address === address).map(each => each.containerId)
      assert.deepEqual(recorded, [containerId], `${when}: whose ${address} is in the journal`)
      assert.ok(behindLinks.includes(address), `${when}: ${containerId} runs and ${address} leads nowhere`)
    }
  const given = held.filter(each => each.containerId !== '').map(each => each.address)
  assert.equal(new Set(given).size, given.length, `${when}: twice in the journal: ${given}`)
  assert.equal(new Set(behindLinks).size, behindLinks.length, `${when}: twice in the kernel: ${behindLinks}`)
  // Also while a container is on its way out: until its link is gone nobody else may be given its address.
  for (const { address, containerId } of carried) {
    const owner = held.find(each => each.address === address)?.containerId ?? ''
    const isIts = containerId === undefined || owner === containerId
    assert.ok(isIts, `${when}: ${address} leads to ${containerId} still, and is ${owner === '' ? 'nobody' : owner}'s`)
  }
  for (const { address, kind } of held)
    if (kind === 'ours') assert.ok(!foreign.has(address), `${when}: ${address} is the operator's and handed out`)
  for (const { containerId, addresses } of pods)
    if (addresses !== undefined)
      assert.equal(attachmentOf(world, containerId)?.state, 'ready', `${when}: ${containerId}`)
}

export const attachmentOf = ({ node, mode: { type } }: World, containerId: string) =>
  findAttachment(node.journal, { network: NETWORK, containerId, ifName: 'eth0', type })

/** Neutron, journal and kernel are equal with the pods that live, and empty without them. */
export async function settle(world: World): Promise<void> {
  const { node, pods, mode } = world
  node.arm(undefined)
  await heal(world)
  await node.start()
  // What no runtime knows of any more is left to the reconciler by every other schedule, where there is one.
  const left = [...pods.values()].filter(pod => pod.addresses === undefined)
  if (world.schedule.process === 'perCall' || world.schedule.seed % 2 === 0)
    for (const pod of left) await del(world, pod)
  passTime(world, 10)
  await node.keepUp()
  await node.keepUp()
  if (world.schedule.process === 'agent') await untilBuried(world)
  await eventually(world, 'with the pods that live')
  assertNow(world, 'in the end')

  for (const pod of pods.values()) await del(world, pod)
  passTime(world, 400)
  await eventually(world, 'without pods')
  assert.deepEqual(listAttachments(node.journal), [], 'attachments in the end')
  assert.deepEqual(world.kernel.carried(), [], 'kernel in the end')
  assert.deepEqual(world.kernel.podLinks(), [], 'links of pods in the end')
  const given = mode.inJournal(node.journal).filter(each => each.containerId !== '')
  assert.deepEqual(given, [], 'addresses that somebody has in the end')
}

/** The agent releases what is of a container that is gone, although nobody told it. */
async function untilBuried({ node, forgotten, warnings }: World): Promise<void> {
  for (const end = ownTimeMs() + SETTLE_MS; ; await sleep(50)) {
    const dead = listAttachments(node.journal).filter(({ netns }) => forgotten.has(netns))
    if (dead.length === 0) break
    const what = dead.map(({ containerId, state, netns }) => `${containerId} ${state} ${netns}`)
    assert.ok(ownTimeMs() < end, `kept although gone: ${what.join('; ')}\n  warnings: ${warnings.join('\n  ')}`)
    await node.keepUp()
  }
}

async function del(world: World, pod: { containerId: string; addresses: unknown }): Promise<void> {
  pod.addresses = undefined
  // Somebody may still have been about to die.
  const answer = (await world.node.call('DEL', pod.containerId)) ?? (await world.node.call('DEL', pod.containerId))
  assert.equal(answer?.exitCode, 0, `DEL in the end: ${JSON.stringify(answer?.json)}`)
}

async function eventually(world: World, when: string): Promise<void> {
  const { node } = world
  const probe = podOf(world, PROBE)
  for (const end = ownTimeMs() + SETTLE_MS; ; await sleep(50)) {
    if (differences(world) === '') break
    // One more attachment of the node looks at the port.
    await node.call('ADD', probe.containerId, { sandbox: probe.sandbox })
    await del(world, probe)
    if (differences(world) === '') break
    if (ownTimeMs() > end) assert.fail(`${when}: ${differences(world)}\n  warnings: ${world.warnings.join('\n  ')}`)
  }
}

/** In what Neutron, journal and kernel differ; empty where they are equal. */
function differences(world: World): string {
  const { node, mode, simulator, kernel, foreign, taken } = world
  const isCompared = (address: string) => !foreign.has(address) && !taken.has(address)
  const held = mode.inJournal(node.journal)
  const shown = mode.inNeutron(simulator)
  const found: string[] = []
  const compare = (what: string, a: readonly string[], other: string, b: readonly string[]) => {
    const [left, right] = [[...a].sort().join(' '), [...b].sort().join(' ')]
    if (left !== right) found.push(`${what}: ${left || 'nothing'}; ${other}: ${right || 'nothing'}`)
  }
  const known = held.map(each => each.address)
  compare('Neutron', shown.filter(isCompared), 'journal', known.filter(isCompared))
  const ready = new Set(
    listAttachments(node.journal).flatMap(each => (each.state === 'ready' ? [each.containerId] : [])),
  )
  const assigned = held.filter(each => each.containerId !== '')
  for (const [name, entries] of Object.entries(mode.lists?.(simulator) ?? {})) {
    const covers = (entry: string, address: string) =>
      prefixContains(tryParsePrefix(entry) ?? parsePrefix(`${entry}/32`), parseIp(address))
    const bare = assigned.filter(({ address }) => !entries.some(entry => covers(entry, address)))
    const idle = entries.filter(entry => !shown.some(address => covers(entry, address)))
    if (bare.length > 0) found.push(`${name} have nothing for ${bare.map(each => each.address).join(' ')}`)
    if (idle.length > 0) found.push(`${name} have ${idle.join(' ')}, which stands for nobody`)
  }
  const strays = assigned
    .filter(each => !ready.has(each.containerId))
    .map(each => `${each.address} ${each.containerId}`)
  compare('assigned without attachment', strays, 'wanted', [])
  compare(
    'kernel',
    kernel.carried().map(each => each.address),
    'assigned',
    assigned.map(each => each.address),
  )
  compare(
    'of the operator',
    shown.filter(address => foreign.has(address)),
    'put there',
    [...foreign],
  )
  return found.join('\n  ')
}
