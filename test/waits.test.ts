// SPDX-License-Identifier: Apache-2.0

// Promise: a container whose link carries no packets yet waits by itself, and the calls of others go on. Needs root.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  assertSameState,
  eventually,
  makeLab,
  makeNetns,
  type Node,
  type RunningAgent,
  resultOf,
  skip,
} from './nodelab.ts'

describe('an ADD whose port does not forward', { skip }, () => {
  let node: Node
  let agent: RunningAgent
  before(async () => {
    node = makeLab({ mode: 'agent' }).nodes[0]!
    agent = await node.startAgent()
    node.ip('link add br-slow type bridge')
  })
  const children: ChildProcess[] = []
  const letUp = () => void children.splice(0).map(child => child.kill('SIGKILL'))
  after(async () => {
    letUp()
    await agent?.[Symbol.asyncDispose]()
  })

  /** Takes the link down, as often as somebody brings it up. */
  function keepDown(link: string): void {
    const [lines, ip] = [spawn('yes', [`link set ${link} down`]), spawn('ip', ['-n', node.name, '-batch', '-'])]
    lines.stdout.pipe(ip.stdin).on('error', () => undefined)
    children.push(lines, ip)
  }

  test('waits, while another is attached and detached, and ends when the bridge is up', async () => {
    const config = {
      ...{ cniVersion: '1.1.0', name: 'slow', type: 'bridge', bridge: 'br-slow' },
      ipam: { type: 'host-local', dataDir: node.leases, ranges: [[{ subnet: '10.2.0.0/16' }]] },
    }
    const slow = { containerId: 'slow', netns: makeNetns('pod').path, type: 'bridge', config }
    const other = { containerId: 'other', netns: makeNetns('pod').path }
    for (const verb of ['ADD', 'DEL'] as const) resultOf(await node.call(verb, other))
    const kept = node.state()
    keepDown('br-slow')
    let waiting = true
    const outcome = node.call('ADD', slow).finally(() => {
      waiting = false
    })
    // Until it is there that far; then it waits.
    await eventually('the pair is there', () => /veth[0-9a-f]{8}/.test(node.ip('-o link')), 2_000)
    const begin = performance.now()
    for (const verb of ['ADD', 'DEL'] as const) resultOf(await node.call(verb, other))
    const ms = performance.now() - begin
    assert.ok(waiting, 'the first is not attached before the bridge is up')
    assert.ok(ms < 1_500, `${ms} ms`)
    letUp()
    await sleep(20)
    node.ip('link set br-slow up')
    resultOf(await outcome)
    resultOf(await node.call('DEL', slow))
    assertSameState(
      node.state().filter(line => !line.includes('br-slow')),
      kept.filter(line => !line.includes('br-slow')),
    )
  })

  test('asks its segment for its IPv6 address long, while another asks shortly', async () => {
    const config = {
      ...{ cniVersion: '1.1.0', name: 'dad', type: 'bridge', bridge: 'br-dad', enabledad: true },
      ipam: { type: 'host-local', dataDir: node.leases, ranges: [[{ subnet: 'fd00:2::/64' }]] },
    }
    const [slow, quick] = [makeNetns('pod'), makeNetns('pod')]
    slow.run('sysctl', '-qw', 'net.ipv6.conf.default.dad_transmits=10')
    let waiting = true
    const outcome = node.call('ADD', { containerId: 'long', netns: slow.path, type: 'bridge', config }).finally(() => {
      waiting = false
    })
    await eventually('the kernel asks', () => /fd00:2::\S+ scope global tentative/.test(slow.ip('addr')), 2_000)
    const other = { containerId: 'short', netns: quick.path, type: 'bridge', config }
    resultOf(await node.call('ADD', other))
    assert.ok(waiting, 'the first still asks')
    assert.doesNotMatch(quick.ip('addr'), /tentative/)
    resultOf(await outcome)
    assert.doesNotMatch(slow.ip('addr'), /tentative/)
    for (const containerId of ['short', 'long'])
      resultOf(await node.call('DEL', { containerId, netns: '', type: 'bridge', config }))
  })
})
