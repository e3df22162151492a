// SPDX-License-Identifier: Apache-2.0
// Result formats and their conversion: items RES of the conformance list, on veth-route with a fake IPAM plugin.
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import {
  assertSilent,
  Bench,
  errorOf,
  folder,
  leftovers,
  missing,
  plugin,
  pod,
  print,
  resultOf,
  routedPod,
  run,
} from './harness.ts'

const versions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']

/** The result of an ADD for which the IPAM plugin answers this. */
async function added(answer: object | null, more: object = {}) {
  const attachment = routedPod({ ADD: print(answer) }, more)
  const outcome = await attachment.call('ADD')
  return { ...attachment, outcome, result: resultOf(outcome) }
}

const v4 = { address: '10.67.0.2/24', gateway: '10.67.0.1' }
const v6 = { address: 'fd67::2/64', gateway: 'fd67::1' }
const several = {
  cniVersion: '1.1.0',
  ips: [v4, v6, { address: '10.67.0.3/24' }, { address: 'fd67::3/64' }],
  routes: [{ dst: '192.168.5.0/24' }, { dst: 'fd68::/64' }],
}

suite('RES results', { skip: missing, concurrency: 2 }, () => {
  for (const version of ['0.1.0', '0.2.0'])
    test(`RES-01 RES-08 ${version} has one address per family, routes by family, no lists`, async () => {
      const { result } = await added(several, { cniVersion: version })
      assert.deepEqual(Object.keys(result), ['cniVersion', 'ip4', 'ip6', 'dns'])
      assert.equal(result.cniVersion, version)
      assert.deepEqual([result.ip4.ip, result.ip6.ip], [v4.address, v6.address])
      assert.deepEqual([result.ip4.routes[0].dst, result.ip6.routes[0].dst], ['192.168.5.0/24', 'fd68::/64'])
      for (const half of [result.ip4, result.ip6])
        for (const route of half.routes) assert.ok(Object.keys(route).every(key => ['dst', 'gw'].includes(key)))
    })

  for (const version of ['0.3.0', '0.3.1', '0.4.0'])
    test(`RES-02 RES-07 ${version} has lists, "version" as text, and no keys of newer interfaces`, async () => {
      const { result } = await added(several, { cniVersion: version })
      assert.equal(result.cniVersion, version)
      assert.deepEqual(
        result.ips.map((each: { version: unknown }) => each.version),
        ['4', '6', '4', '6'],
      )
      for (const each of result.interfaces)
        assert.ok(
          Object.keys(each).every(key => ['name', 'mac', 'sandbox'].includes(key)),
          JSON.stringify(each),
        )
    })

  test('RES-03 from 1.0.0 on ips have no version', async () => {
    for (const version of ['1.0.0', '1.1.0']) {
      const { result } = await added(several, { cniVersion: version })
      for (const each of result.ips) assert.equal('version' in each, false)
    }
  })

  test('RES-04 an empty dns is printed up to 0.4.0', async () => {
    const ipam = { type: 'host-local', subnet: '10.68.0.0/24', dataDir: folder('data') }
    for (const cniVersion of versions) {
      const env = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: `c${cniVersion}`, CNI_IFNAME: 'eth0', CNI_NETNS: pod() }
      const result = resultOf(await plugin('host-local', env, { cniVersion, name: 'n', type: 'host-local', ipam }))
      assert.equal('dns' in result, cniVersion < '1.0.0', cniVersion)
    }
  })

  test('RES-05 route options of the IPAM plugin survive', async () => {
    const routes = [
      { dst: '192.168.6.0/24', mtu: 1400, advmss: 1360, priority: 7, table: 0 },
      { dst: '192.168.7.0/24', table: 77 },
    ]
    const { result } = await added({ ips: [v4], routes })
    assert.deepEqual(
      result.routes.slice(0, 2).map(({ gw: _, ...route }: { gw?: string }) => route),
      [
        { advmss: 1360, dst: '192.168.6.0/24', mtu: 1400, priority: 7, table: 0 },
        { dst: '192.168.7.0/24', table: 77 },
      ],
    )
  })

  for (const version of ['0.4.0', '1.0.0', '1.1.0'])
    test(`RES-06 RES-07 RES-11 table 0 and scope 0 survive in a chain of ${version}, other zeros are nothing`, async () => {
      const bench = new Bench().list('n', version, ['a', 'b'])
      const route = { dst: '192.168.6.0/24', mtu: 0, advmss: 1360, priority: 0, table: 0, scope: 0 }
      bench.fakes.add('a', { ADD: print({ cniVersion: version, routes: [route] }) }).add('b')
      resultOf(await bench.cnitool(['add', 'n', '/run/netns/none']))
      assert.deepEqual(JSON.parse(bench.fakes.take()[1]!.stdin).prevResult.routes, [
        { dst: '192.168.6.0/24', advmss: 1360, table: 0, scope: 0 },
      ])
    })

  test('RES-09 no address where the format needs one: an error, and no link is made', async () => {
    const { node, call } = routedPod({ ADD: print({ cniVersion: '0.2.0' }) }, { cniVersion: '0.2.0' })
    errorOf(await call('ADD'))
    assert.doesNotMatch(leftovers([node.name]), /veth/)
  })

  test('RES-10 RES-12 an IPAM plugin may answer in an older format, the result has the version of the configuration', async () => {
    const old = {
      cniVersion: '0.2.0',
      ip6: { ip: v6.address, gateway: v6.gateway },
      ip4: { ip: v4.address, gateway: v4.gateway },
    }
    const { result } = await added(old, { cniVersion: '1.0.0' })
    assert.equal(result.cniVersion, '1.0.0')
    assert.deepEqual(
      result.ips.map((each: { address: string }) => each.address),
      [v4.address, v6.address],
    )
    const middle = { cniVersion: '0.3.1', ips: [{ version: '4', ...v4 }] }
    assert.equal((await added(middle, { cniVersion: '1.0.0' })).result.ips[0].address, v4.address)
  })

  test('RES-13 an answer of the IPAM plugin without version has that of the configuration', async () => {
    assert.equal((await added({ ips: [v4] })).result.ips[0].address, v4.address)
    const { call } = routedPod({ ADD: 'echo null' })
    assert.match(errorOf(await call('ADD')).msg, /IPAM plugin returned missing IP config/)
  })

  test('RES-14 RES-15 RES-16 addresses point at the interface in the container, whose MAC is the kernel’s', async () => {
    const { result, container, node } = await added({ ips: [v4, v6] })
    for (const { interface: index } of result.ips) {
      const { name, mac, sandbox } = result.interfaces[index]
      const [link] = JSON.parse(run('ip', ['-n', container.name, '-j', 'link', 'show', 'eth0']))
      assert.deepEqual([name, mac, sandbox], ['eth0', link.address, container.path])
    }
    const host = result.interfaces.filter((each: { sandbox?: string }) => !each.sandbox)
    for (const { name, mac } of host) {
      const [link] = JSON.parse(run('ip', ['-n', node.name, '-j', 'link', 'show', name]))
      assert.equal(mac, link.address)
    }
  })

  test('RES-17 IPv6 is written canonically', async () => {
    const { result } = await added({ ips: [{ address: 'FD67:0::00A1/64', gateway: 'FD67:0:0::1' }] })
    assert.deepEqual([result.ips[0].address, result.ips[0].gateway], ['fd67::a1/64', 'fd67::1'])
  })

  test('RES-18 keys are in a stable order, four spaces, no newline at the end', async () => {
    const shape = (text: string) => text.replace(/"(mac|name|sandbox)": "[^"]*"/g, '"$1": ""')
    const [first, second] = [await added(several), await added(several)]
    assert.equal(shape(first.outcome.stdout), shape(second.outcome.stdout))
    assert.equal(first.outcome.stdout, JSON.stringify(first.result, null, 4))
    assert.deepEqual(Object.keys(first.result), Object.keys(first.result).sort())
  })

  test('RES-19 the order of addresses and routes is kept', async () => {
    const routes = ['192.168.9.0/24', '192.168.3.0/24', '192.168.7.0/24'].map(dst => ({ dst }))
    const ips = ['10.67.0.9/24', '10.67.0.3/24', '10.67.0.7/24'].map(address => ({ address, gateway: '10.67.0.1' }))
    const { result } = await added({ ips, routes })
    assert.deepEqual(
      result.ips.map((each: { address: string }) => each.address),
      ips.map(each => each.address),
    )
    assert.deepEqual(
      result.routes.map((each: { dst: string }) => each.dst),
      routes.map(each => each.dst),
    )
  })

  test('RES-20 DEL, CHECK, GC and STATUS print nothing', async () => {
    const { result, call, config } = await added({ ips: [v4] })
    assertSilent(await call('CHECK', { config: { ...JSON.parse(config), prevResult: result } }))
    assertSilent(await call('STATUS'))
    assertSilent(await call('GC'))
    assertSilent(await call('DEL'))
  })

  test('RES-21 dns of the IPAM plugin is passed on', async () => {
    const dns = { domain: 'x', nameservers: ['10.0.0.1'], options: ['ndots:2'], search: ['y', 'z'] }
    assert.deepEqual((await added({ ips: [v4], dns })).result.dns, dns)
  })
})
