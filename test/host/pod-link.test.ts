// SPDX-License-Identifier: Apache-2.0

// Promise: a pod's link works when it is configured: addresses of both families, routes with all their options, neighbours
// told, duplicates found; and every single deviation from that is told. Method: a veth pair between two namespaces. Needs root.

import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { parseIp, parsePrefix } from '#base'
import { HostContext, openOwnNetns, type PodLink, podLink, tryOpenNetns } from '#host'
import { eventually, makeNetns, type Netns, skip } from '../nodelab.ts'

const { awaitPodAddresses, configurePodLink, findPodLinkFaults } = podLink

describe('a link in a pod', { skip }, () => {
  let context: HostContext
  let home: number
  before(() => {
    home = openOwnNetns()
    context = new HostContext()
  })
  after(() => {
    context[Symbol.dispose]()
    closeSync(home)
  })

  /** Two namespaces with a pair between them; the other end is up and has addresses. */
  function makePair(): { pod: Netns; other: Netns; fd: number; [Symbol.dispose](): void } {
    const [pod, other] = [makeNetns('pod'), makeNetns('other')]
    other.ip(`link add eth0 type veth peer name eth0 netns ${pod.name}`)
    other.ip('addr add 10.99.0.1/24 dev eth0')
    other.ip('addr add fd00:99::1/64 dev eth0 nodad')
    other.ip('link set eth0 up')
    const fd = tryOpenNetns(pod.path)!
    return { pod, other, fd, [Symbol.dispose]: () => closeSync(fd) }
  }

  /**
   * Both ends can send. The kernel notices a carrier behind all other work on links: what the other end answers until then
   * is lost.
   */
  async function carried({ pod, other }: { pod: Netns; other: Netns }): Promise<void> {
    await eventually('both ends are up', () => [pod, other].every(end => / state UP /.test(end.ip('link show eth0'))))
  }

  const link: PodLink = {
    ifName: 'eth0',
    owner: 'mooring test',
    addresses: [parsePrefix('10.99.0.5/24'), parsePrefix('fd00:99::5/64')],
    routes: [
      { destination: parsePrefix('0.0.0.0/0'), gateway: parseIp('10.99.0.1') },
      { destination: parsePrefix('::/0'), gateway: parseIp('fd00:99::1') },
      { destination: parsePrefix('10.1.0.0/16'), gateway: parseIp('10.99.0.1'), priority: 7, mtu: 1300, advmss: 1200 },
      { destination: parsePrefix('10.2.0.0/16'), table: 1001 },
      { destination: parsePrefix('10.3.0.0/16'), scope: 0 },
    ],
  }
  const configure = (fd: number, more: Partial<PodLink> = {}) =>
    context.inNetns(fd, route => configurePodLink(route, { ...link, ...more }))
  const settle = (netnsFd: number) => awaitPodAddresses(context, { netnsFd, ifName: 'eth0', timeoutMs: 5_000 })
  const faults = (fd: number) =>
    context.inNetns(fd, route => findPodLinkFaults(route, { ...link, kind: 'veth', mtuBytes: 1500 }))

  test('both families pass packets as soon as the addresses are settled, and the wait is short', async () => {
    using pair = makePair()
    pair.pod.run('sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.default.disable_ipv6=1')
    configure(pair.fd)
    const begin = performance.now()
    assert.deepEqual(await settle(pair.fd), { duplicate: [], unsettled: [] })
    const waitedMs = performance.now() - begin
    assert.ok(waitedMs < 900, `${waitedMs} ms`)
    pair.pod.run('ping', '-c1', '-W1', '10.99.0.1')
    pair.pod.run('ping', '-c1', '-W1', 'fd00:99::1')
    assert.deepEqual(faults(pair.fd), [])
    const settings = [
      'ipv4.conf.eth0.arp_notify',
      'ipv6.conf.eth0.ndisc_notify',
      'ipv6.conf.eth0.keep_addr_on_down',
      'ipv6.conf.lo.disable_ipv6',
      'ipv6.conf.eth0.router_solicitation_delay',
      'ipv6.neigh.eth0.retrans_time_ms',
    ].map(key => pair.pod.run('sysctl', '-n', `net.${key}`).trim())
    assert.deepEqual(settings, ['1', '1', '1', '0', '1', '1000'])
    assert.match(pair.pod.ip('route show table 1001'), /10\.2\.0\.0\/16 dev eth0 scope link/)
    assert.match(pair.pod.ip('route show 10.3.0.0/16'), /^10\.3\.0\.0\/16 dev eth0\s*$/)
    assert.match(pair.pod.ip('route show 10.1.0.0/16'), /metric 7 mtu 1300 advmss 1200/)
  })

  test('neighbours learn at once that an address has moved', () => {
    using first = makePair()
    const mac = () => first.other.ip('neigh show 10.99.0.5').match(/lladdr (\S+)/)?.[1]
    first.other.ip('neigh add 10.99.0.5 lladdr 02:00:00:00:00:77 nud stale dev eth0')
    configure(first.fd, { mac: Uint8Array.of(2, 0, 0, 0, 0, 5) })
    assert.equal(mac(), '02:00:00:00:00:05')
  })

  test('an address that somebody else has is told', async () => {
    using pair = makePair()
    pair.pod.ip('link set eth0 up')
    await carried(pair)
    pair.other.ip('addr add fd00:99::5/64 dev eth0 nodad')
    configure(pair.fd)
    assert.deepEqual((await settle(pair.fd)).duplicate, [parsePrefix('fd00:99::5/64')])
  })

  test('without detection IPv6 works at once; without carrier nobody waits', async () => {
    using pair = makePair()
    configure(pair.fd, { detectDuplicates: false })
    await carried(pair)
    pair.pod.run('ping', '-c1', '-W1', 'fd00:99::1')
    using second = makePair()
    second.other.ip('link set eth0 down')
    configure(second.fd)
    const begin = performance.now()
    assert.equal((await settle(second.fd)).duplicate.length, 0)
    assert.ok(performance.now() - begin < 200)
  })

  const deviations: readonly (readonly [how: string, fault: RegExp])[] = [
    ['link set eth0 down', /eth0 in the pod is down/],
    ['link set eth0 mtu 1400', /MTU 1400, not 1500/],
    ['addr del 10.99.0.5/24 dev eth0', /address 10\.99\.0\.5\/24 is missing/],
    ['addr del fd00:99::5/64 dev eth0', /address fd00:99::5\/64 is missing/],
    ['route del 10.99.0.0/24', /route 10\.99\.0\.0\/24 dev eth0 is missing/],
    ['route del fd00:99::/64', /route fd00:99::\/64 dev eth0 is missing/],
    ['route del 10.1.0.0/16', /route 10\.1\.0\.0\/16 via 10\.99\.0\.1 dev eth0 metric 7 is missing/],
    ['route del 10.2.0.0/16 table 1001', /route 10\.2\.0\.0\/16 dev eth0 table 1001 is missing/],
    ['route replace default via 10.99.0.9', /route 0\.0\.0\.0\/0 via 10\.99\.0\.1 dev eth0 is missing/],
    ['-6 route replace default via fd00:99::9', /route ::\/0 via fd00:99::1 dev eth0 is missing/],
    ['link set eth0 name other', /link eth0 in the pod is missing/],
  ]
  for (const [how, fault] of deviations)
    test(`after "ip ${how}" the fault is told`, () => {
      using pair = makePair()
      configure(pair.fd, { detectDuplicates: false })
      assert.deepEqual(faults(pair.fd), [])
      pair.pod.ip('addr add 10.98.0.1/24 dev eth0')
      pair.pod.ip('-6 route append default via fd00:99::7 dev eth0')
      assert.deepEqual(faults(pair.fd), [], 'what others added is no fault')
      pair.pod.ip(how)
      assert.match(faults(pair.fd).join('\n'), fault)
    })
})
