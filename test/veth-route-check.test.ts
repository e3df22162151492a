// SPDX-License-Identifier: Apache-2.0

// Goal: CHECK, STATUS and GC of veth-route with host-local do what the CNI specification and the reference's conformance list
// say, seen from outside, by the installed executables: in one process per call and through an agent. Needs root.

import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { type Attachment, assertSameState, errorOf, resultOf, skip } from './nodelab.ts'
import { type PairDamage, pairDamages } from './pair-damages.ts'
import { dualStack, RELEASED, secondSubnet, silent, vethRouteLab } from './veth-route-lab.ts'

for (const mode of ['standalone', 'agent'] as const)
  describe(`veth-route, CHECK, STATUS and GC, ${mode}`, { skip }, () => {
    const at = vethRouteLab(mode)
    const { testByAgent, testTwiceInWhole, bringForGood, newPod, assertNothingLeft, withFakeIpam } = at

    test('CHECK: needs prevResult, and changes nothing (CHK-01, CHK-02, CHK-03)', async () => {
      const { pod, it } = newPod()
      const prevResult = resultOf(await at.node.call('ADD', it))
      const was = at.node.state(pod)
      assert.equal(errorOf(await at.node.call('CHECK', it)).msg, 'Required prevResult missing')
      assert.deepEqual(silent(await at.node.call('CHECK', it, { more: { prevResult } })), RELEASED)
      assertSameState(at.node.state(pod), was)
      await at.node.call('DEL', it)
    })

    /** The kernel may have no dummy links. */
    const nextHopLink = () => (at.node.ip('-o link').includes(' dummy0:') ? 'dummy0' : 'lo')
    const ownNextHop = () => {
      const link = nextHopLink()
      at.node.ip(`addr add 169.254.1.1/32 dev ${link}${link === 'lo' ? ' scope link' : ''}`)
    }
    const damages: PairDamage[] = [
      ...pairDamages(() => at.node),
      [
        'the address is gone (CHK-05)',
        /address 10\.10\.10\.\d+\/24 is missing on eth0/,
        pod => pod.ip('addr flush dev eth0'),
      ],
      [
        'the default route is gone (CHK-06)',
        /route 0\.0\.0\.0\/0 via 169\.254\.1\.1 dev eth0 is missing/,
        pod => pod.ip('route del default'),
      ],
      [
        'the default route leads elsewhere (CHK-11)',
        /route 0\.0\.0\.0\/0 via 169\.254\.1\.1/,
        pod => {
          pod.ip('route replace 10.99.0.1 dev eth0')
          pod.ip('route replace default via 10.99.0.1 dev eth0')
        },
      ],
      [
        'the route to the next hop is gone (CHK-06)',
        /169\.254\.1\.1/,
        pod => {
          pod.ip('route del default')
          pod.ip('route del 169.254.1.1')
          pod.ip('route add default via 169.254.1.1 dev eth0 onlink')
        },
      ],
      [
        'the next hop has no entry any more',
        /neighbour|169\.254\.1\.1/,
        pod => pod.ip('neigh del 169.254.1.1 dev eth0'),
      ],
      [
        'the host route is gone (PTP-08)',
        /route 10\.10\.10\.\d+ dev veth[0-9a-f]{8} is missing on the node/,
        (_, host) => at.node.ip(`route flush dev ${host}`),
      ],
      [
        'the proxy entry is gone',
        /proxy/,
        () => {
          const [address] = at.node.ip('neigh show proxy').split(' ')
          at.node.ip(`neigh del proxy ${address} dev eth0`)
        },
      ],
      [
        'the node has lost the next hop',
        /169\.254\.1\.1 is no address of the node/,
        () => at.node.ip(`addr del 169.254.1.1/32 dev ${nextHopLink()}`),
        ownNextHop,
      ],
      [
        'the node does not forward',
        /net\.ipv4\.ip_forward is off on the node/,
        () => at.node.run('sysctl', '-qw', 'net.ipv4.ip_forward=0'),
        () => at.node.run('sysctl', '-qw', 'net.ipv4.ip_forward=1'),
      ],
      [
        'the node answers for pods late',
        /net\.ipv4\.neigh\.eth0\.proxy_delay is 80, not 0, on the node/,
        () => at.node.run('sysctl', '-qw', 'net.ipv4.neigh.eth0.proxy_delay=80'),
        () => at.node.run('sysctl', '-qw', 'net.ipv4.neigh.eth0.proxy_delay=0'),
      ],
      [
        'the next hop of all pods has scope global on lo, where there is no dummy',
        /next hop 169\.254\.1\.1 has scope global on lo: the node speaks to pods from it/,
        () => {
          at.node.ip(`addr del 169.254.1.1/32 dev ${nextHopLink()}`)
          at.node.ip('addr add 169.254.1.1/32 dev lo scope global')
        },
        () => {
          at.node.ip('addr del 169.254.1.1/32 dev lo')
          ownNextHop()
        },
      ],
      [
        'the next hop of all pods expires',
        /next hop 169\.254\.1\.1 expires in \d+ s/,
        () => at.node.ip(`addr change 169.254.1.1/32 dev ${nextHopLink()} valid_lft 3600 preferred_lft 3600`),
        () => {
          at.node.ip(`addr del 169.254.1.1/32 dev ${nextHopLink()}`)
          ownNextHop()
        },
      ],
      ['somebody flushed the rule set', /inet mooring/, () => at.node.run('nft', 'delete', 'table', 'inet', 'mooring')],
    ]
    for (const [damage, message, doIt, repair] of damages)
      testByAgent(`CHECK: finds that ${damage}`, async () => {
        const { pod, it } = newPod()
        const prevResult = resultOf(await at.node.call('ADD', it))
        const host = prevResult.interfaces[0].name
        doIt(pod, host)
        const error = errorOf(await at.node.call('CHECK', it, { more: { prevResult } }))
        assert.equal(error.code, 103)
        assert.match(`${error.msg} ${error.details ?? ''}`, message)
        repair?.(pod, host)
        assert.deepEqual(silent(await at.node.call('DEL', it)), RELEASED)
        if (damage.includes('flushed')) await bringForGood()
        assertNothingLeft()
      })

    const settings = [
      ['ipv6.conf.eth0.proxy_ndp', 0, 'is off', 1],
      ['ipv6.neigh.eth0.proxy_delay', 80, 'is 80, not 0,', 0],
      ['ipv6.conf.all.forwarding', 0, 'is off', 1],
      ['ipv6.conf.eth0.accept_ra', 1, 'is 1, not 2,', 2],
    ] as const
    testByAgent('CHECK: finds which of the settings for IPv6 the node has lost', async () => {
      const { it } = newPod()
      const more = { ipam: dualStack(at.node) }
      const prevResult = resultOf(await at.node.call('ADD', it, { more }))
      for (const [setting, value, fault, was] of settings) {
        at.node.run('sysctl', '-qw', `net.${setting}=${value}`)
        const { code, msg, details } = errorOf(await at.node.call('CHECK', it, { more: { ...more, prevResult } }))
        assert.equal(code, 103)
        assert.ok(
          `${msg}; ${details}`.includes(`net.${setting} ${fault} on the node`),
          `${setting}: ${msg}; ${details}`,
        )
        at.node.run('sysctl', '-qw', `net.${setting}=${was}`)
      }
      assert.deepEqual(silent(await at.node.call('CHECK', it, { more: { ...more, prevResult } })), RELEASED)
      await at.node.call('DEL', it, { more })
      assertNothingLeft()
    })

    testByAgent('CHECK: finds another sandbox, and lets what others added be (CHK-08, CHK-09)', async () => {
      const { pod, it } = newPod()
      const prevResult = resultOf(await at.node.call('ADD', it))
      pod.ip('addr add 10.77.0.1/24 dev eth0')
      pod.ip('route add 10.78.0.0/16 via 10.77.0.2')
      assert.deepEqual(silent(await at.node.call('CHECK', it, { more: { prevResult } })), RELEASED)
      prevResult.interfaces[1].sandbox = '/run/netns/other'
      const error = errorOf(await at.node.call('CHECK', it, { more: { prevResult } }))
      assert.equal(error.msg, `Sandbox in prevResult /run/netns/other doesn't match configured netns ${it.netns}`)
      await at.node.call('DEL', it)
    })

    testTwiceInWhole('CHECK: hands on what the IPAM finds (CHK-10)', async () => {
      const { it } = newPod()
      const prevResult = resultOf(await at.node.call('ADD', it))
      rmSync(join(at.node.leases, 'podnet', prevResult.ips[0].address.split('/')[0]))
      assert.match(
        errorOf(await at.node.call('CHECK', it, { more: { prevResult } })).msg,
        /^host-local: Failed to find address/,
      )
      await at.node.call('DEL', it)
      assertNothingLeft()
    })

    // STATUS

    const status = { containerId: '', netns: '', ifName: '' }
    const version = { cniVersion: '1.1.0' }
    test('STATUS: says nothing where all is well, and makes nothing (STA-01, STA-07)', async () => {
      const was = at.node.state()
      assert.deepEqual(silent(await at.node.call('STATUS', status, { more: version })), RELEASED)
      assertSameState(at.node.state(), was)
    })

    testTwiceInWhole(
      'STATUS: 50 where the host interface is missing or somebody drops what is forwarded (STA-02, STA-06)',
      async () => {
        const missing = errorOf(await at.node.call('STATUS', status, { more: { ...version, hostInterface: 'none' } }))
        assert.deepEqual([missing.code, missing.msg], [50, 'Cannot find host interface "none"'])
        // As Docker does it.
        at.node.run(
          'nft',
          'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }',
        )
        try {
          const dropped = errorOf(await at.node.call('STATUS', status, { more: version }))
          assert.equal(dropped.code, 50)
          assert.match(dropped.msg, /chain FORWARD of table ip filter has policy drop/)
          assert.match(dropped.details!, /iptables -P FORWARD ACCEPT/)
          const more = { ...version, allowForwardDrop: true }
          assert.deepEqual(silent(await at.node.call('STATUS', status, { more })), RELEASED)
        } finally {
          at.node.run('nft', 'delete table ip filter')
        }
      },
    )

    testByAgent('STATUS: asks the IPAM (STA-03)', async () => {
      const { ipam, calls } = withFakeIpam({})
      await at.node.call('STATUS', status, { ...ipam, more: { ...ipam.more, ...version } })
      assert.deepEqual(calls(), ['STATUS'])
    })

    // GC

    const valid = (...living: Attachment[]) => ({
      ...version,
      'cni.dev/valid-attachments': living.map(({ containerId, ifName = 'eth0' }) => ({
        containerID: containerId,
        ifname: ifName,
      })),
    })
    test('GC: removes what is not in the list, of this network only, twice (GC-02, GC-03, GC-06)', async () => {
      const three = [newPod(), newPod(), newPod()]
      for (const { it } of three) resultOf(await at.node.call('ADD', it, { more: version }))
      const foreign = newPod()
      resultOf(
        await at.node.call('ADD', foreign.it, { more: { ...version, name: 'other', ipam: secondSubnet(at.node) } }),
      )
      await new Promise(resolve => setTimeout(resolve, 150))
      for (const _ of [1, 2])
        assert.deepEqual(silent(await at.node.call('GC', status, { more: valid(three[0]!.it) })), RELEASED)
      assert.match(three[0]!.pod.ip('-o link'), /eth0/)
      for (const { pod } of three.slice(1)) assert.doesNotMatch(pod.ip('-o link'), /eth0/)
      assert.match(foreign.pod.ip('-o link'), /eth0/)
      assert.deepEqual(silent(await at.node.call('DEL', three[0]!.it)), RELEASED)
      await at.node.call('DEL', foreign.it, { more: { name: 'other', ipam: secondSubnet(at.node) } })
      assertNothingLeft()
    })

    testByAgent('GC: an empty list removes all, no list nothing (GC-04)', async () => {
      const { pod, it } = newPod()
      resultOf(await at.node.call('ADD', it, { more: version }))
      await new Promise(resolve => setTimeout(resolve, 150))
      assert.deepEqual(silent(await at.node.call('GC', status, { more: version })), RELEASED)
      assert.match(pod.ip('-o link'), /eth0/)
      assert.deepEqual(silent(await at.node.call('GC', status, { more: valid() })), RELEASED)
      assert.doesNotMatch(pod.ip('-o link'), /eth0/)
      assertNothingLeft()
    })

    testByAgent('GC: goes on after an error, tells it, and asks the IPAM (GC-05)', async () => {
      const broken = withFakeIpam({ ips: [{ address: '10.10.10.77/24' }] }, 'DEL')
      const { it } = broken
      resultOf(await at.node.call('ADD', it, { ...broken.ipam, more: { ...broken.ipam.more, ...version } }))
      await new Promise(resolve => setTimeout(resolve, 150))
      errorOf(await at.node.call('GC', status, { ...broken.ipam, more: { ...broken.ipam.more, ...valid() } }))
      assert.equal(broken.calls().at(-1), 'GC')
      broken.repair()
      assert.deepEqual(silent(await at.node.call('DEL', it, broken.ipam)), RELEASED)
      assertNothingLeft()
    })
  })
