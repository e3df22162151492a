// SPDX-License-Identifier: Apache-2.0

// Promise: an address has one container at a time. It goes back when nothing of the container is on the node any more, and
// what its next container has stays, however often the DEL of the one before comes. Needs root, one test strace.

import assert from 'node:assert/strict'
import { closeSync, existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, type TestContext, test } from 'node:test'
import { openJournal } from '#allocator'
import { deadlineIn, tryParseMac } from '#base'
import { dispatch } from '#cni'
import { type Host, inlineHost, makeAnonymousNetns } from '#host'
import { EBUSY } from '#libc'
import { NetlinkError } from '#netlink'
import { findOwnPlugin, openSessions, toCniError, worldOf } from '#plugins'
import { addLink, decodeLink, deleteLink, getLink } from '#rtnetlink'
import { skipWithout } from './child-link/lab.ts'
import { trace, withoutStrace } from './crash/strace.ts'
import {
  type Attachment,
  assertSameState,
  errorOf,
  folder,
  makeLab,
  makeNetns,
  type Node,
  type RunningAgent,
  resultOf,
  skip,
} from './nodelab.ts'
import { makeNode } from './schedules/kernel.ts'

let containers = 0
const newPod = (): Attachment => ({ containerId: `c${containers++}`, netns: makeNetns('pod').path })

/** Pods' links on the node, and addresses that the IPAM keeps for somebody. */
const links = (node: Node) => node.ip('-o link').match(/veth[0-9a-f]{8}(?=[:@])/g) ?? []
const leases = (node: Node) => node.state().filter(line => line.startsWith(`${node.leases}/`))

describe('the address of a container', { skip: skip || withoutStrace }, () => {
  let node: Node
  let kept: string[]
  before(async () => {
    node = makeLab().nodes[0]!
    const it = newPod()
    for (const verb of ['ADD', 'DEL'] as const) resultOf(await node.call(verb, it))
    kept = node.state()
  })
  /** The positions of a call's requests of a kind. */
  async function positionsOf(kind: string, verb: 'ADD' | 'DEL', it: Attachment): Promise<number[]> {
    const { prefix, calls } = trace('sendto')
    resultOf(await node.call(verb, it, { prefix }))
    return calls().flatMap((call, index) => (call === `sendto ${kind}` ? [index + 1] : []))
  }

  test('stays its own where DEL could not remove the link, and goes back with the DEL after it', async () => {
    const first = newPod()
    resultOf(await node.call('ADD', first))
    const [when] = await positionsOf('RTM_DELLINK', 'DEL', first)
    const it = newPod()
    resultOf(await node.call('ADD', it))
    const { prefix } = trace('sendto', `error=ENOBUFS:when=${when}`)
    const error = errorOf(await node.call('DEL', it, { prefix }))
    assert.match(error.msg, /^Cannot remove link.*\(ENOBUFS\)/)
    assert.deepEqual([links(node).length, leases(node).length], [1, 1])
    resultOf(await node.call('DEL', it))
    assertSameState(node.state(), kept)
  })

  test('stays its own where a failed ADD could not take the link back, and goes back with the DEL after it', async () => {
    const first = newPod()
    const positions = await positionsOf('RTM_NEWLINK', 'ADD', first)
    resultOf(await node.call('DEL', first))
    const left: number[] = []
    for (const position of positions) {
      const it = newPod()
      // All after the request is refused, and so is what would undo it.
      const { prefix } = trace('sendto', `error=ENOBUFS:when=${position + 1}+`)
      assert.match(errorOf(await node.call('ADD', it, { prefix })).msg, /\(ENOBUFS\)/)
      left.push(links(node).length)
      if (links(node).length > 0) assert.equal(leases(node).length, 1)
      resultOf(await node.call('DEL', it))
      assertSameState(node.state(), kept)
    }
    assert.ok(left.includes(1), `${left}`)
  })
})

describe('what a container has in the kernel by its address', { skip }, () => {
  let node: Node
  let agent: RunningAgent
  before(async () => {
    node = makeLab({ mode: 'agent' }).nodes[0]!
    agent = await node.startAgent()
  })
  after(() => agent?.[Symbol.asyncDispose]())

  test('stays when the DEL of the one that had the address before comes later', async () => {
    // Upstream's static gives the address to everybody: as after a release that the first DEL did not outlive.
    const ipam = { type: 'static', addresses: [{ address: '10.1.0.7/16', gateway: '10.1.0.1' }] }
    const config = { cniVersion: '1.1.0', name: 'brnet', type: 'bridge', isGateway: true, ipMasq: true, ipam }
    const [before, now] = [newPod(), newPod()].map(it => ({ ...it, type: 'bridge', config }))
    const masked = () =>
      node.run('nft', 'list', 'set', 'inet', 'mooring', 'masquerade_v4').match(/10\.1\.0\.7/g)?.length
    resultOf(await node.call('ADD', before!))
    const prevResult = resultOf(await node.call('ADD', now!))
    resultOf(await node.call('DEL', before!))
    assert.equal(masked(), 1)
    resultOf(await node.call('CHECK', now!, { more: { prevResult } }))
    resultOf(await node.call('DEL', now!))
    assert.equal(masked(), undefined)
  })
})

type Plugin = {
  readonly type: string
  readonly config: object
  /** What takes its link away. */
  readonly verb: 'removeLinks' | 'removePodLink' | 'bringNicHome'
  readonly skip?: string | false
}

/** A process per call, in this one, of a node whose only address for pods is one. */
function nodeOf(t: TestContext, { type, config, verb }: Plugin) {
  const context = makeNode({ mac: tryParseMac('02:00:00:00:00:01')! })
  t.after(() => context[Symbol.dispose]())
  const nic = { ifname: 'nic0', linkinfo: { kind: 'veth', data: { peer: { ifname: 'far0' } } } } as const
  context.onNode(() => context.route.execute([addLink(nic)]))
  const dataDir = folder('data')
  const journal = openJournal(dataDir)
  t.after(() => journal[Symbol.dispose]())
  const clouds = openSessions({ dataDir, warn: () => {} })
  const real = inlineHost(context)
  let refusing = false
  const refused = async (args: unknown) => {
    if (refusing) throw new NetlinkError('remove the link', EBUSY)
    return await (real[verb] as (args: unknown) => Promise<unknown>)(args)
  }
  const host = { ...real, [verb]: refused } as Host
  const world = worldOf({ host, journal, clouds, bootId: 'boot', longLived: false, dataDir })
  const store = folder('leases')
  const range = { subnet: '10.9.0.0/24', rangeStart: '10.9.0.5', rangeEnd: '10.9.0.5' }
  const list = { cniVersion: '1.1.0', name: 'podnet', type, ipam: { type: 'host-local', dataDir: store, ...range } }
  const results = new Map<string, object>()
  /** @returns the code of the error, 0 for none */
  async function call(verb: string, containerId: string, netnsFd?: number) {
    const netns = netnsFd === undefined ? '' : `/proc/${process.pid}/fd/${netnsFd}`
    const ofPod = { CNI_CONTAINERID: containerId, CNI_IFNAME: 'eth0', CNI_NETNS: netns, CNI_NETNS_OVERRIDE: '1' }
    const env = { CNI_COMMAND: verb, CNI_PATH: '/nowhere', ...ofPod }
    const prevResult = verb === 'CHECK' ? { prevResult: results.get(containerId) } : {}
    const stdin = new TextEncoder().encode(JSON.stringify({ ...list, ...config, ...prevResult }))
    const limits = { deadline: deadlineIn(20_000), signal: new AbortController().signal, toCniError }
    const reply = await dispatch(findOwnPlugin(type)!, { env, stdin }, world, limits)
    const text = new TextDecoder().decode(reply.stdout)
    if (verb === 'ADD') results.set(containerId, JSON.parse(text) as object)
    return reply.exitCode === 0 ? 0 : (JSON.parse(text) as { code: number }).code
  }
  return {
    call,
    refuse(yes: boolean) {
      refusing = yes
    },
    /** Containers that have the address. */
    owners: () =>
      (existsSync(join(store, 'podnet')) ? readdirSync(join(store, 'podnet')) : []).filter(isAddress).length,
    isThere: (netnsFd: number) =>
      context.onNode(() => context.inNetns(netnsFd, route => route.execute([getLink({ ifname: 'eth0' })])))[0]!.messages
        .length === 1,
    removeLink: (netnsFd: number) =>
      context.onNode(() =>
        context.inNetns(netnsFd, route => {
          const { index } = decodeLink(route.execute([getLink({ ifname: 'eth0' })])[0]!.messages[0]!)
          route.execute([deleteLink({ index })])
        }),
      ),
  }
}

const isAddress = (name: string) => /^10\.9\.0\.\d+$/.test(name)
const AGAIN_LATER = 11
const FULL = 102

describe('the only address of a node', { skip }, () => {
  const plugins: readonly Plugin[] = [
    { type: 'veth-route', config: {}, verb: 'removeLinks' },
    { type: 'ptp', config: { ipMasq: true }, verb: 'removeLinks' },
    { type: 'bridge', config: { bridge: 'br0', isGateway: true, ipMasq: true }, verb: 'removeLinks' },
    { type: 'macvlan', config: { master: 'uplink' }, verb: 'removePodLink', skip: skipWithout('macvlan') },
    { type: 'ipvlan', config: { master: 'uplink', mode: 'l3' }, verb: 'removePodLink', skip: skipWithout('ipvlan') },
    { type: 'host-device', config: { device: 'nic0' }, verb: 'bringNicHome' },
  ]
  for (const plugin of plugins) {
    test(`${plugin.type}: is nobody else's while a DEL could not remove the link`, { skip: plugin.skip }, async t => {
      const { call, refuse, owners, isThere } = nodeOf(t, plugin)
      const [first, second] = [makeAnonymousNetns(), makeAnonymousNetns()]
      t.after(() => [first, second].forEach(closeSync))
      assert.equal(await call('ADD', 'c1', first), 0)
      for (const netnsFd of [first, undefined]) {
        refuse(true)
        assert.equal(await call('DEL', 'c1', netnsFd), AGAIN_LATER)
        assert.ok(isThere(first))
        // Of NICs there is another, of addresses not.
        refuse(false)
        assert.equal(await call('ADD', 'c2', second), plugin.type === 'host-device' ? 7 : FULL)
        assert.equal(owners(), 1)
      }
      assert.equal(await call('DEL', 'c1', first), 0)
      assert.deepEqual([isThere(first), owners()], [false, 0])
      assert.equal(await call('ADD', 'c2', second), 0)
      // The runtime may send it once more, and what the next one has stays.
      assert.equal(await call('DEL', 'c1', first), 0)
      assert.equal(await call('DEL', 'c1'), 0)
      assert.deepEqual([await call('CHECK', 'c2', second), owners()], [0, 1])
      assert.equal(await call('DEL', 'c2', second), 0)
      assert.equal(owners(), 0)
    })

    test(`${plugin.type}: goes back with a namespace that is gone, or a link that went by itself`, {
      skip: plugin.skip,
    }, async t => {
      const { call, owners, removeLink } = nodeOf(t, plugin)
      const other = makeAnonymousNetns()
      t.after(() => closeSync(other))
      assert.equal(await call('ADD', 'c2', other), 0)
      removeLink(other)
      assert.equal(await call('DEL', 'c2', other), 0)
      assert.equal(owners(), 0)
      // A virtual NIC does not come back.
      if (plugin.type === 'host-device') return
      const dying = makeAnonymousNetns()
      assert.equal(await call('ADD', 'c1', dying), 0)
      closeSync(dying)
      assert.equal(await call('DEL', 'c1'), 0)
      assert.equal(owners(), 0)
    })
  }
})
