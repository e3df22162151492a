// SPDX-License-Identifier: Apache-2.0

// What macvlan and ipvlan promise alike: ADD, and what is left where it fails.

import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { fileAt } from '../dels.ts'
import { fakeIpam } from '../fake-ipam.ts'
import { assertSameState, errorOf, makeManyNetns, resultOf, run } from '../nodelab.ts'
import { type ChildSuite, dualStack, RELEASED, silent, stateOfLinks, v4, v6 } from './lab.ts'

const versions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']

/** Registers them, for a suite that has started its node. */
export function addTests({ kind, lab, pod, testOnce }: ChildSuite): void {
  const { add, del, call, assertNothingLeft } = lab
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
    assert.match(netns.ip('route show table 1001'), /^10\.2\.0\.0\/16 via 10\.10\.10\.1 dev eth0 mtu 1300 advmss 1200/)
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
    ['a master that is not there (IPV-02)', { master: 'none' }, 7, /^failed to lookup master "none": Link not found$/],
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
}
