// SPDX-License-Identifier: Apache-2.0

// Goal: CHECK, STATUS and GC of ptp, and many pods at once, seen from outside as in ptp.test.ts. Needs root.

import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'node:test'
import { assertSameState, errorOf, folder, makeManyNetns, resultOf, skip } from './nodelab.ts'
import { type PairDamage, pairDamages } from './pair-damages.ts'
import { DEFAULTS, DONE, ptpLab, silent } from './ptp-lab.ts'

/** What ADD sets in the pod, and another value of it. */
const ipv6Settings = [
  ['lo.disable_ipv6', 1],
  ['eth0.disable_ipv6', 1],
  ['eth0.accept_dad', 1],
  ['eth0.keep_addr_on_down', 0],
] as const

for (const mode of ['standalone', 'agent'] as const)
  describe(`ptp, CHECK, STATUS and GC, ${mode}`, { skip }, () => {
    const at = ptpLab(mode)
    const { testByAgent, bringForGood, config, newPod, assertNothingLeft, add, del, withFakeIpam } = at

    const damages: PairDamage[] = [
      ...pairDamages(() => at.node),
      [
        'the interface is another kind',
        /link eth0 in the pod is no veth but bridge/,
        pod => {
          pod.ip('link set eth0 down')
          pod.ip('link set eth0 name eth9')
          pod.ip('link add eth0 type bridge')
        },
      ],
      [
        'the address is gone (CHK-05)',
        /address 10\.6\.0\.\d+\/24 is missing on eth0/,
        pod => pod.ip('-4 addr flush dev eth0'),
      ],
      [
        'the IPv6 address is gone (CHK-05)',
        /address fd00:6::\w+\/64 is missing on eth0/,
        pod => pod.ip('-6 addr flush dev eth0'),
      ],
      [
        'the default route is gone (CHK-06)',
        /route 0\.0\.0\.0\/0 via 10\.6\.0\.1 dev eth0 is missing/,
        pod => pod.ip('route del default'),
      ],
      [
        'the default route leads elsewhere (CHK-11)',
        /route 0\.0\.0\.0\/0 via 10\.6\.0\.1 dev eth0 is missing/,
        pod => {
          pod.ip('route add 10.99.0.1 dev eth0')
          pod.ip('route replace default via 10.99.0.1 dev eth0')
        },
      ],
      [
        'the route of the network is gone (CHK-06)',
        /route 10\.6\.0\.0\/24 via 10\.6\.0\.1 dev eth0 is missing/,
        pod => pod.ip('route del 10.6.0.0/24'),
      ],
      [
        'the route to the gateway is gone (CHK-06)',
        /route fd00:6::1 dev eth0 is missing/,
        pod => pod.ip('-6 route del fd00:6::1'),
      ],
      [
        'the entry of the gateway leads elsewhere',
        /neighbour 10\.6\.0\.1 on eth0 does not lead to the node/,
        pod => pod.ip('neigh replace 10.6.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent'),
      ],
      [
        'the gateway is gone from the node',
        /address 10\.6\.0\.1\/32 is missing on veth/,
        (_, host) => at.node.ip(`addr del 10.6.0.1/32 dev ${host}`),
      ],
      [
        'the host route is gone (PTP-08)',
        /route 10\.6\.0\.\d+ dev veth[0-9a-f]{8} is missing on the node/,
        (_, host) => at.node.ip(`route flush dev ${host} proto 98`),
      ],
      [
        'the host route leads elsewhere',
        /route 10\.6\.0\.\d+ dev veth[0-9a-f]{8} is missing on the node/,
        (_, host) => {
          const address = at.node.ip(`route show dev ${host} proto 98`).split(' ')[0]
          at.node.ip(`route replace ${address} via 10.10.10.1`)
        },
      ],
      [
        "the link-local address of the node's end is gone",
        /address fe80::[0-9a-f:]+\/64 is missing on veth[0-9a-f]{8}/,
        (_, host) => at.node.ip(`-6 addr flush dev ${host} scope link`),
      ],
      [
        'the route of the network has another source',
        /route 10\.6\.0\.0\/24 via 10\.6\.0\.1 dev eth0 in the pod has source 10\.77\.0\.1, not 10\.6\.0\.\d+/,
        pod => {
          pod.ip('addr add 10.77.0.1/32 dev eth0')
          pod.ip('route replace 10.6.0.0/24 via 10.6.0.1 dev eth0 src 10.77.0.1')
        },
      ],
      [
        'the IPv6 address expires',
        /address fd00:6::\w+\/64 on eth0 expires in \d+ s/,
        pod => {
          const [{ addr_info: addresses }] = JSON.parse(pod.ip('-j -6 addr show dev eth0 scope global'))
          const address = `${addresses[0].local}/64`
          pod.ip(`addr change ${address} dev eth0 valid_lft 3600 preferred_lft 3600 noprefixroute`)
        },
      ],
      [
        'the IPv6 default route expires',
        /route ::\/0 via fd00:6::1 dev eth0 in the pod expires/,
        pod => {
          pod.ip('-6 route del default')
          pod.ip('-6 route add default via fd00:6::1 dev eth0 expires 600')
        },
      ],
      [
        'the IPv6 default route has another metric',
        /route ::\/0 via fd00:6::1 dev eth0 in the pod has metric 7, not 1024/,
        pod => {
          pod.ip('-6 route del default')
          pod.ip('-6 route add default via fd00:6::1 dev eth0 metric 7')
        },
      ],
      [
        'the address has no broadcast address',
        /address 10\.6\.0\.\d+\/24 on eth0 has no broadcast address, not 10\.6\.0\.255/,
        pod => {
          const [{ addr_info: addresses }] = JSON.parse(pod.ip('-j -4 addr show dev eth0'))
          const address = `${addresses[0].local}/24`
          pod.ip(`addr del ${address} dev eth0`)
          pod.ip(`addr add ${address} dev eth0 noprefixroute`)
        },
      ],
      [
        'the gateway on the node expires',
        /address 10\.6\.0\.1\/32 on veth[0-9a-f]{8} expires in \d+ s/,
        (_, host) => at.node.ip(`addr change 10.6.0.1/32 dev ${host} valid_lft 3600 preferred_lft 3600`),
      ],
      ...ipv6Settings.map(
        ([setting, value]): PairDamage => [
          `net.ipv6.conf.${setting} is ${value}`,
          new RegExp(`net\\.ipv6\\.conf\\.${setting.replaceAll('.', '\\.')} is .* in the pod`),
          pod => pod.run('sysctl', '-qw', `net.ipv6.conf.${setting}=${value}`),
        ],
      ),
      [
        'the pair is not the one of ADD',
        /link eth0 in the pod is not the other end of veth[0-9a-f]{8}/,
        pod => {
          const [{ address }] = JSON.parse(pod.ip('-j link show eth0')) as [{ address: string }]
          pod.ip('link set eth0 down')
          pod.ip('link set eth0 name eth9')
          pod.ip(`link add eth0 address ${address} type veth peer name eth8`)
        },
      ],
      ...(['ipv4.ip_forward', 'ipv6.conf.all.forwarding'] as const).map((setting): (typeof damages)[number] => [
        `net.${setting} is off`,
        new RegExp(`net\\.${setting.replaceAll('.', '\\.')} is off on the node`),
        () => at.node.run('sysctl', '-qw', `net.${setting}=0`),
        () => at.node.run('sysctl', '-qw', `net.${setting}=1`),
      ]),
      ['somebody flushed the rule set', /inet mooring/, () => at.node.run('nft', 'delete', 'table', 'inet', 'mooring')],
    ]
    for (const [damage, message, doIt, repair] of damages)
      testByAgent(`CHECK: finds that ${damage}`, async () => {
        const { pod, it } = newPod({ ...config(), ipMasq: true })
        const prevResult = await add(it)
        const host = prevResult.interfaces[0].name
        doIt(pod, host)
        const error = errorOf(await at.node.call('CHECK', it, { more: { prevResult } }))
        assert.equal(error.code, 103)
        assert.match(`${error.msg} ${error.details ?? ''}`, message)
        repair?.(pod, host)
        at.node.ip('-4 route flush proto boot')
        at.node.ip('route replace default via 10.10.10.1')
        await del(it)
        if (damage.includes('flushed')) await bringForGood()
        assertNothingLeft()
      })

    testByAgent(
      'CHECK: needs prevResult, asks the IPAM, lets what others added be, and changes nothing (CHK-01, CHK-03, CHK-08, CHK-09, CHK-10)',
      async () => {
        const { pod, it } = newPod()
        const prevResult = await add(it)
        pod.ip('addr add 10.77.0.1/24 dev eth0')
        pod.ip('route add 10.78.0.0/16 via 10.77.0.2')
        const was = at.node.state(pod)
        assert.equal(errorOf(await at.node.call('CHECK', it)).msg, 'Required prevResult missing')
        const foreign = { ...prevResult, routes: [...DEFAULTS, { dst: '10.55.0.0/16', gw: '10.44.0.1' }] }
        assert.deepEqual(silent(await at.node.call('CHECK', it, { more: { prevResult: foreign } })), DONE)
        const more = { ...prevResult, routes: [...DEFAULTS, { dst: '10.55.0.0/16' }] }
        assert.match(
          errorOf(await at.node.call('CHECK', it, { more: { prevResult: more } })).msg,
          /10\.55\.0\.0\/16 .* missing/,
        )
        assertSameState(at.node.state(pod), was)
        const moved = structuredClone(prevResult)
        moved.interfaces[1].sandbox = '/run/netns/other'
        assert.match(
          errorOf(await at.node.call('CHECK', it, { more: { prevResult: moved } })).msg,
          /^Sandbox in prevResult/,
        )
        rmSync(join(at.node.leases, 'ptpnet', prevResult.ips[0].address.split('/')[0]))
        assert.match(errorOf(await at.node.call('CHECK', it, { more: { prevResult } })).msg, /^host-local: /)
        await del(it)
        assertNothingLeft()
      },
    )

    // STATUS, GC

    const nobody = { containerId: '', netns: '', ifName: '', type: 'ptp' }
    testByAgent(
      'STATUS: says nothing where all is well, makes nothing, and tells what the IPAM finds (STA-01, STA-03, STA-07)',
      async () => {
        const was = at.node.state()
        for (const ipMasq of [false, true])
          assert.deepEqual(silent(await at.node.call('STATUS', { ...nobody, config: { ...config(), ipMasq } })), DONE)
        assertSameState(at.node.state(), was)
        const dataDir = join(folder('files'), 'file')
        writeFileSync(dataDir, '')
        assert.equal(errorOf(await at.node.call('STATUS', { ...nobody, config: config({ dataDir }) })).code, 50)
        const { it, options, calls } = withFakeIpam({})
        await at.node.call('STATUS', { ...nobody, config: it.config! }, options)
        assert.deepEqual(calls(), ['STATUS'])
      },
    )

    testByAgent(
      'GC: removes what is not in the list, of this network only; without a list nothing (GC-02, GC-03, GC-04, GC-06)',
      async () => {
        const own = [newPod({ ...config(), ipMasq: true }), newPod({ ...config(), ipMasq: true })]
        const other = newPod(config({ ranges: [[{ subnet: '10.7.0.0/24' }]], routes: [] }, { name: 'othernet' }))
        for (const { it } of [...own, other]) await add(it)
        await new Promise(resolve => setTimeout(resolve, 150))
        const gc = (more: object) => at.node.call('GC', { ...nobody, config: config() }, { more })
        assert.deepEqual(silent(await gc({})), DONE)
        const living = [{ containerID: own[0]!.it.containerId, ifname: 'eth0' }]
        for (const _ of [1, 2]) assert.deepEqual(silent(await gc({ 'cni.dev/valid-attachments': living })), DONE)
        assert.deepEqual(
          [...own, other].map(({ pod }) => pod.ip('-o link').includes('eth0')),
          [true, false, true],
        )
        // Somebody who calls by hand has the container of the ADD in the environment still: a GC is about no container.
        const exported = { ...own[0]!.it, config: config() }
        const none = { 'cni.dev/valid-attachments': [] }
        assert.deepEqual(silent(await at.node.call('GC', exported, { more: none })), DONE)
        assert.equal(own[0]!.pod.ip('-o link').includes('eth0'), false)
        await del(other.it)
        assertNothingLeft()
      },
    )

    testByAgent('elements come back after somebody flushed the rule set', async () => {
      const [first, second] = [newPod({ ...config(), ipMasq: true }), newPod({ ...config(), ipMasq: true })]
      const prevResult = await add(first.it)
      at.node.run('nft', 'flush', 'ruleset')
      await add(second.it)
      assert.deepEqual(silent(await at.node.call('CHECK', first.it, { more: { prevResult } })), DONE)
      for (const { it } of [first, second]) await del(it)
      await bringForGood()
      assertNothingLeft()
    })

    testByAgent('64 at once have 64 addresses, and as many DELs leave nothing', async t => {
      const all = makeManyNetns('pod', 64).map((netns, index) => ({
        containerId: `m${index}`,
        netns,
        type: 'ptp',
        config: { ...config(), ipMasq: true },
      }))
      const begin = performance.now()
      const results = (await Promise.all(all.map(it => at.node.call('ADD', it)))).map(resultOf)
      t.diagnostic(`${all.length} ADDs in ${Math.round(performance.now() - begin)} ms`)
      assert.equal(new Set(results.map(({ ips }) => ips[0].address)).size, all.length)
      assert.equal(linesOf(at.node.ip('route show proto 98')).length, all.length)
      for (const index of [0, 63])
        assert.deepEqual(
          silent(await at.node.call('CHECK', all[index]!, { more: { prevResult: results[index] } })),
          DONE,
        )
      for (const outcome of await Promise.all(all.map(it => at.node.call('DEL', it))))
        assert.deepEqual(silent(outcome), DONE)
      assertNothingLeft()
    })
  })

const linesOf = (text: string): string[] =>
  text
    .split('\n')
    .map(line => line.trim().replace(/ +/g, ' '))
    .filter(line => line !== '')
    .sort()
