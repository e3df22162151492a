// SPDX-License-Identifier: Apache-2.0

// What macvlan and ipvlan promise alike: CHECK, STATUS and GC.

import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { fakeIpam } from '../fake-ipam.ts'
import { type Attachment, assertSameState, errorOf } from '../nodelab.ts'
import { addressDamages, type PairDamage, routeDamages, settingDamages } from '../pair-damages.ts'
import { type ChildSuite, RELEASED, silent } from './lab.ts'

/** Registers them, for a suite that has started its node. */
export function checkTests({ kind, lab, pod, testOnce }: ChildSuite): void {
  const { add, del, call, assertNothingLeft } = lab
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

  const damages: readonly PairDamage[] = [
    ...addressDamages,
    ...routeDamages,
    ...settingDamages,
    ...(
      [
        ['it is gone (CHK-04)', 'link del eth0', /link eth0 in the pod is missing/],
        ['it is down (CHK-12)', 'link set eth0 down', /link eth0 in the pod is down/],
        ['its address is gone (CHK-05)', 'addr flush dev eth0', /address 10\.10\.10\.\d+\/24 is missing on eth0/],
        [
          'its route is gone (CHK-06)',
          'route del default',
          /route 0\.0\.0\.0\/0 via 10\.10\.10\.1 dev eth0 is missing/,
        ],
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
      ] as const
    ).map(([what, how, fault]): PairDamage => [what, fault, netns => netns.ip(how)]),
  ]
  for (const [what, fault, damage] of damages)
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
      damage(netns, '')
      const error = errorOf(await call('CHECK', it, { prevResult }))
      assert.equal(error.code, 103)
      assert.match(`${error.msg}; ${error.details ?? ''}`, fault)
      await del(it)
      assertNothingLeft()
    })

  testOnce('CHECK: finds another link of the same kind and name, which DEL would not', async () => {
    const { pod: netns, it } = pod()
    const prevResult = await add(it)
    const [{ address, ifalias }] = JSON.parse(netns.ip('-j link show eth0'))
    netns.ip('link del eth0')
    const mode = kind === 'macvlan' ? 'bridge' : 'l2'
    lab.node.run('ip', 'link', 'add', 'link', 'eth0', 'name', 'other0', 'netns', netns.name, 'type', kind, 'mode', mode)
    netns.run('ip', 'link', 'set', 'other0', 'name', 'eth0', 'alias', ifalias)
    if (kind === 'macvlan') netns.ip(`link set eth0 address ${address}`)
    netns.ip('link set eth0 up')
    const { msg, details } = errorOf(await call('CHECK', it, { prevResult }))
    assert.match(
      `${msg}; ${details}`,
      /link eth0 in the pod is another than the one that was made: its number is \d+, not \d+/,
    )
    netns.ip('link del eth0')
    await del(it)
    assertNothingLeft()
  })

  testOnce('CHECK: finds what expires, and the settings for IPv6', async () => {
    const { pod: netns, it } = pod()
    const ipam = { type: 'host-local', dataDir: lab.node.leases, ranges: [[{ subnet: 'fd00:77::/64' }]] }
    const more = { ipam: { ...ipam, routes: [{ dst: '2001:db8::/32', gw: 'fd00:77::1' }] } }
    const prevResult = await add(it, more)
    const own = prevResult.ips[0].address
    const route = '2001:db8::/32 via fd00:77::1 dev eth0'
    const damages = [
      ['sysctl -qw net.ipv6.conf.eth0.ndisc_notify=0', 'net.ipv6.conf.eth0.ndisc_notify is off in the pod'],
      ['sysctl -qw net.ipv6.conf.eth0.keep_addr_on_down=0', 'net.ipv6.conf.eth0.keep_addr_on_down is off in the pod'],
      ['sysctl -qw net.ipv6.conf.lo.disable_ipv6=1', 'net.ipv6.conf.lo.disable_ipv6 is 1, not 0, in the pod'],
      [`ip -6 route change ${route} metric 1024 expires 600`, `route ${route} in the pod expires`],
      [`ip addr change ${own} dev eth0 preferred_lft 0`, `address ${own} on eth0 is deprecated`],
      [`ip addr change ${own} dev eth0 valid_lft 3600 preferred_lft 3600`, `address ${own} on eth0 expires in `],
    ] as const
    for (const [damage, fault] of damages) {
      netns.run('sh', '-c', damage)
      const { msg, details } = errorOf(await call('CHECK', it, { ...more, prevResult }))
      assert.ok(`${msg}; ${details}`.includes(fault), `${damage}: ${msg}; ${details}`)
    }
    await del(it, more)
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
}
