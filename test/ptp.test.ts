// SPDX-License-Identifier: Apache-2.0

// Goal: ADD of ptp is that of upstream's plugin of that name to pods, nodes and runtimes, without its faults: items PTP of the
// conformance list and those that every interface plugin has, seen from outside, by the installed executables. What takes a
// process per call is seen through an agent, for it is the same code. Needs root.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { trace, withoutStrace } from './crash/strace.ts'
import { assertSameState, errorOf, folder, makeLab, makeNetns, resultOf, skip } from './nodelab.ts'
import { DEFAULTS, DONE, ptpLab, silent, V4, V6 } from './ptp-lab.ts'

for (const mode of ['standalone', 'agent'] as const)
  describe(`ptp, ADD, ${mode}`, { skip }, () => {
    const at = ptpLab(mode)
    const { testByAgent, config, staticIps, newPod, assertNothingLeft, add, del, withFakeIpam } = at

    test('ADD: pod and node have what upstream gives them; DEL leaves nothing (PTP-02, PTP-03, PTP-04, PTP-07, PTP-11)', async () => {
      const { pod, it } = newPod()
      const result = await add(it)
      const [host, inside] = result.interfaces
      const [v4, v6] = result.ips.map(({ address }: { address: string }) => address.split('/')[0])
      assert.match(host.name, /^veth[0-9a-f]{8}$/)
      assert.deepEqual(result.ips, [
        { address: `${v4}/24`, gateway: '10.6.0.1', interface: 1 },
        { address: `${v6}/64`, gateway: 'fd00:6::1', interface: 1 },
      ])
      assert.deepEqual(result.routes, DEFAULTS)
      assert.deepEqual([inside.name, inside.sandbox, 'sandbox' in host], ['eth0', it.netns, false])

      assert.deepEqual(linesOf(pod.ip('route')), [
        `10.6.0.0/24 via 10.6.0.1 dev eth0 src ${v4} onlink`,
        `10.6.0.1 dev eth0 scope link src ${v4}`,
        'default via 10.6.0.1 dev eth0 onlink',
      ])
      assert.deepEqual(
        linesOf(pod.ip('-6 route')).filter(line => !line.startsWith('fe80::')),
        [
          'default via fd00:6::1 dev eth0 metric 1024 onlink pref medium',
          `fd00:6::/64 via fd00:6::1 dev eth0 src ${v6} metric 1024 onlink pref medium`,
          `fd00:6::1 dev eth0 src ${v6} metric 1024 pref medium`,
        ],
      )
      assert.match(pod.ip('-o -4 addr show eth0'), new RegExp(` inet ${v4}/24 brd 10\\.6\\.0\\.255 scope global `))
      assert.match(at.node.ip(`-o -4 addr show ${host.name}`), / inet 10\.6\.0\.1\/32 scope global /)
      assert.match(at.node.ip(`-o -6 addr show ${host.name}`), / inet6 fd00:6::1\/128 scope global /)
      assert.equal(at.node.ip(`route show ${v4}`).trim(), `${v4} dev ${host.name} proto 98`)
      assert.match(at.node.ip(`-6 route show ${v6}`), new RegExp(`^${v6} dev ${host.name} proto 98 `))
      for (const [netns, link, { mac, mtu }] of [[at.node, host.name, host] as const, [pod, 'eth0', inside] as const]) {
        const [shown] = JSON.parse(netns.ip(`-j link show ${link}`))
        assert.deepEqual([shown.address, shown.mtu, shown.flags.includes('LOWER_UP')], [mac, mtu, true])
      }
      const forwarding = at.node.run('sysctl', '-n', 'net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding')
      assert.equal(forwarding, '1\n1\n')
      assert.deepEqual(silent(await at.node.call('CHECK', it, { more: { prevResult: result } })), DONE)
      await del(it)
      assert.doesNotMatch(pod.ip('-o link'), /eth0/)
      await del(it)
      assertNothingLeft()
    })

    test('ADD: an interface of that name stays; twice is an error, and the first stays (COM-02, COM-18)', async () => {
      const { pod, it } = newPod()
      pod.ip('link add eth0 type bridge')
      const taken = errorOf(await at.node.call('ADD', it))
      assert.deepEqual(
        [taken.code, taken.msg],
        [104, 'Cannot attach eth0: the container has an interface of that name'],
      )
      assert.match(pod.ip('-d link show eth0'), /bridge/)
      assertNothingLeft()
      pod.ip('link del eth0')
      const prevResult = await add(it)
      const was = at.node.state(pod)
      assert.equal(errorOf(await at.node.call('ADD', it)).code, 104)
      assertSameState(at.node.state(pod), was)
      assert.deepEqual(silent(await at.node.call('CHECK', it, { more: { prevResult } })), DONE)
      await del(it)
      assertNothingLeft()
    })

    testByAgent(
      'ADD: into the own namespace, or one that is none, is error 8 and does nothing (COM-14, ENV-21)',
      async () => {
        const { it } = newPod()
        for (const netns of [at.node.path, '/run/netns/none', '/tmp'])
          assert.equal(errorOf(await at.node.call('ADD', { ...it, netns })).code, 8)
        assertNothingLeft()
      },
    )

    testByAgent('ADD: mtu, dns and every back end of ipMasq, each option once (PTP-01, COM-17)', async () => {
      const dns = { nameservers: ['10.0.0.53'], domain: 'a.example', search: ['b.example'], options: ['ndots:5'] }
      const leased = { nameservers: ['10.0.0.54'] }
      const ips = [{ address: '10.6.0.77/24', gateway: '10.6.0.1' }]
      for (const [more, wanted] of [
        [{ dns }, dns],
        [{ dns: {} }, leased],
        [{ dns: { search: [] } }, undefined],
        [{}, leased],
      ] as const) {
        const { pod, it } = newPod({ ...staticIps(ips, { dns: leased }), mtu: 1400, ...more })
        const result = await add(it)
        assert.deepEqual(result.dns, wanted)
        assert.equal(JSON.parse(pod.ip('-j link show eth0'))[0].mtu, 1400)
        assert.equal(JSON.parse(at.node.ip(`-j link show ${result.interfaces[0].name}`))[0].mtu, 1400)
        await del(it)
      }
      for (const ipMasqBackend of ['iptables', 'nftables', null, undefined]) {
        const { it } = newPod({ ...staticIps(ips), ipMasq: true, ipMasqBackend })
        const { interfaces } = await add(it)
        const elements = at.node.run('nft', 'list', 'ruleset')
        assert.match(elements, new RegExp(`"${interfaces[0].name}" \\. 10\\.6\\.0\\.77`))
        assert.match(elements, new RegExp(`"${interfaces[0].name}" \\. 10\\.6\\.0\\.0`))
        await del(it)
        assertNothingLeft(`${ipMasqBackend}`)
      }
      const unused = newPod({ ...staticIps(ips), ipMasqBackend: 'other' })
      const { interfaces } = await add(unused.it)
      assert.ok(!at.node.run('nft', 'list', 'ruleset').includes(interfaces[0].name), 'no element without ipMasq')
      await del(unused.it)
      for (const [more, msg] of [
        [{ ipMasq: true, ipMasqBackend: 'other' }, 'unknown ipmasq backend "other"'],
        [{ ipMasq: 'yes' }, 'Cannot read network configuration: "ipMasq" is a string, want true or false'],
        [{ mtu: -1 }, 'Cannot read network configuration: "mtu" is -1, want a whole number from 0 to 65535'],
        [{ mtu: 65_536 }, 'Cannot read network configuration: "mtu" is 65536, want a whole number from 0 to 65535'],
        [{ ipam: undefined }, 'Cannot attach without addresses: "ipam.type" is missing'],
      ] as const) {
        const error = errorOf(await at.node.call('ADD', newPod({ ...staticIps(ips), ...more }).it))
        assert.deepEqual([error.code, error.msg], [7, msg])
      }
      assertNothingLeft()
    })

    testByAgent(
      'ADD: answers in the version that it was asked in, all seven (RES-01, RES-02, RES-03, RES-12)',
      async () => {
        for (const cniVersion of ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
          const { it } = newPod(config({}, { cniVersion }))
          const result = await add(it)
          assert.equal(result.cniVersion, cniVersion)
          if (cniVersion < '0.3') {
            assert.deepEqual([result.ip4.gateway, result.ip6.gateway], ['10.6.0.1', 'fd00:6::1'])
            assert.deepEqual(result.ip4.routes, [{ dst: '0.0.0.0/0' }])
          } else assert.deepEqual(result.interfaces.map(({ name }: { name: string }) => name)[1], 'eth0')
          await del(it)
        }
        assertNothingLeft()
      },
    )

    testByAgent(
      'ADD: one family alone, several of a family, of one network, and a network of one address (COM-13)',
      async () => {
        const four = { address: '10.6.0.77/24', gateway: '10.6.0.1' }
        const cases = [
          [four],
          [{ address: 'fd00:6::77/64', gateway: 'fd00:6::1' }],
          [four, { address: '10.7.0.77/24', gateway: '10.7.0.1' }, { address: 'fd00:6::77/64', gateway: 'fd00:6::1' }],
          [four, { address: '10.6.0.78/24', gateway: '10.6.0.1' }],
          [
            { address: 'fd00:6::77/64', gateway: 'fd00:6::1' },
            { address: 'fd00:6::78/64', gateway: 'fd00:6::1' },
          ],
          [{ address: '10.6.0.77/32', gateway: '10.6.0.1' }],
          [{ address: '10.6.0.77/24', gateway: '192.0.2.254' }],
        ]
        for (const addresses of cases) {
          const routes = DEFAULTS.filter(({ dst }) =>
            addresses.some(each => each.address.includes(':') === dst.includes(':')),
          )
          const { pod, it } = newPod({ ...staticIps(addresses, { routes }), ipMasq: true })
          pod.run('sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.default.disable_ipv6=1')
          const prevResult = await add(it)
          const shown = pod.ip('-o addr show eth0')
          // The kernel's own link-local address may be on its way still, and nobody needs it.
          assert.doesNotMatch(shown, /scope global[^\n]*(tentative|dadfailed)/)
          for (const { address } of addresses) {
            assert.match(shown, new RegExp(` ${address} (brd \\S+ )?scope global `))
            pod.run(
              'ping',
              '-qc1',
              '-W1',
              '-I',
              address.split('/')[0]!,
              addresses[0]!.gateway.includes(':') === address.includes(':')
                ? addresses[0]!.gateway
                : addresses.at(-1)!.gateway,
            )
            at.node.run('ping', '-qc1', '-W1', address.split('/')[0]!)
          }
          assert.deepEqual(
            silent(await at.node.call('CHECK', it, { more: { prevResult } })),
            DONE,
            JSON.stringify(addresses),
          )
          await del(it)
          assertNothingLeft(JSON.stringify(addresses))
        }
      },
    )

    testByAgent(
      'ADD: routes of the IPAM keep gateway, priority, table, mtu and advmss (COM-04, COM-05, COM-06, COM-07)',
      async () => {
        const addresses = [
          { address: '10.6.0.77/24', gateway: '10.6.0.1' },
          { address: 'fd00:6::77/64', gateway: 'fd00:6::1' },
        ]
        const routes = [
          { dst: '10.1.0.0/16', gw: '10.6.0.254', priority: 7 },
          { dst: '10.2.0.0/16', table: 1001, mtu: 1300, advmss: 1200 },
          { dst: '10.3.0.0/16', scope: 0 },
          { dst: '10.3.0.0/16', priority: 9 },
          { dst: 'fd03::/64', priority: 9 },
        ]
        const { pod, it } = newPod(staticIps(addresses, { routes }))
        const prevResult = await add(it)
        assert.deepEqual(prevResult.routes, routes)
        assert.match(pod.ip('route show 10.1.0.0/16'), /^10\.1\.0\.0\/16 via 10\.6\.0\.254 dev eth0 metric 7/)
        assert.match(
          pod.ip('route show table 1001'),
          /^10\.2\.0\.0\/16 via 10\.6\.0\.1 dev eth0 onlink mtu 1300 advmss 1200/,
        )
        assert.equal(linesOf(pod.ip('route show 10.3.0.0/16')).length, 2)
        assert.match(pod.ip('-6 route show fd03::/64'), /^fd03::\/64 via fd00:6::1 dev eth0 metric 9/)
        assert.equal(pod.ip('route show default'), '')
        // It is never on the wire, and yet leads to the node.
        at.lab.router.ip('addr add 10.1.2.3/32 dev br0')
        at.node.ip('route add 10.1.0.0/16 via 10.10.10.1')
        at.lab.router.ip('route add 10.6.0.77 via 10.10.10.8')
        pod.run('ping', '-qc1', '-W1', '10.1.2.3')
        at.node.ip('route del 10.1.0.0/16')
        at.lab.router.ip('addr del 10.1.2.3/32 dev br0')
        assert.deepEqual(silent(await at.node.call('CHECK', it, { more: { prevResult } })), DONE)
        await del(it)
        assertNothingLeft()
      },
    )

    testByAgent(
      'ADD: an unusable gateway is error 7, and the address goes back to the IPAM (PTP-05, DLG-03)',
      async () => {
        for (const [ip, msg] of [
          [{ address: '10.6.0.77/24' }, 'Cannot attach: the IPAM gave 10.6.0.77/24 without a gateway'],
          [
            { address: '10.6.0.77/24', gateway: 'fd00:6::1' },
            'Cannot attach: the IPAM gave gateway fd00:6::1 for 10.6.0.77/24',
          ],
          [
            { address: '10.6.0.77/24', gateway: '10.6.0.77' },
            'Cannot attach: the IPAM gave 10.6.0.77/24 with itself as gateway',
          ],
        ] as const) {
          const { it, options, calls } = withFakeIpam({ ips: [ip] })
          const error = errorOf(await at.node.call('ADD', it, options))
          assert.deepEqual([error.code, error.msg], [7, msg])
          assert.deepEqual(calls(), ['ADD', 'DEL'])
          assertNothingLeft(msg)
        }
      },
    )

    testByAgent('ADD: what the kernel refuses leaves neither link nor address (COM-10, DLG-03)', async () => {
      for (const [answer, msg] of [
        [
          {
            ips: [{ address: '10.6.0.77/24', gateway: '10.6.0.1' }],
            routes: [{ dst: '10.1.0.0/16', gw: '10.99.0.1' }],
          },
          /^Cannot add route 10\.1\.0\.0\/16 via 10\.99\.0\.1 .*ENETUNREACH/,
        ],
        [
          { ips: [{ address: '10.10.10.8/24', gateway: '10.10.10.1' }] },
          /^Cannot give the pod 10\.10\.10\.8, which the node has/,
        ],
      ] as const) {
        const { pod, it, options, calls } = withFakeIpam(answer)
        const error = errorOf(await at.node.call('ADD', it, options))
        assert.equal(error.code, 100)
        assert.match(error.msg, msg)
        assert.deepEqual(calls(), ['ADD', 'DEL'])
        assert.doesNotMatch(pod.ip('-o link'), /eth0/)
        assertNothingLeft()
      }
    })

    testByAgent('ADD: an error of the IPAM keeps its code, and no address at all is one (ERR-16, DLG-05)', async () => {
      const failing = withFakeIpam(undefined)
      const { code, msg } = errorOf(await at.node.call('ADD', failing.it, failing.options))
      assert.deepEqual([code, msg], [11, 'no'])
      const empty = withFakeIpam({ ips: [] })
      const error = errorOf(await at.node.call('ADD', empty.it, empty.options))
      assert.deepEqual([error.code, error.msg], [105, 'IPAM plugin returned missing IP config'])
      assert.deepEqual(empty.calls(), ['ADD', 'DEL'])
      assertNothingLeft()
      const dataDir = join(folder('files'), 'file')
      writeFileSync(dataDir, '')
      assert.equal(errorOf(await at.node.call('ADD', newPod(config({ dataDir })).it)).code, 5)
      assertNothingLeft()
    })

    testByAgent('an interface plugin as its own IPAM is error 7, and does not call itself without end', async () => {
      for (const type of ['ptp', 'loopback', 'mooring-ptp']) {
        const { it } = newPod(config({ type }))
        const error = errorOf(await at.node.call('ADD', it))
        assert.deepEqual([error.code, error.msg], [7, `Cannot ask "${type}" for an address: it is no IPAM plugin`])
        await del(it)
        assertNothingLeft(type)
      }
    })
  })

describe('ptp, faults', { skip: skip || withoutStrace }, () => {
  test('ADD: a fault in every netlink request in turn leaves nothing; no process is started', async t => {
    const node = makeLab().nodes[0]!
    const config = {
      ...{ cniVersion: '1.1.0', name: 'ptpnet', type: 'ptp', ipMasq: true },
      ipam: { type: 'host-local', dataDir: node.leases, ranges: [V4, V6], routes: DEFAULTS },
    }
    const it = { containerId: 'c', netns: makeNetns('pod').path, type: 'ptp', config }
    for (const verb of ['ADD', 'DEL'] as const) {
      const { prefix, calls } = trace('execve,execveat,fork,vfork')
      resultOf(await node.call(verb, it, { prefix }))
      assert.deepEqual(calls(), ['execve', 'execve'], verb) // the shim, and Node.js in its place
    }
    const kept = node.state()
    let failed = 0
    for (let when = 1; when <= 100; when++) {
      const { prefix, calls } = trace('sendto', `error=ENOMEM:when=${when}`)
      const outcome = await node.call('ADD', it, { prefix })
      if (calls().length < when) {
        resultOf(outcome)
        break
      }
      const error = errorOf(outcome)
      assert.deepEqual([error.code, /^Cannot .+: .*\(ENOMEM\)/.test(error.msg)], [11, true], outcome.stdout)
      assertSameState(node.state(), kept, `after ENOMEM in request ${when}, ${calls()[when - 1]}`)
      failed++
    }
    resultOf(await node.call('DEL', it))
    assertSameState(node.state(), kept)
    t.diagnostic(`failed: ${failed} requests`)
    assert.ok(failed >= 7, `${failed}`)
  })
})

const linesOf = (text: string): string[] =>
  text
    .split('\n')
    .map(line => line.trim().replace(/ +/g, ' '))
    .filter(line => line !== '')
    .sort()
