// SPDX-License-Identifier: Apache-2.0

// What the firewall promises about the kernel's rule set: all or nothing, nothing left, nothing of others touched, one
// set of rules whoever makes it. Needs root; each test works in a namespace of its own.

import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { test as base } from 'node:test'
import { type Deadline, formatIp, formatPrefix, parseIp, parsePrefix } from '#base'
import { type FirewallPod, firewall } from '#host'
import { NETLINK_NETFILTER, NetlinkError, NetlinkSocket, type Request, type Transport } from '#netlink'
import {
  addChain,
  addElement,
  addRule,
  addSet,
  addTable,
  commit,
  deleteChain,
  give,
  listChains,
  listKeys,
  listRules,
  listSets,
  NftablesError,
  readGeneration,
} from '#nftables'
import { inNamespace, makeNamespace } from './station.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const table = { family: 'inet', name: 'mooring' } as const
const chains = ['prerouting', 'outside_v4', 'outside_v6', 'postrouting'].map(name => ({ table, name }))

const pod: FirewallPod = {
  link: 'mv1',
  addresses: [parseIp('10.99.0.2'), parseIp('fd00::2')],
  masquerade: [parsePrefix('10.99.0.2/16'), parsePrefix('fd00::2/64')],
  metadata: true,
}
const numbered = (number: number): FirewallPod => ({
  link: `mv${number}`,
  addresses: [Uint8Array.of(10, 99, number >> 8, number & 255)],
  masquerade: [parsePrefix('10.99.0.0/16')],
})

/** A test with a netfilter socket of a new, empty namespace. */
function test(name: string, run: (transport: NetlinkSocket) => void): void {
  base(name, { skip }, () => {
    const namespace = makeNamespace()
    using transport = inNamespace(namespace, () => new NetlinkSocket(NETLINK_NETFILTER))
    closeSync(namespace) // the socket keeps it
    run(transport)
  })
}

/** A transport that changes requests on their way to the kernel. */
const through = (transport: Transport, change: (requests: readonly Request[]) => readonly Request[]): Transport => ({
  execute: (requests: readonly Request[], deadline?: Deadline) => transport.execute(change(requests), deadline),
})

const describe = (found: FirewallPod) => ({
  link: found.link,
  addresses: found.addresses.map(formatIp).sort(),
  masquerade: found.masquerade?.map(formatPrefix).sort(),
  metadata: found.metadata,
})
const rulesOf = (transport: Transport) => chains.map(chain => listRules(transport, chain).length)

test('addPod: makes the table, says so, and the pod is listed as it was given', transport => {
  assert.equal(firewall.addPod(transport, pod), true)
  assert.equal(firewall.addPod(transport, { link: 'mv2', addresses: [parseIp('10.99.0.3')] }), false)
  assert.deepEqual(
    firewall
      .listPods(transport)
      .map(describe)
      .sort((a, b) => (a.link < b.link ? -1 : 1)),
    [
      {
        link: 'mv1',
        addresses: ['10.99.0.2', 'fd00::2'],
        masquerade: ['10.99.0.0/16', 'fd00::/64'],
        metadata: true,
      },
      { link: 'mv2', addresses: ['10.99.0.3'], masquerade: undefined, metadata: undefined },
    ],
  )
  assert.deepEqual(firewall.checkPod(transport, pod), [])
})

test('addPod: the first masqueraded pod of a node takes nothing from those before', transport => {
  firewall.ensureTable(transport)
  assert.deepEqual(
    listSets(transport, table).filter(name => name.startsWith('masquerade')),
    [],
  )
  firewall.addPod(transport, { link: 'mv2', addresses: [parseIp('10.99.0.3')] })
  assert.equal(firewall.addPod(transport, pod), false)
  assert.equal(firewall.listPods(transport).length, 2)
})

test('addPod: rules stay the same with 200 pods', transport => {
  firewall.addPod(transport, numbered(0))
  const rules = rulesOf(transport)
  for (let number = 1; number < 200; number++) firewall.addPod(transport, numbered(number))
  assert.deepEqual(rulesOf(transport), rules)
  assert.equal(firewall.listPods(transport).length, 200)
})

test('addPod: whichever request is refused, nothing of the pod is there and the error names it', transport => {
  firewall.addPod(transport, pod)
  firewall.removePod(transport, pod)
  let requests = 3
  for (let refused = 1; refused < requests - 1; refused++) {
    let about = ''
    const faulty = through(transport, batch => {
      requests = batch.length
      // A body cut to the family header: the kernel refuses it.
      return batch.map((request, index) => {
        if (index !== refused) return request
        about = request.about
        return { ...request, body: request.body.subarray(0, 4) }
      })
    })
    assert.throws(
      () => firewall.addPod(faulty, pod),
      (error: unknown) => error instanceof NftablesError && error.code === 'EINVAL' && `add ${error.object}` === about,
    )
    assert.deepEqual(firewall.listPods(transport), [])
  }
  assert.equal(requests, 10, 'eight elements between the two ends of a batch')
})

test('addPod: a refused permission is passed on, not repaired', transport => {
  const refused = {
    execute: (): never => {
      throw new NetlinkError('add element', 1)
    },
  }
  assert.throws(() => firewall.addPod(refused, pod), /EPERM/)
  assert.deepEqual(listChains(transport), [])
})

test('addPod: after somebody flushed the rule set it works again, and says so', transport => {
  firewall.addPod(transport, pod)
  firewall.removeTable(transport)
  assert.equal(firewall.addPod(transport, pod), true)
  assert.deepEqual(firewall.checkPod(transport, pod), [])
})

test('removePod: leaves no element, twice, and without any table', transport => {
  firewall.removePod(transport, pod)
  firewall.addPod(transport, pod)
  firewall.removePod(transport, pod)
  firewall.removePod(transport, pod)
  assert.deepEqual(firewall.listPods(transport), [])
  for (const name of listSets(transport, table))
    assert.deepEqual(listKeys(transport, { table, name, key: ['ifname'] }), [], name)
})

test('removePod: where half of the elements are gone the others go too', transport => {
  firewall.addPod(transport, pod)
  firewall.removePod(transport, { link: pod.link, addresses: pod.addresses.slice(0, 1) })
  firewall.removePod(transport, pod)
  assert.deepEqual(firewall.listPods(transport), [])
})

test('removePod: on a kernel without removals that tolerate absence it leaves nothing as well', transport => {
  const NFT_MSG_DESTROYSETELEM = 0x0a1e
  let destroys = 0
  const old = through(transport, batch =>
    batch.map(request => {
      if (request.type !== NFT_MSG_DESTROYSETELEM) return request
      destroys++
      return { ...request, type: 0x0aff } // a number that no kernel knows
    }),
  )
  firewall.addPod(old, pod)
  firewall.removePod(old, { ...pod, addresses: [...pod.addresses, parseIp('10.99.0.9')] })
  assert.deepEqual(firewall.listPods(transport), [])
  const tried = destroys
  assert.ok(tried > 0)
  firewall.removePod(old, pod)
  assert.equal(destroys, tried, 'it is not tried again')
})

test('removePod: two pods with one address have elements of their own', transport => {
  const twin = { ...pod, link: 'mv2' }
  firewall.addPod(transport, pod)
  firewall.addPod(transport, twin)
  firewall.removePod(transport, twin)
  assert.deepEqual(firewall.checkPod(transport, pod), [])
})

test('checkPod: names each element and chain that is missing', transport => {
  assert.equal(firewall.checkPod(transport, pod).length, 8 + chains.length)
  firewall.addPod(transport, pod)
  firewall.removePod(transport, { link: 'mv1', addresses: [] })
  assert.deepEqual(firewall.checkPod(transport, pod), ['element mv1 of set inet mooring pod_links is missing'])
})

test('ensureTable: a second call changes nothing', transport => {
  firewall.addPod(transport, pod)
  const rules = rulesOf(transport)
  const generation = readGeneration(transport)
  firewall.ensureTable(transport)
  assert.equal(readGeneration(transport), generation)
  assert.deepEqual(rulesOf(transport), rules)
})

test('ensureTable: two processes at once make one set of rules', transport => {
  let intruded = false
  const raced = through(transport, requests => {
    // The other process is done between this one's reading and writing.
    if (requests.length > 10 && !intruded) {
      intruded = true
      firewall.addPod(transport, pod)
    }
    return requests
  })
  firewall.addPod(raced, { ...pod, link: 'mv2' })
  assert.ok(intruded)
  assert.deepEqual(rulesOf(transport), [7, 3, 3, 3])
  assert.equal(firewall.listPods(transport).length, 2)
})

test('ensureTable: rules of another release, or taken out by hand, are replaced; elements and foreign chains stay', transport => {
  firewall.addPod(transport, pod)
  const rules = rulesOf(transport)
  for (const [name, hook, type] of [
    ['prerouting', 'prerouting', 'filter'],
    ['postrouting', 'postrouting', 'nat'],
  ] as const) {
    const chain = { table, name, base: { type, hook, priority: 100, policy: 'accept' }, comment: 'older' } as const
    commit(transport, [
      deleteChain(chain),
      addChain(chain),
      addRule(chain, { expressions: [give('accept')] }),
      addChain({ table, name: 'foreign' }),
    ])
  }
  firewall.ensureTable(transport)
  assert.deepEqual(rulesOf(transport), rules)
  assert.deepEqual(firewall.checkPod(transport, pod), [])
  assert.ok(listChains(transport).some(chain => chain.name === 'foreign'))

  commit(transport, [deleteChain({ table, name: 'prerouting' })])
  assert.notDeepEqual(firewall.checkPod(transport, pod), [])
  firewall.ensureTable(transport)
  assert.deepEqual(firewall.checkPod(transport, pod), [])
})

test('foreign tables: untouched by everything, and a forward chain that drops is named', transport => {
  const docker = { family: 'ip', name: 'filter' } as const
  const forward = {
    table: docker,
    name: 'FORWARD',
    base: { type: 'filter', hook: 'forward', priority: 0, policy: 'drop' },
  } as const
  const foreignSet = { table: docker, name: 'pod_links', key: ['ifname'] } as const
  commit(transport, [
    addTable(docker),
    addChain(forward),
    addRule(forward, { expressions: [give('accept')], comment: 'theirs' }),
    addSet(foreignSet),
    addElement(foreignSet, { key: ['mv1'] }),
  ])
  const look = () => [
    listChains(transport).filter(chain => chain.table === 'filter'),
    listRules(transport, forward),
    listKeys(transport, foreignSet),
  ]
  const before = look()

  firewall.addPod(transport, pod)
  assert.deepEqual(firewall.findForeignForwardDrop(transport), ['chain FORWARD of table ip filter has policy drop'])
  firewall.removePod(transport, pod)
  firewall.removeTable(transport)
  assert.deepEqual(look(), before)
})

test('findForeignForwardDrop: silent where nobody drops', transport => {
  const foreign = { family: 'inet', name: 'other' } as const
  const chain = (name: string, hook: 'forward' | 'input', policy: 'accept' | 'drop') =>
    addChain({ table: foreign, name, base: { type: 'filter', hook, priority: 0, policy } })
  commit(transport, [addTable(foreign), chain('f', 'forward', 'accept'), chain('i', 'input', 'drop')])
  assert.deepEqual(firewall.findForeignForwardDrop(transport), [])
})
