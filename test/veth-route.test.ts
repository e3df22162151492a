// SPDX-License-Identifier: Apache-2.0

// Goal: ADD and DEL of veth-route with host-local do what the CNI specification and the reference's conformance list say, seen
// from outside, by the installed executables: in one process per call and through an agent. Needs root.

import assert from 'node:assert/strict'
import { rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { delTests } from './dels.ts'
import { assertSameState, errorOf, folder, makeLab, makeNetns, resultOf, run, skip } from './nodelab.ts'
import { dualStack, RELEASED, silent, versions, vethRouteLab, without0 } from './veth-route-lab.ts'

for (const mode of ['standalone', 'agent'] as const)
  describe(`veth-route, ADD and DEL, ${mode}`, { skip }, () => {
    const at = vethRouteLab(mode)
    const { testByAgent, testTwiceInWhole, newPod, assertNothingLeft, withFakeIpam, forgetEverything } = at

    test('ADD: pod and node show what the manual of the mode prints (COM-01, COM-03, PTP-02, PTP-11)', async () => {
      const { pod, it } = newPod()
      const result = resultOf(await at.node.call('ADD', it))
      const [host, inside] = result.interfaces
      assert.match(host.name, /^veth[0-9a-f]{8}$/)
      const address: string = result.ips[0].address.split('/')[0]
      assert.deepEqual(result.ips, [{ address: `${address}/24`, gateway: '10.10.10.1', interface: 1 }])
      assert.deepEqual(result.routes, [{ dst: '0.0.0.0/0', gw: '169.254.1.1' }])
      assert.deepEqual([inside.name, inside.sandbox, 'sandbox' in host], ['eth0', it.netns, false])

      assert.equal(
        pod.ip('route').replaceAll(' \n', '\n'),
        'default via 169.254.1.1 dev eth0\n169.254.1.1 dev eth0 scope link\n',
      )
      assert.ok(pod.ip('-o -4 addr show eth0').includes(` inet ${address}/24 scope global noprefixroute eth0\\`))
      assert.equal(pod.ip('-o -4 addr').trim().split('\n').length, 2) // and lo
      assert.equal(at.node.ip(`route show ${address}`).trim(), `${address} dev ${host.name} proto 98`)
      assert.match(at.node.ip('-o -4 addr'), / inet 169\.254\.1\.1\/32 scope (global dummy0|link lo)\\/)
      assert.equal(at.node.ip('neigh show proxy').replace(/ +/g, ' ').trim(), `${address} dev eth0 proxy proto 98`)
      for (const [netns, link, mac] of [[at.node, host.name, host.mac] as const, [pod, 'eth0', inside.mac] as const]) {
        const [shown] = JSON.parse(netns.ip(`-j link show ${link}`))
        assert.equal(shown.address, mac)
        assert.ok(shown.flags.includes('UP') && shown.flags.includes('LOWER_UP'))
      }
      assert.deepEqual(silent(await at.node.call('CHECK', it, { more: { prevResult: result } })), RELEASED)
      assert.deepEqual(silent(await at.node.call('DEL', it)), RELEASED)
      assertNothingLeft()
    })

    testByAgent(
      'ADD: both MACs count as set by hand, so that udev leaves them alone, and the MTU is that of the host interface',
      async () => {
        at.node.ip('link set eth0 mtu 1442')
        const { pod, it } = newPod()
        const { interfaces } = resultOf(
          await at.node.call('ADD', it, { more: { cniVersion: '1.1.0', hostInterface: 'eth0' } }),
        )
        at.node.ip('link set eth0 mtu 1500')
        assert.deepEqual(
          interfaces.map((each: { mtu: number }) => each.mtu),
          [1442, 1442],
        )
        const NET_ADDR_SET = '3'
        for (const [netns, name] of [[at.node, interfaces[0].name] as const, [pod, 'eth0'] as const]) {
          assert.equal(
            // This command alone sees the namespace's /sys, in a mount namespace of its own.
            run('ip', ['netns', 'exec', netns.name, 'cat', `/sys/class/net/${name}/addr_assign_type`]).trim(),
            NET_ADDR_SET,
          )
          assert.equal(JSON.parse(netns.ip(`-j link show ${name}`))[0].mtu, 1442)
        }
        await at.node.call('DEL', it)
      },
    )

    testByAgent('ADD: "mtu" is the pod\'s, and more than the uplink has is error 7', async () => {
      const { pod, it } = newPod()
      resultOf(await at.node.call('ADD', it, { more: { mtu: 1400 } }))
      assert.equal(JSON.parse(pod.ip('-j link show eth0'))[0].mtu, 1400)
      await at.node.call('DEL', it)
      const error = errorOf(await at.node.call('ADD', it, { more: { mtu: 9000 } }))
      assert.deepEqual([error.code, error.msg], [7, 'invalid MTU 9000, must be [0, eth0 MTU(1500)]'])
      assertNothingLeft()
    })

    testTwiceInWhole('ADD: takes /proc/PID/ns/net, and a link to it, for the namespace', async () => {
      const { pod } = newPod()
      const pid = pod.run('sh', '-c', 'sleep 60 > /dev/null 2>&1 & echo $!').trim()
      const link = join(folder('links'), 'pod')
      symlinkSync(`/proc/${pid}/ns/net`, link)
      for (const path of [`/proc/${pid}/ns/net`, link]) {
        const { it } = newPod({ netns: path })
        const { interfaces } = resultOf(await at.node.call('ADD', it))
        assert.equal(interfaces[1].sandbox, path)
        assert.match(pod.ip('-o -4 addr show eth0'), /10\.10\.10\.\d+\/24/)
        assert.deepEqual(silent(await at.node.call('DEL', it)), RELEASED)
      }
      process.kill(Number(pid))
      assertNothingLeft()
    })

    testTwiceInWhole('ADD: an interface of that name stays, and the address goes back (COM-02)', async () => {
      const { pod, it } = newPod()
      pod.ip('link add eth0 type bridge')
      const was = pod.ip('-o link')
      const error = errorOf(await at.node.call('ADD', it))
      assert.equal(error.code, 104)
      assert.match(error.msg, /^Cannot attach eth0: the container has an interface of that name$/)
      assert.equal(pod.ip('-o link'), was)
      assertNothingLeft()
    })

    test('ADD: twice is an error, and the first attachment stays as it is (COM-18)', async () => {
      const { pod, it } = newPod()
      const result = resultOf(await at.node.call('ADD', it))
      const was = at.node.state(pod)
      const error = errorOf(await at.node.call('ADD', it))
      assert.deepEqual([error.code, error.msg], [104, `Cannot attach eth0: container ${it.containerId} has it already`])
      assertSameState(at.node.state(pod), was)
      assert.deepEqual(silent(await at.node.call('CHECK', it, { more: { prevResult: result } })), RELEASED)
      await at.node.call('DEL', it)
      assertNothingLeft()
    })

    testTwiceInWhole('ADD: what an earlier namespace of the same path left is removed first', async () => {
      const { pod, it } = newPod()
      resultOf(await at.node.call('ADD', it))
      at.node.ip('neigh add proxy 10.10.10.250 dev eth0') // somebody else's stays
      pod.remove()
      const again = makeNamed(pod.name)
      const { ips } = resultOf(await at.node.call('ADD', it))
      const proxies = at.node.ip('neigh show proxy').trim().split('\n')
      assert.equal(proxies.length, 2, proxies.join())
      assert.ok(proxies.some(line => line.startsWith(ips[0].address.split('/')[0])))
      at.node.ip('neigh del proxy 10.10.10.250 dev eth0')
      assert.deepEqual(silent(await at.node.call('DEL', it)), RELEASED)
      again()
      assertNothingLeft()
    })

    testTwiceInWhole('ADD: a foreign link of the name that it would take stays, and so it does at DEL', async () => {
      const { it } = newPod()
      const first = resultOf(await at.node.call('ADD', it)).interfaces[0].name
      await at.node.call('DEL', it)
      at.node.ip(`link add ${first} type bridge`)
      const foreign = at.node.ip(`-o link show ${first}`)
      const second = resultOf(await at.node.call('ADD', it)).interfaces[0].name
      assert.notEqual(second, first)
      assert.deepEqual(silent(await at.node.call('DEL', it)), RELEASED)
      assert.equal(at.node.ip(`-o link show ${first}`), foreign)
      at.node.ip(`link del ${first}`)
      assertNothingLeft()
    })

    testByAgent('ADD: IPv6 alone, dual stack and several of a family (COM-13, COM-08, COM-09)', async () => {
      const v4 = [{ subnet: '10.10.10.0/24', rangeStart: '10.10.10.19' }]
      const v6 = [{ subnet: 'fd00:10::/64', rangeStart: 'fd00:10::19' }]
      const [more4, more6] = [[{ subnet: '10.20.0.0/24' }], [{ subnet: 'fd00:20::/64' }]]
      for (const ranges of [[v6], [v4, v6], [v4, v6, more4, more6]]) {
        const { pod, it } = newPod()
        pod.run('sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.default.disable_ipv6=1')
        const routes = [{ dst: '0.0.0.0/0' }, { dst: '::/0' }].slice(ranges.length === 1 ? 1 : 0)
        const ipam = { type: 'host-local', dataDir: at.node.leases, ranges, routes }
        const result = resultOf(await at.node.call('ADD', it, { more: { ipam } }))
        const shown = pod.ip('-o addr show eth0')
        assert.doesNotMatch(shown, /tentative|dadfailed/)
        for (const { address } of result.ips) assert.ok(shown.includes(` ${address} scope global `), shown)
        assert.equal(result.ips.length, ranges.length)
        assert.match(pod.ip('-6 route show default'), /^default via fe80::1 dev eth0 metric 1024/)
        const off = pod.run(
          'sysctl',
          '-n',
          'net.ipv6.conf.lo.disable_ipv6',
          'net.ipv6.conf.eth0.disable_ipv6',
          'net.ipv6.conf.eth0.keep_addr_on_down',
        )
        assert.deepEqual(off.trim().split('\n'), ['0', '0', '1'])
        assert.deepEqual(silent(await at.node.call('CHECK', it, { more: { ipam, prevResult: result } })), RELEASED)
        assert.deepEqual(silent(await at.node.call('DEL', it, { more: { ipam } })), RELEASED)
      }
      rmSync(at.node.leases, { recursive: true })
      assertNothingLeft()
    })

    testTwiceInWhole(
      'ADD: a namespace that is none is error 8, and nothing is made (COM-14, ENV-19, ENV-21)',
      async () => {
        const file = join(folder('files'), 'file')
        writeFileSync(file, '')
        for (const netns of ['/run/netns/none', file, '/tmp'])
          assert.match(errorOf(await at.node.call('ADD', { containerId: 'c', netns })).msg, /^failed to open netns "/)
        const own = errorOf(await at.node.call('ADD', { containerId: 'c', netns: at.node.path }))
        assert.deepEqual([own.code, own.msg], [8, "plugin's netns and netns from CNI_NETNS should not be the same"])
        assertNothingLeft()
      },
    )

    testByAgent(
      'ADD: answers in the version that it was asked in, all seven (RES-01, RES-02, RES-03, RES-12)',
      async () => {
        for (const cniVersion of versions) {
          const { it } = newPod()
          const result = resultOf(await at.node.call('ADD', it, { more: { cniVersion } }))
          assert.equal(result.cniVersion, cniVersion)
          if (cniVersion < '0.3') {
            assert.match(result.ip4.ip, /^10\.10\.10\.\d+\/24$/)
            assert.deepEqual(result.ip4.routes, [{ dst: '0.0.0.0/0', gw: '169.254.1.1' }])
            assert.deepEqual(['ips' in result, 'interfaces' in result], [false, false])
          } else {
            assert.equal(result.interfaces.length, 2)
            assert.equal(result.ips[0].version, cniVersion < '1' ? '4' : undefined)
            assert.equal('mtu' in result.interfaces[1], cniVersion >= '1') // 1.0.0 is 1.1.0 by another name
          }
          assert.deepEqual(silent(await at.node.call('DEL', it, { more: { cniVersion } })), RELEASED)
        }
        assertNothingLeft()
      },
    )

    testByAgent(
      'ADD: routes of the IPAM keep priority, table, mtu and advmss, with our next hop (COM-05, COM-06, RES-05)',
      async () => {
        const routes = [
          { dst: '10.1.0.0/16', gw: '10.10.10.254', priority: 7 },
          { dst: '10.2.0.0/16', table: 1001, mtu: 1300, advmss: 1200 },
          { dst: '0.0.0.0/0' },
        ]
        const { pod, it, ipam } = withFakeIpam({ ips: [{ address: '10.10.10.77/24', gateway: '10.10.10.1' }], routes })
        const result = resultOf(await at.node.call('ADD', it, ipam))
        assert.deepEqual(result.routes, [
          { dst: '10.1.0.0/16', gw: '169.254.1.1', priority: 7 },
          { dst: '10.2.0.0/16', gw: '169.254.1.1', table: 1001, mtu: 1300, advmss: 1200 },
          { dst: '0.0.0.0/0', gw: '169.254.1.1' },
        ])
        assert.match(pod.ip('route show 10.1.0.0/16'), /via 169\.254\.1\.1 dev eth0 metric 7/)
        assert.match(
          pod.ip('route show table 1001'),
          /^10\.2\.0\.0\/16 via 169\.254\.1\.1 dev eth0 mtu 1300 advmss 1200/,
        )
        const check = { ...ipam, more: { ...ipam.more, prevResult: result } }
        assert.deepEqual(silent(await at.node.call('CHECK', it, check)), RELEASED)
        pod.ip('route del 10.2.0.0/16 table 1001')
        assert.match(errorOf(await at.node.call('CHECK', it, check)).msg, /route 10\.2\.0\.0\/16 .* is missing/)
        await at.node.call('DEL', it, ipam)
        assertNothingLeft()
      },
    )

    testByAgent('ADD: without routes from the IPAM the pod reaches its subnet alone (COM-07)', async () => {
      const { pod, it, ipam } = withFakeIpam({ ips: [{ address: '10.10.10.77/24', gateway: '10.10.10.1' }] })
      resultOf(await at.node.call('ADD', it, ipam))
      assert.equal(pod.ip('route show default'), '')
      assert.match(pod.ip('route show 10.10.10.0/24'), /^10\.10\.10\.0\/24 via 169\.254\.1\.1 dev eth0/)
      await at.node.call('DEL', it, ipam)
      assertNothingLeft()
    })

    testByAgent("ADD: dns is the configuration's, else the IPAM's (COM-17, RES-21)", async () => {
      const dns = { nameservers: ['10.0.0.53'], domain: 'a.example', search: ['b.example'], options: ['ndots:5'] }
      const { it, ipam } = withFakeIpam({ ips: [{ address: '10.10.10.77/24' }], dns })
      assert.deepEqual(resultOf(await at.node.call('ADD', it, ipam)).dns, dns)
      await at.node.call('DEL', it, ipam)
      const own = { nameservers: ['1.1.1.1'] }
      const more = { ...ipam.more, dns: own }
      assert.deepEqual(resultOf(await at.node.call('ADD', it, { ...ipam, more })).dns, own)
      await at.node.call('DEL', it, ipam)
    })

    testTwiceInWhole('ADD: the error of an IPAM keeps its code, and nothing is left (ERR-16)', async () => {
      const { it, ipam } = withFakeIpam(undefined)
      const error = errorOf(await at.node.call('ADD', it, ipam))
      assert.deepEqual([error.code, error.msg, error.details], [11, 'no', 'later'])
      assertNothingLeft()
    })

    testByAgent(
      'ADD: an IPAM that gives nothing, or an index into interfaces, is an error and is asked to release',
      async () => {
        for (const answer of [{}, { ips: [] }, { ips: [{ address: '10.10.10.77/24', interface: 3 }] }]) {
          const { it, ipam, calls } = withFakeIpam(answer)
          const outcome = await at.node.call('ADD', it, ipam)
          if (outcome.code !== 0) errorOf(outcome)
          else await at.node.call('DEL', it, ipam)
          assert.equal(calls().at(-1), 'DEL', JSON.stringify(answer))
          assertNothingLeft()
        }
      },
    )

    testTwiceInWhole('ADD: changes no setting of the node but those that routing pods needs (COM-15)', async () => {
      const fresh = makeLab({ mode: 'standalone' }).nodes[0]!
      const settings = () => fresh.run('sh', '-c', 'grep -rs "" /proc/sys/net | sort').split('\n')
      const was = settings()
      const { it } = newPod()
      const more = { ipam: dualStack(fresh) }
      resultOf(await fresh.call('ADD', it, { more }))
      resultOf(await fresh.call('DEL', it, { more }))
      const now = settings().filter(line => !was.includes(line) && !/dummy0|\/nf_conntrack|\/netfilter\//.test(line))
      const changed = now.map(line =>
        line
          .replace('/proc/sys/net/', '')
          .replace(/\d+$/, 'N')
          .split(':')[0]!
          .replace(/conf\/(lo|eth0|default)/, 'conf/LINK'),
      )
      // The kernel switches redirects off itself where it forwards (net/ipv4/devinet.c, inet_forward_change).
      const allowed = [
        'ipv4/conf/all/accept_redirects',
        'ipv4/ip_forward',
        'ipv4/conf/all/forwarding',
        'ipv4/conf/LINK/forwarding',
        'ipv6/conf/all/forwarding',
        'ipv6/conf/LINK/forwarding',
        'ipv6/conf/LINK/proxy_ndp',
        'ipv6/conf/LINK/accept_ra',
        'ipv4/neigh/eth0/proxy_delay',
        'ipv6/neigh/eth0/proxy_delay',
      ]
      assert.deepEqual(
        changed.filter(line => !allowed.includes(line)),
        [],
      )
    })

    testTwiceInWhole("ADD: an address that is the node's own is error 7, and goes back to the IPAM", async () => {
      const { it, ipam, calls } = withFakeIpam({ ips: [{ address: '10.10.10.8/24' }] })
      const error = errorOf(await at.node.call('ADD', it, ipam))
      assert.deepEqual(
        [error.code, error.msg],
        [7, "Cannot attach: the IPAM gave 10.10.10.8, which is the node's own address on eth0"],
      )
      assert.deepEqual(calls(), ['ADD', 'DEL'])
      assertNothingLeft()
    })

    // DEL

    const masked = () => ({ ipMasq: true, ipam: dualStack(at.node) })
    delTests({
      test: testTwiceInWhole,
      newPod,
      add: async it => resultOf(await at.node.call('ADD', it, { more: masked() })),
      del: (it, more) => at.node.call('DEL', it, { more: { ...masked(), ...more } }),
      assertNothingLeft: () => assertNothingLeft(),
      invalid: { hostInterface: 'none', mtu: 'wrong' },
      forget: forgetEverything,
      ids: 'PTP-06, PTP-07, PTP-10',
    })

    test('DEL: a failing IPAM does not keep the link, and its error is told (DEL-09)', async () => {
      const { it, ipam } = withFakeIpam({ ips: [{ address: '10.10.10.77/24' }] }, 'DEL')
      resultOf(await at.node.call('ADD', it, ipam))
      assert.equal(errorOf(await at.node.call('DEL', it, ipam)).code, 11)
      const links = at.node.state().filter(line => !line.startsWith('attachment'))
      assertSameState(links, at.kept)
      const repaired = withFakeIpam({}).ipam
      assert.deepEqual(silent(await at.node.call('DEL', it, repaired)), RELEASED)
      assertNothingLeft()
    })

    testByAgent('DEL: a new namespace at the same path keeps its own interface of that name (DEL-10)', async () => {
      const { pod, it } = newPod()
      resultOf(await at.node.call('ADD', it))
      pod.remove()
      const remove = makeNamed(pod.name)
      pod.ip('link add eth0 type bridge')
      assert.deepEqual(silent(await at.node.call('DEL', it)), RELEASED)
      assert.match(pod.ip('-o link'), /eth0/)
      remove()
      assertNothingLeft()
    })

    testByAgent('DEL: of one interface leaves the other (DEL-11)', async () => {
      const { pod, it } = newPod()
      const other = { ...it, ifName: 'net1' }
      resultOf(await at.node.call('ADD', it))
      const left = resultOf(await at.node.call('ADD', other, { more: { ipam: without0(at.node) } }))
      assert.deepEqual(silent(await at.node.call('DEL', it)), RELEASED)
      assert.doesNotMatch(pod.ip('-o link'), /eth0/)
      const more = { ipam: without0(at.node), prevResult: left }
      assert.deepEqual(silent(await at.node.call('CHECK', other, { more })), RELEASED)
      assert.deepEqual(silent(await at.node.call('DEL', other)), RELEASED)
      assertNothingLeft()
    })
  })

/** Makes a namespace of that name again. @returns what removes it */
function makeNamed(name: string): () => void {
  const { run } = makeNetns('maker')
  run('ip', 'netns', 'add', name)
  return () => void run('ip', 'netns', 'del', name)
}
