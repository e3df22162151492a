// SPDX-License-Identifier: Apache-2.0

// What macvlan and ipvlan promise alike, as tests over the kind: registered by macvlan.test.ts and ipvlan.test.ts.

import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, afterEach, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { fakeIpam } from './fake-ipam.ts'
import {
  type Attachment,
  assertSameState,
  type CallOptions,
  errorOf,
  folder,
  makeLab,
  makeManyNetns,
  makeNetns,
  type Netns,
  type Node,
  type Outcome,
  type RunningAgent,
  resultOf,
  run,
  skip,
  type Verb,
} from './nodelab.ts'

export type Kind = 'macvlan' | 'ipvlan'
export const RELEASED = { code: 0, stdout: '' }
export const silent = ({ code, stdout }: Outcome) => ({ code, stdout })
const versions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']
let containers = 0

/** Why tests of the kind cannot run here; false where they can. */
export function skipWithout(kind: Kind): string | false {
  if (skip) return skip
  try {
    run('unshare', [
      '-n',
      'sh',
      '-c',
      `ip link add name p type veth peer name q && ip link add link p name c type ${kind}`,
    ])
    return false
  } catch {
    return `this kernel has no ${kind}: see lab/vmlab`
  }
}

/** A node with a kind's plugin, and what its tests do all the time. */
export type ChildLab = {
  readonly node: Node
  readonly router: Netns
  /** A configuration with host-local; keys with the value undefined are left out. */
  config(more?: object): Record<string, unknown>
  /** A new container. */
  newPod(more?: Partial<Attachment>): { pod: Netns; it: Attachment }
  call(verb: Verb, it: Attachment, more?: object, options?: CallOptions): Promise<Outcome>
  /** ADD that has to succeed, and CHECK of it. @returns the result */
  // biome-ignore lint/suspicious/noExplicitAny: the shape of a result is what the tests look at
  add(it: Attachment, more?: object, options?: CallOptions): Promise<any>
  del(it: Attachment, more?: object): Promise<void>
  assertNothingLeft(when?: string): void
}

export const v4 = [
  { subnet: '10.10.10.0/24', rangeStart: '10.10.10.19', rangeEnd: '10.10.10.199', gateway: '10.10.10.1' },
]
export const v6 = [{ subnet: 'fd00:10::/64', rangeStart: 'fd00:10::19', gateway: 'fd00:10::1' }]
export const dualStack = (node: Node) => ({
  type: 'host-local',
  dataDir: node.leases,
  ranges: [v4, v6],
  routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
})

/** Keys in place of those that the configuration has; undefined takes one away. */
const withoutUndefined = (keys: object) =>
  Object.fromEntries(Object.entries(keys).filter(([, value]) => value !== undefined))

export function childLab(
  kind: Kind,
  mode: Node['mode'],
): ChildLab & { start(): Promise<void>; stop(): Promise<void>; agent(): RunningAgent } {
  let lab: { node: Node; router: Netns; kept: string[]; agent: RunningAgent | undefined }
  const config = (more: object = {}) =>
    withoutUndefined({ ...lab.node.config(), type: kind, cniVersion: '1.1.0', ...more })
  const call: ChildLab['call'] = (verb, it, more = {}, options = {}) =>
    lab.node.call(verb, { ...it, type: kind, config: config(more) }, options)
  const assertNothingLeft = (when?: string) => assertSameState(lab.node.state(), lab.kept, when)
  return {
    get node() {
      return lab.node
    },
    get router() {
      return lab.router
    },
    agent: () => lab.agent!,
    async start() {
      const { router, nodes } = makeLab({ mode })
      const node = nodes[0]!
      lab = { node, router, kept: [], agent: mode === 'agent' ? await node.startAgent() : undefined }
      lab.kept = node.state()
    },
    stop: async () => lab.agent?.[Symbol.asyncDispose](),
    config,
    call,
    newPod(more = {}) {
      const pod = makeNetns('pod')
      return { pod, it: { containerId: `c${containers++}`, netns: pod.path, ...more } }
    },
    async add(it, more = {}, options) {
      const result = resultOf(await call('ADD', it, more, options))
      const { cniVersion = '0.1.0' } = config(more) as { cniVersion?: string }
      if (cniVersion >= '0.4')
        assert.deepEqual(silent(await call('CHECK', it, { ...more, prevResult: result }, options)), RELEASED)
      return result
    },
    async del(it, more) {
      assert.deepEqual(silent(await call('DEL', it, more)), RELEASED)
    },
    assertNothingLeft,
  }
}

/** The tests in one process per call: few, for each costs a second. */
export function childTestsStandalone(kind: Kind): void {
  const skipped = skipWithout(kind)
  describe(`${kind}, standalone`, { skip: skipped }, () => {
    const lab = childLab(kind, 'standalone')
    before(() => lab.start())
    after(() => lab.stop())

    test('ADD, CHECK and DEL leave nothing; so do a name that is taken and a namespace that is gone (IPV-08, MAC-10)', async () => {
      const { pod, it } = lab.newPod()
      const { ips } = await lab.add(it)
      pod.run('ping', '-c1', '-W2', '10.10.10.1')
      assert.equal(errorOf(await lab.call('ADD', it)).code, 104)
      assert.match(pod.ip('-o -4 addr show eth0'), new RegExp(` ${ips[0].address} `))
      assert.deepEqual(silent(await lab.call('DEL', { ...it, netns: '/run/netns/none' })), RELEASED)
      lab.assertNothingLeft()
    })
  })
}

/** The tests through an agent. */
export function childTests(kind: Kind): void {
  describe(`${kind}, agent`, { skip: skipWithout(kind) }, () => {
    const lab = childLab(kind, 'agent')
    const { newPod, add, del, call, assertNothingLeft } = lab
    /** What is the same code for every kind: under the kernel of lab/vmlab each second is twenty. */
    const testOnce = kind === 'macvlan' ? test : () => undefined
    before(() => lab.start())
    after(() => lab.stop())
    const made: Attachment[] = []
    const pod = (more?: Partial<Attachment>) => {
      const both = newPod(more)
      made.push(both.it)
      return both
    }
    // So that a test that failed does not make the next ones fail.
    afterEach(async context => {
      for (const it of made.splice(0)) if (!('passed' in context && context.passed)) await call('DEL', it)
    })

    test('ADD: the link is there under its name, up, with address and route; packets pass (COM-01, COM-03, COM-04, MAC-08, IPV-07, RES-14, RES-15, RES-16)', async () => {
      const { pod: netns, it } = pod()
      const before = stateOfLinks(lab.node)
      const result = await add(it)
      netns.run('ping', '-c1', '-W2', '10.10.10.1')
      const [shown] = JSON.parse(netns.ip('-d -j link show eth0'))
      assert.equal(shown.linkinfo.info_kind, kind)
      assert.ok(shown.flags.includes('UP') && shown.flags.includes('LOWER_UP'))
      assert.equal(shown.ifalias, `mooring ${kind} podnet ${it.containerId} eth0`)
      assert.deepEqual(result.interfaces, [{ name: 'eth0', mac: shown.address, mtu: 1500, sandbox: it.netns }])
      assert.deepEqual(result.routes, [{ dst: '0.0.0.0/0', gw: '10.10.10.1' }])
      assert.deepEqual([result.ips.length, result.ips[0].interface, result.ips[0].gateway], [1, 0, '10.10.10.1'])
      assert.match(netns.ip('-o -4 addr show eth0'), new RegExp(` inet ${result.ips[0].address} `))
      assert.equal(netns.ip('route show default').trim(), 'default via 10.10.10.1 dev eth0')
      assert.deepEqual(stateOfLinks(lab.node), before, 'the node has no link more, and its own is as it was (COM-15)')
      await del(it)
      assert.doesNotMatch(netns.ip('-o link'), /eth0/)
      assertNothingLeft()
    })

    test('ADD: both families work at once, and alone (COM-08, COM-09, COM-12, COM-13)', async () => {
      for (const [ranges, routes] of [
        [
          [v4, v6],
          [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
        ],
        [[v6], [{ dst: '::/0' }]],
      ]) {
        const { pod: netns, it } = pod()
        netns.run('sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.default.disable_ipv6=1')
        const more = { ipam: { ...dualStack(lab.node), ranges, routes } }
        const result = await add(it, more)
        assert.doesNotMatch(netns.ip('-6 -o addr show eth0 scope global'), /tentative|dadfailed/)
        netns.run('ping', '-c1', '-W2', 'fd00:10::1')
        assert.equal(result.ips.length, ranges!.length)
        const keys = ['ipv4.conf.eth0.arp_notify', 'ipv6.conf.eth0.ndisc_notify', 'ipv6.conf.eth0.keep_addr_on_down']
        for (const key of keys) assert.equal(netns.run('sysctl', '-n', `net.${key}`), '1\n', key)
        await del(it, more)
      }
      rmSync(lab.node.leases, { recursive: true })
      assertNothingLeft()
    })

    test('ADD: the neighbours learn at once who has the address now (COM-12)', async () => {
      const { it } = pod()
      const fake = fakeIpam({ ips: [{ address: '10.10.10.60/24' }, { address: 'fd00:10::60/64' }] })
      for (const ip of ['10.10.10.60', 'fd00:10::60'])
        lab.router.ip(`neigh replace ${ip} lladdr 02:00:00:00:00:77 nud stale dev br0`)
      const { interfaces } = await add(it, fake.more, fake.options)
      for (const ip of ['10.10.10.60', 'fd00:10::60'])
        assert.match(lab.router.ip(`neigh show ${ip}`), new RegExp(`lladdr ${interfaces[0].mac}`), ip)
      resultOf(await call('DEL', it, fake.more, fake.options))
    })

    test('ADD: routes keep all that the IPAM plugin says of them, and a gateway alone makes none (COM-05, COM-06, COM-07, RES-05)', async () => {
      const { pod: netns, it } = pod()
      const routes = [
        { dst: '10.1.0.0/16', gw: '10.10.10.254', priority: 7 },
        { dst: '10.2.0.0/16', table: 1001, mtu: 1300, advmss: 1200 },
        { dst: '10.3.0.0/16', scope: 0 },
      ]
      const fake = fakeIpam({ ips: [{ address: '10.10.10.77/24', gateway: '10.10.10.1' }], routes })
      const result = await add(it, fake.more, fake.options)
      assert.deepEqual(result.routes, [
        routes[0],
        { dst: '10.2.0.0/16', gw: '10.10.10.1', table: 1001, mtu: 1300, advmss: 1200 },
        { dst: '10.3.0.0/16', gw: '10.10.10.1', scope: 0 },
      ])
      assert.match(netns.ip('route show 10.1.0.0/16'), /via 10\.10\.10\.254 dev eth0 metric 7/)
      assert.match(
        netns.ip('route show table 1001'),
        /^10\.2\.0\.0\/16 via 10\.10\.10\.1 dev eth0 mtu 1300 advmss 1200/,
      )
      assert.equal(netns.ip('route show default'), '')
      resultOf(await call('DEL', it, fake.more, fake.options))
      assert.deepEqual(fake.calls(), ['ADD', 'CHECK', 'DEL'])
      assertNothingLeft()
    })

    testOnce(
      'ADD: answers in all seven versions, without one as 0.1.0 (RES-01, RES-02, RES-03, RES-12, VER-04)',
      async () => {
        for (const cniVersion of [...versions, undefined]) {
          const { it } = pod()
          const result = await add(it, { cniVersion })
          if ((cniVersion ?? '0.1.0') < '0.3') {
            const { ip, ...rest } = result.ip4
            assert.match(ip, /^10\.10\.10\.\d+\/24$/)
            assert.deepEqual(rest, { gateway: '10.10.10.1', routes: [{ dst: '0.0.0.0/0', gw: '10.10.10.1' }] })
            assert.deepEqual([result.dns, 'interfaces' in result], [{}, false])
          } else {
            assert.equal(result.ips[0].version, cniVersion! < '1' ? '4' : undefined)
            assert.equal(result.interfaces.length, 1)
          }
          await del(it, { cniVersion })
        }
        assertNothingLeft()
      },
    )

    testOnce("ADD: dns is the configuration's alone (COM-17)", async () => {
      const { it } = pod()
      const fake = fakeIpam({ ips: [{ address: '10.10.10.77/24' }], dns: { nameservers: ['10.0.0.53'] } })
      assert.equal('dns' in (await add(it, fake.more, fake.options)), false)
      resultOf(await call('DEL', it, fake.more, fake.options))
      const own = { nameservers: ['1.1.1.1'], search: ['a.example'] }
      assert.deepEqual((await add(it, { ...fake.more, dns: own }, fake.options)).dns, own)
      resultOf(await call('DEL', it, fake.more, fake.options))
    })

    testOnce('ADD: "mtu" is the link\'s; what the master cannot carry is error 7 (MAC-03, IPV-04)', async () => {
      const { pod: netns, it } = pod()
      const { interfaces } = await add(it, { mtu: 1400 })
      assert.deepEqual([interfaces[0].mtu, JSON.parse(netns.ip('-j link show eth0'))[0].mtu], [1400, 1400])
      await del(it)
      for (const mtu of [-1, 1501]) {
        const error = errorOf(await call('ADD', it, { mtu }))
        assert.deepEqual([error.code, error.msg], [7, `invalid MTU ${mtu}, must be [0, master MTU(1500)]`])
      }
      assertNothingLeft()
    })

    const refusals: readonly (readonly [what: string, more: object, code: number, msg: RegExp])[] = [
      [
        'a master that is not there (IPV-02)',
        { master: 'none' },
        7,
        /^failed to lookup master "none": Link not found$/,
      ],
      ['a mode that there is not (IPV-03, MAC-02)', { mode: 'x' }, 7, new RegExp(`^unknown ${kind} mode: "x"$`)],
      ['a master of another type than text (ENV-27)', { master: 1 }, 7, /"master" is a number, want a string/],
    ]
    for (const [what, more, code, msg] of refusals)
      testOnce(`ADD: refuses ${what}`, async () => {
        const { it } = pod()
        const error = errorOf(await call('ADD', it, more))
        assert.equal(error.code, code, error.msg)
        assert.match(error.msg, msg)
        assertNothingLeft()
      })

    testOnce('ADD: the master is that of the default route, and without one that is error 7 (IPV-01)', async () => {
      const { it } = pod()
      await add(it, { master: undefined })
      await del(it)
      const routes = ['-4', '-6'].map(family => [family, lab.node.ip(`${family} route show default`).trim()] as const)
      for (const [family, route] of routes) lab.node.ip(`${family} route del ${route}`)
      try {
        const error = errorOf(await call('ADD', it))
        assert.deepEqual([error.code, error.msg], [7, 'no default route interface found'])
        assert.equal(errorOf(await call('STATUS', { containerId: '', netns: '' })).code, 50)
      } finally {
        for (const [family, route] of routes) lab.node.ip(`${family} route add ${route.replace(' pref medium', '')}`)
      }
      assertNothingLeft()
    })

    test('ADD and CHECK: an alternative name of the master is as good as its own, also a long one', async () => {
      const { node } = lab
      const master = `enx-of-the-segment-${kind}`
      node.ip(`link property add dev eth0 altname ${master}`)
      const { it } = lab.newPod()
      await lab.add(it, { master })
      await lab.del(it, { master })
      node.ip(`link property del dev eth0 altname ${master}`)
      lab.assertNothingLeft()
    })

    test('ADD: an interface of that name stays, and the address goes back (COM-02)', async () => {
      const { pod: netns, it } = pod()
      for (const foreign of ['type bridge', `link eth9 type ${kind}`]) {
        netns.ip('link add eth9 type veth peer name eth8')
        netns.ip(`link add name eth0 ${foreign}`.replace(/name eth0 link eth9/, 'link eth9 name eth0'))
        const was = netns.ip('-o link')
        const error = errorOf(await call('ADD', it))
        assert.deepEqual(
          [error.code, error.msg],
          [104, 'Cannot attach eth0: the container has an interface of that name'],
        )
        await del(it)
        assert.equal(netns.ip('-o link'), was)
        netns.ip('link del eth0')
        netns.ip('link del eth9')
      }
      assertNothingLeft()
    })

    test('ADD: twice is an error, and the first attachment stays as it is (COM-18)', async () => {
      const { pod: netns, it } = pod()
      const prevResult = await add(it)
      const was = lab.node.state(netns)
      assert.equal(errorOf(await call('ADD', it)).code, 104)
      assertSameState(lab.node.state(netns), was)
      assert.deepEqual(silent(await call('CHECK', it, { prevResult })), RELEASED)
      await del(it)
      assertNothingLeft()
    })

    test('ADD: what one that was killed left in the same namespace is removed first', async () => {
      const { it } = pod()
      await add(it)
      const db = new DatabaseSync(join(lab.node.dataDir, 'journal.db'))
      db.exec(`PRAGMA busy_timeout = 5000; UPDATE attachment SET state = 'adding'`)
      db.close()
      await add(it)
      await del(it)
      assertNothingLeft()
    })

    testOnce('ADD: a namespace that is none, and the node itself, are error 8 (COM-14, ENV-19, ENV-21)', async () => {
      for (const netns of ['/run/netns/none', fileAt(), lab.node.path])
        assert.equal(errorOf(await call('ADD', { containerId: 'c', netns })).code, 8)
      assertNothingLeft()
    })

    test('ADD: a route that the kernel refuses leaves neither link nor address (MAC-11, IPV-10)', async () => {
      const { pod: netns, it } = pod()
      const ipam = { ...dualStack(lab.node), routes: [{ dst: '10.7.0.0/16', gw: '172.31.0.1' }] }
      const error = errorOf(await call('ADD', it, { ipam }))
      assert.match(error.msg, /^Cannot add route 10\.7\.0\.0\/16 via 172\.31\.0\.1 .*(unreachable|invalid gateway)/i)
      assert.doesNotMatch(netns.ip('-o link'), /eth0/)
      assertNothingLeft()
    })

    testOnce(
      'ADD: an IPAM plugin that fails, gives nothing or cannot write leaves nothing (ERR-16, MAC-11)',
      async () => {
        const { pod: netns, it } = pod()
        const failing = fakeIpam(undefined)
        const error = errorOf(await call('ADD', it, failing.more, failing.options))
        assert.deepEqual([error.code, error.msg], [11, 'no'])
        const empty = fakeIpam({})
        assert.equal(
          errorOf(await call('ADD', it, empty.more, empty.options)).msg,
          'IPAM plugin returned missing IP config',
        )
        assert.deepEqual(empty.calls(), ['ADD', 'DEL'])
        errorOf(await call('ADD', it, { ipam: { ...dualStack(lab.node), dataDir: '/proc/nowhere' } }))
        assert.doesNotMatch(netns.ip('-o link'), /eth0/)
        assertNothingLeft()
      },
    )

    test('ADD: an IPv6 address that somebody else has is error 102 (COM-11)', async () => {
      const { pod: netns, it } = pod()
      lab.router.ip('addr add fd00:10::66/64 dev br0 nodad')
      const fake = fakeIpam({ ips: [{ address: '10.10.10.66/24' }, { address: 'fd00:10::66/64' }] })
      const error = errorOf(await call('ADD', it, fake.more, fake.options))
      assert.deepEqual(
        [error.code, error.msg],
        [102, 'Cannot attach eth0: somebody else on the segment has fd00:10::66/64'],
      )
      lab.router.ip('addr del fd00:10::66/64 dev br0')
      assert.deepEqual(fake.calls(), ['ADD', 'DEL'])
      assert.doesNotMatch(netns.ip('-o link'), /eth0/)
      assertNothingLeft()
    })

    testOnce('ADD: a master without carrier costs no time (COM-10)', async () => {
      const { it, pod: own } = pod()
      lab.node.ip('link add quiet type veth peer name quietp')
      lab.node.ip('link set quiet up')
      const begin = performance.now()
      await add(it, { master: 'quiet', ipam: dualStack(lab.node) })
      assert.ok(performance.now() - begin < 1_000)
      assert.equal(own.run('sysctl', '-n', 'net.ipv6.neigh.eth0.retrans_time_ms').trim(), '1000', "the kernel's own")
      await del(it)
      lab.node.ip('link del quiet')
      rmSync(lab.node.leases, { recursive: true })
      assertNothingLeft()
    })

    test('linkInContainer: the master is in the container (IPV-05, MAC-06)', async () => {
      const { pod: netns, it } = pod()
      netns.ip('link add under0 type veth peer name under1')
      netns.ip('link set under0 up')
      netns.ip('link set under1 up')
      const more = { linkInContainer: true, master: 'under0' }
      const missing = errorOf(await call('ADD', it, { ...more, master: 'none' }))
      assert.equal(missing.msg, 'failed to lookup master "none": Link not found')
      const result = await add(it, more)
      assert.match(netns.ip('-o link'), /eth0@under0/)
      assert.equal(
        errorOf(await call('CHECK', it, { ...more, linkInContainer: false, master: 'eth0', prevResult: result })).code,
        103,
      )
      await del(it, more)
      assert.doesNotMatch(netns.ip('-o link'), /eth0/)
      // That of the default route there.
      netns.ip('addr add 10.10.10.250/24 dev under0')
      netns.ip('route add default via 10.10.10.1')
      const noRoutes = { linkInContainer: true, ipam: { ...dualStack(lab.node), ranges: [v4], routes: [] } }
      await add(it, noRoutes)
      await del(it, noRoutes)
      assertNothingLeft()
    })

    testOnce('64 ADDs at once give as many addresses, 64 DELs leave nothing', async t => {
      const all = makeManyNetns('many', 64).map((netns, index) => ({ containerId: `m${index}`, netns }))
      const begin = performance.now()
      const results = (await Promise.all(all.map(it => call('ADD', it)))).map(resultOf)
      const added = performance.now()
      assert.equal(new Set(results.map(({ ips }) => ips[0].address)).size, all.length)
      for (const index of [0, 31, 63])
        assert.deepEqual(silent(await call('CHECK', all[index]!, { prevResult: results[index] })), RELEASED)
      const ended = performance.now()
      for (const outcome of await Promise.all(all.map(it => call('DEL', it)))) resultOf(outcome)
      t.diagnostic(`ADDs ${Math.round(added - begin)} ms, DELs ${Math.round(performance.now() - ended)} ms`)
      for (const { netns } of all)
        assert.doesNotMatch(run('nsenter', [`--net=${netns}`, 'ip', '-o', 'link']), /eth0/, netns)
      assertNothingLeft()
    })

    // DEL

    testOnce('DEL: twice, and before any ADD (DEL-01, DEL-02, MAC-10)', async () => {
      const { it } = pod()
      await del(it)
      await add(it)
      await del(it)
      await del(it)
      assertNothingLeft()
    })

    for (const [what, netns] of [
      ['an empty CNI_NETNS (DEL-03)', () => ''],
      ['a path that is gone (DEL-04)', () => '/run/netns/none'],
      ['a plain file where the namespace was (DEL-05)', () => fileAt()],
    ] as const)
      testOnce(`DEL: releases the address with ${what}`, async () => {
        const { pod: netnsOfPod, it } = pod()
        await add(it)
        netnsOfPod.remove()
        await del({ ...it, netns: netns() })
        assertNothingLeft()
      })

    testOnce('DEL: takes the link from a container that lives on, too, when CNI_NETNS is empty (DEL-03)', async () => {
      const { pod: netns, it } = pod()
      await add(it)
      await del({ ...it, netns: '' })
      assert.doesNotMatch(netns.ip('-o link'), /eth0/)
      assertNothingLeft()
    })

    testOnce('DEL: needs neither master nor default route nor a valid configuration (DEL-06, DEL-08)', async () => {
      const { pod: netns, it } = pod()
      for (const more of [{ master: 'none' }, { mode: 'x', mtu: 'wrong' }]) {
        await add(it)
        await del(it, more)
        assert.doesNotMatch(netns.ip('-o link'), /eth0/)
      }
      lab.node.ip('link add other type veth peer name otherp')
      await add(it, { master: 'other' })
      lab.node.ip('link del other')
      await del(it, { master: 'other' })
      assertNothingLeft()
    })

    testOnce('DEL: a new namespace at the same path keeps its own interface of that name (DEL-10)', async () => {
      const { pod: netns, it } = pod()
      await add(it)
      netns.remove()
      run('ip', ['netns', 'add', netns.name])
      netns.ip('link add name eth9 type veth peer name eth8')
      netns.ip(`link add link eth9 name eth0 type ${kind}`)
      await del(it)
      assert.match(netns.ip('-o link'), /eth0/)
      netns.remove()
      assertNothingLeft()
    })

    testOnce('DEL: of one interface leaves the other (DEL-11)', async () => {
      const { pod: netns, it } = pod()
      const other = { ...it, ifName: 'net1' }
      await add(it)
      const noRoutes = { ipam: { ...dualStack(lab.node), ranges: [v4], routes: [] } }
      const prevResult = await add(other, noRoutes)
      await del(it)
      assert.doesNotMatch(netns.ip('-o link'), /eth0/)
      assert.deepEqual(silent(await call('CHECK', other, { ...noRoutes, prevResult })), RELEASED)
      await del(other, noRoutes)
      assertNothingLeft()
    })

    test('DEL: finds the link without any record: by its alias, and what another plugin made by prevResult (IPV-08, MAC-10)', async () => {
      const { pod: netns, it } = pod()
      const prevResult = await add(it)
      forget(lab.node)
      await del(it)
      assert.doesNotMatch(netns.ip('-o link'), /eth0/)
      netns.ip('link add name eth9 type veth peer name eth8')
      netns.ip(`link add link eth9 name eth0 type ${kind}`)
      const [{ address: mac }] = JSON.parse(netns.ip('-j link show eth0'))
      await del(it, { prevResult })
      assert.match(netns.ip('-o link'), /eth0/, 'it has another MAC than the result says')
      const told = { ...prevResult, interfaces: [{ ...prevResult.interfaces[0], mac }] }
      await del(it, { prevResult: told })
      assert.doesNotMatch(netns.ip('-o link'), /eth0/)
      assertNothingLeft()
    })

    testOnce('DEL: a failing IPAM plugin does not keep the link, and its error is told (DEL-09)', async () => {
      const { pod: netns, it } = pod()
      const fake = fakeIpam({ ips: [{ address: '10.10.10.77/24' }] }, 'DEL')
      await add(it, fake.more, fake.options)
      assert.equal(errorOf(await call('DEL', it, fake.more, fake.options)).code, 11)
      assert.doesNotMatch(netns.ip('-o link'), /eth0/)
      fake.repair()
      resultOf(await call('DEL', it, fake.more, fake.options))
      assertNothingLeft()
    })

    // CHECK

    testOnce(
      'CHECK: needs prevResult, finds another sandbox, changes nothing (CHK-01, CHK-02, CHK-03, CHK-08)',
      async () => {
        const { pod: netns, it } = pod()
        const prevResult = await add(it)
        const was = lab.node.state(netns)
        assert.equal(errorOf(await call('CHECK', it)).msg, 'Required prevResult missing')
        const elsewhere = { ...prevResult, interfaces: [{ ...prevResult.interfaces[0], sandbox: '/run/netns/other' }] }
        assert.match(
          errorOf(await call('CHECK', it, { prevResult: elsewhere })).msg,
          /^Sandbox in prevResult \/run\/netns\/other doesn't match configured netns/,
        )
        assertSameState(lab.node.state(netns), was)
        await del(it)
      },
    )

    const damages: readonly (readonly [what: string, how: string, fault: RegExp])[] = [
      ['it is gone (CHK-04)', 'link del eth0', /link eth0 in the pod is missing/],
      ['it is down (CHK-12)', 'link set eth0 down', /link eth0 in the pod is down/],
      ['its address is gone (CHK-05)', 'addr flush dev eth0', /address 10\.10\.10\.\d+\/24 is missing on eth0/],
      ['its route is gone (CHK-06)', 'route del default', /route 0\.0\.0\.0\/0 via 10\.10\.10\.1 dev eth0 is missing/],
      ['its subnet has no route (CHK-06)', 'route del 10.10.10.0/24', /route 10\.10\.10\.0\/24 dev eth0 is missing/],
      [
        'its default route leads elsewhere (CHK-11)',
        'route replace default via 10.10.10.9',
        /route 0\.0\.0\.0\/0 via 10\.10\.10\.1 dev eth0 is missing/,
      ],
      ['its MTU is another', 'link set eth0 mtu 1400', /link eth0 in the pod has MTU 1400, not 1500/],
      [
        'its alias is another',
        'link set eth0 alias other',
        /link eth0 in the pod is not of this attachment: .*"other"/,
      ],
    ]
    for (const [what, how, fault] of damages)
      testOnce(`CHECK: finds that ${what}`, async () => {
        const { pod: netns, it } = pod()
        const prevResult = await add(it)
        netns.ip('addr add 10.77.0.1/24 dev eth0')
        netns.ip('route add 10.78.0.0/16 via 10.77.0.2')
        assert.deepEqual(
          silent(await call('CHECK', it, { prevResult })),
          RELEASED,
          'what others add is no fault (CHK-09)',
        )
        netns.ip(how)
        const error = errorOf(await call('CHECK', it, { prevResult }))
        assert.equal(error.code, 103)
        assert.match(`${error.msg}; ${error.details ?? ''}`, fault)
        await del(it)
        assertNothingLeft()
      })

    test('CHECK: finds another MTU also where the result of an old version does not tell of any', async () => {
      const { pod: netns, it } = pod()
      const more = { cniVersion: '0.4.0' }
      const prevResult = await add(it, more)
      assert.ok(!('mtu' in prevResult.interfaces[0]))
      netns.ip('link set eth0 mtu 1400')
      assert.match(
        errorOf(await call('CHECK', it, { ...more, prevResult })).msg,
        /link eth0 in the pod has MTU 1400, not 1500$/,
      )
      await del(it, more)
      assertNothingLeft()
    })

    test('CHECK: finds a link of another kind, and one on another master (MAC-09, IPV-09)', async () => {
      const { pod: netns, it } = pod()
      const prevResult = await add(it, { master: 'eth0' })
      const faults = async (more: object) => {
        const error = errorOf(await call('CHECK', it, { master: 'eth0', prevResult, ...more }))
        return `${error.msg}; ${error.details ?? ''}`
      }
      assert.match(await faults({ master: 'lo' }), /eth0 is on another master than lo/)
      assert.match(await faults({ master: 'none' }), /master none of eth0 is missing/)
      netns.ip('link del eth0')
      netns.ip('link add name eth0 type bridge')
      assert.match(await faults({}), new RegExp(`link eth0 in the pod is no ${kind} but bridge`))
      netns.ip('link del eth0')
      await del(it)
      assertNothingLeft()
    })

    testOnce('CHECK: hands on what the IPAM plugin finds (CHK-10)', async () => {
      const { it } = pod()
      const prevResult = await add(it)
      rmSync(join(lab.node.leases, 'podnet', prevResult.ips[0].address.split('/')[0]))
      assert.match(errorOf(await call('CHECK', it, { prevResult })).msg, /^host-local: Failed to find address/)
      await del(it)
      assertNothingLeft()
    })

    // STATUS and GC

    const nobody: Attachment = { containerId: '', netns: '', ifName: '' }
    test('STATUS: nothing where all is well, 50 where the master is missing; it asks the IPAM plugin (STA-01, STA-02, STA-03, STA-06)', async () => {
      const was = lab.node.state()
      assert.deepEqual(silent(await call('STATUS', nobody)), RELEASED)
      const missing = errorOf(await call('STATUS', nobody, { master: 'none' }))
      assert.deepEqual([missing.code, missing.msg], [50, 'failed to lookup master "none": Link not found'])
      const fake = fakeIpam({})
      await call('STATUS', nobody, fake.more, fake.options)
      assert.deepEqual(fake.calls(), ['STATUS'])
      assertSameState(lab.node.state(), was)
    })

    test('GC: frees what is not in the list, link and address, and nothing without a list (GC-02, GC-04, GC-06, GC-07)', async () => {
      const both = [pod(), pod()]
      for (const { it } of both) await add(it)
      await pause(150)
      const linksOf = () => both.map(({ pod: netns }) => /eth0/.test(netns.ip('-o link')))
      await call('GC', nobody)
      assert.deepEqual(linksOf(), [true, true])
      const valid = [{ containerID: both[0]!.it.containerId, ifname: 'eth0' }]
      for (const _ of [1, 2])
        assert.deepEqual(silent(await call('GC', nobody, { 'cni.dev/valid-attachments': valid })), RELEASED)
      assert.deepEqual(linksOf(), [true, false])
      await del(both[0]!.it)
      assertNothingLeft()
    })
  })
}

/** What stays of veth-host on a node is for good, so this has a node of its own. */
export function childChainTests(kind: Kind): void {
  describe(`${kind} and a second NIC`, { skip: skipWithout(kind) }, () => {
    const lab = childLab(kind, 'agent')
    before(() => lab.start())
    after(() => lab.stop())

    test('chained with veth-host: the segment by this link, node and services by the second one, CHECK of both (CHN-02)', async () => {
      const { pod: netns, it } = lab.newPod()
      const second = {
        ...{ cniVersion: '1.1.0', name: 'podnet', type: 'veth-host', hostInterface: 'eth0' },
        ...{ containerInterface: 'veth0', serviceCidr: '10.96.0.0/12' },
      }
      const callSecond = (verb: Verb, more: object) =>
        lab.node.call(verb, { ...it, type: 'veth-host', config: { ...second, ...more } })
      for (const mode of kind === 'ipvlan' ? ['l2', 'l3'] : ['bridge']) {
        const first = await lab.add(it, { mode })
        const prevResult = resultOf(await callSecond('ADD', { prevResult: first }))
        const [ip] = prevResult.ips[0].address.split('/')
        lab.router.run('ping', '-c1', '-W2', ip)
        netns.run('ping', '-c1', '-W2', '10.10.10.8')
        lab.node.run('ping', '-c1', '-W2', ip)
        assert.deepEqual(silent(await lab.call('CHECK', it, { mode, prevResult })), RELEASED)
        assert.deepEqual(silent(await callSecond('CHECK', { prevResult })), RELEASED)
        assert.deepEqual(silent(await callSecond('DEL', { prevResult })), RELEASED)
        await lab.del(it, { mode, prevResult })
        assert.equal(netns.ip('-o link').trim().split('\n').length, 1)
      }
    })
  })
}

const stateOfLinks = (netns: Netns): string => netns.ip('-o link show')

export function fileAt(): string {
  const file = join(folder('files'), 'file')
  writeFileSync(file, '')
  return file
}

/** Takes the records away, as if the journal had been lost. */
export function forget({ dataDir }: Node): void {
  const db = new DatabaseSync(join(dataDir, 'journal.db'))
  db.exec('PRAGMA busy_timeout = 5000; DELETE FROM attachment')
  db.close()
}
