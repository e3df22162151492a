// SPDX-License-Identifier: Apache-2.0

// What the firewall promises about packets, seen by the hosts on the wire. Needs root; works in namespaces of its own.
//
//   pod 10.99.0.2 (10.99.0.77, spoofed) -- mv1 [node] up0 -- outside 192.0.2.2, 198.51.100.2, 169.254.169.254
//   pod 10.99.0.3                       -- mv2

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, writeFileSync } from 'node:fs'
import { after, before, beforeEach, test } from 'node:test'
import { parseIp, parsePrefix } from '#base'
import { firewall } from '#host'
import { NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkSocket } from '#netlink'
import { addLink } from '#rtnetlink'
import { inNamespace, makeNamespace, type Station, startStation } from './station.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

const pod1 = { link: 'mv1', addresses: [parseIp('10.99.0.2'), parseIp('fd00:99::2')] }
const pod2 = { link: 'mv2', addresses: [parseIp('10.99.0.3'), parseIp('fd00:99::3')] }
const inside = [parsePrefix('10.99.0.2/16'), parsePrefix('192.0.2.0/24'), parsePrefix('fd00:99::2/64')]

const ip = (fd: number, ...lines: string[]) =>
  inNamespace(fd, () => execFileSync('ip', ['-batch', '-'], { input: lines.join('\n') }))
const pair = (ifname: string, peer: string, netnsFd: number) =>
  inNamespace(node, () => {
    using route = new NetlinkSocket(NETLINK_ROUTE)
    route.execute([addLink({ ifname, linkinfo: { kind: 'veth', data: { peer: { ifname: peer, netnsFd } } } })])
  })
const set = (fd: number, value: string, ...path: string[]) =>
  inNamespace(fd, () => writeFileSync(`/proc/sys/net/${path.join('/')}`, value))

let node: number
let transport: NetlinkSocket
let first: Station
let second: Station
let outside: Station
const stations: Station[] = []
const namespaces: number[] = []

before(async () => {
  if (skip) return
  namespaces.push(...Array.from({ length: 4 }, makeNamespace))
  const [podFd, otherFd, outsideFd, nodeFd] = namespaces as [number, number, number, number]
  node = nodeFd
  transport = inNamespace(node, () => new NetlinkSocket(NETLINK_NETFILTER))
  for (const fd of [node, podFd, otherFd, outsideFd]) {
    set(fd, '0', 'ipv6/conf/all/disable_ipv6')
    set(fd, '0', 'ipv6/conf/default/accept_dad')
    ip(fd, 'link set lo up')
  }
  set(node, '1', 'ipv4/ip_forward')
  set(node, '1', 'ipv6/conf/all/forwarding')
  pair('up0', 'eth0', outsideFd)
  pair('mv1', 'eth0', podFd)
  pair('mv2', 'eth0', otherFd)
  ip(
    node,
    'link set up0 up',
    'address add 192.0.2.1/24 dev up0',
    'address add 2001:db8::1/64 dev up0 nodad',
    'route add default via 192.0.2.2',
    ...['mv1', 'mv2'].flatMap(link => [
      `link set ${link} up`,
      `address add 169.254.1.1/32 dev ${link}`,
      `address add fe80::1/64 dev ${link} nodad`,
    ]),
    'address add fe80::a9fe:a9fe/64 dev mv1 nodad',
    'route add 10.99.0.2 dev mv1',
    'route add 10.99.0.77 dev mv1',
    'route add 10.99.0.3 dev mv2',
    'route add fd00:99::2 dev mv1',
    'route add fd00:99::77 dev mv1',
    'route add fd00:99::3 dev mv2',
    'route add default via 2001:db8::2 dev up0',
  )
  for (const [fd, v4, v6] of [
    [podFd, ['10.99.0.2', '10.99.0.77'], ['fd00:99::2', 'fd00:99::77']],
    [otherFd, ['10.99.0.3'], ['fd00:99::3']],
  ] as const)
    ip(
      fd,
      'link set eth0 up',
      ...v4.map(address => `address add ${address}/32 dev eth0`),
      ...v6.map(address => `address add ${address}/128 dev eth0 nodad`),
      'route add 169.254.1.1 dev eth0',
      'route add default via 169.254.1.1',
      'route add default via fe80::1 dev eth0',
    )
  ip(
    outsideFd,
    'link set eth0 up',
    'address add 192.0.2.2/24 dev eth0',
    'address add 198.51.100.2/32 dev lo',
    'address add 169.254.169.254/32 dev lo',
    'address add 2001:db8::2/64 dev eth0 nodad',
    'route add 10.99.0.0/16 via 192.0.2.1',
    'route add fd00:99::/64 via 2001:db8::1',
  )
  stations.push(startStation(podFd), startStation(otherFd), startStation(outsideFd), startStation(node))
  const [one, two, far, near] = stations as [Station, Station, Station, Station]
  first = one
  second = two
  outside = far
  for (const address of ['192.0.2.2', '198.51.100.2', '169.254.169.254', '2001:db8::2']) await outside.listen(address)
  for (const address of ['10.99.0.3', 'fd00:99::3']) await second.listen(address)
  await near.listen('fe80::a9fe:a9fe%mv1')
  await near.listen('fe80::1%mv1')
})

after(async () => {
  for (const station of stations) await station[Symbol.asyncDispose]()
  transport?.[Symbol.dispose]()
  for (const fd of namespaces) closeSync(fd)
})

beforeEach(() => {
  if (!skip) firewall.removeTable(transport)
})

test('source check: what is no address of the pod is dropped, what is one passes', { skip }, async () => {
  assert.equal(await first.ask('10.99.0.77', '192.0.2.2'), '10.99.0.77', 'without firewall it would pass')
  firewall.addPod(transport, pod1)
  assert.equal(await first.ask('10.99.0.2', '192.0.2.2'), '10.99.0.2')
  assert.equal(await first.ask('10.99.0.77', '192.0.2.2'), undefined)
  firewall.addPod(transport, { ...pod1, addresses: [...pod1.addresses, parseIp('10.99.0.77')] })
  assert.equal(await first.ask('10.99.0.77', '192.0.2.2'), '10.99.0.77')
})

test('source check: the same for IPv6', { skip }, async () => {
  assert.equal(await first.ask('fd00:99::77', '2001:db8::2'), 'fd00:99::77', 'without firewall it would pass')
  firewall.addPod(transport, pod1)
  assert.equal(await first.ask('fd00:99::2', '2001:db8::2'), 'fd00:99::2')
  assert.equal(await first.ask('fd00:99::77', '2001:db8::2'), undefined)
})

test('source check: an address of another pod is none of this one', { skip }, async () => {
  firewall.addPod(transport, { link: 'mv1', addresses: [parseIp('10.99.0.2')] })
  firewall.addPod(transport, { link: 'mv2', addresses: [parseIp('10.99.0.77')] })
  assert.equal(await first.ask('10.99.0.77', '192.0.2.2'), undefined)
})

test('source check: a pod of IPv4 alone may not speak IPv6, but neighbour discovery works', { skip }, async () => {
  firewall.addPod(transport, { link: 'mv1', addresses: [parseIp('10.99.0.2')] })
  assert.equal(await first.ask('fd00:99::2', '2001:db8::2'), undefined)
  assert.match((await first.ask('::', 'fe80::1%eth0')) ?? '', /^fe80::/)
})

test('masquerade: the outside sees the node, networks named inside see the pod', { skip }, async () => {
  firewall.addPod(transport, { ...pod1, masquerade: inside })
  assert.equal(await first.ask('10.99.0.2', '198.51.100.2'), '192.0.2.1')
  assert.equal(await first.ask('10.99.0.2', '192.0.2.2'), '10.99.0.2')
  assert.equal(await first.ask('fd00:99::2', '2001:db8::2'), '2001:db8::1')
})

test('masquerade: a pod without it keeps its address beside one with it', { skip }, async () => {
  firewall.addPod(transport, { ...pod1, masquerade: inside })
  firewall.addPod(transport, pod2)
  assert.equal(await second.ask('10.99.0.3', '198.51.100.2'), '10.99.0.3')
  assert.equal(await second.ask('fd00:99::3', '2001:db8::2'), 'fd00:99::3')
})

test('masquerade: between pods of one node nothing is replaced', { skip }, async () => {
  firewall.addPod(transport, { ...pod1, masquerade: [] })
  firewall.addPod(transport, { ...pod2, masquerade: [] })
  assert.equal(await first.ask('10.99.0.2', '10.99.0.3'), '10.99.0.2')
  assert.equal(await first.ask('fd00:99::2', 'fd00:99::3'), 'fd00:99::2')
})

test('masquerade: each pod has inside networks of its own', { skip }, async () => {
  firewall.addPod(transport, { ...pod1, masquerade: [parsePrefix('198.51.100.0/24')] })
  firewall.addPod(transport, { ...pod2, masquerade: [parsePrefix('198.51.100.128/25')] })
  assert.equal(await first.ask('10.99.0.2', '198.51.100.2'), '10.99.0.2')
  assert.equal(await second.ask('10.99.0.3', '198.51.100.2'), '192.0.2.1')
  firewall.removePod(transport, { ...pod2, masquerade: [parsePrefix('198.51.100.128/25')] })
  assert.equal(await first.ask('10.99.0.2', '198.51.100.2'), '10.99.0.2')
})

test('metadata service: out of reach unless allowed', { skip }, async () => {
  assert.equal(await first.ask('10.99.0.2', '169.254.169.254'), '10.99.0.2', 'without firewall it would pass')
  firewall.addPod(transport, pod1)
  assert.equal(await first.ask('10.99.0.2', '169.254.169.254'), undefined)
  firewall.addPod(transport, { ...pod1, metadata: true })
  assert.equal(await first.ask('10.99.0.2', '169.254.169.254'), '10.99.0.2')
})

test('metadata service: the same for IPv6, whose address is link-local', { skip }, async () => {
  firewall.addPod(transport, pod1)
  assert.equal(await first.ask('::', 'fe80::a9fe:a9fe%eth0'), undefined)
  firewall.addPod(transport, { ...pod1, metadata: true })
  assert.match((await first.ask('::', 'fe80::a9fe:a9fe%eth0')) ?? '', /^fe80::/)
})

test('removePod: what the pod was allowed it no longer is, and others keep theirs', { skip }, async () => {
  firewall.addPod(transport, { ...pod1, masquerade: inside, metadata: true })
  firewall.addPod(transport, { ...pod2, masquerade: inside })
  firewall.removePod(transport, { ...pod1, masquerade: inside, metadata: true })
  assert.equal(await second.ask('10.99.0.3', '198.51.100.2'), '192.0.2.1')
  firewall.addPod(transport, { link: 'mv1', addresses: [parseIp('10.99.0.77')] })
  assert.equal(await first.ask('10.99.0.2', '198.51.100.2'), undefined)
  assert.equal(await first.ask('10.99.0.77', '198.51.100.2'), '10.99.0.77')
  assert.equal(await first.ask('10.99.0.77', '169.254.169.254'), undefined)
})

test('removeTable: everything passes as before', { skip }, async () => {
  firewall.addPod(transport, { ...pod1, masquerade: inside })
  firewall.removeTable(transport)
  firewall.removeTable(transport)
  assert.equal(await first.ask('10.99.0.77', '198.51.100.2'), '10.99.0.77')
})
