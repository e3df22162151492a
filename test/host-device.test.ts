// SPDX-License-Identifier: Apache-2.0

// Goal: host-device gives a container a NIC of the node, and the node the NIC back with all that it had, whatever happened
// to the container; seen from outside, by the installed executables. Method: one end of a veth pair is the NIC. Needs root.

import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { fakeIpam } from './fake-ipam.ts'
import {
  type Attachment,
  assertSameState,
  type CallOptions,
  errorOf,
  eventually,
  folder,
  makeLab,
  makeNetns,
  type Netns,
  type Node,
  peers,
  type RunningAgent,
  resultOf,
  run,
  skip,
} from './nodelab.ts'
import { addressDamages, type PairDamage, routeDamages, settingDamages } from './pair-damages.ts'
import { testTwiceInWhole } from './suite-node.ts'

const DONE = { code: 0, stdout: '' }
const silent = ({ code, stdout }: { code: number | null; stdout: string }) => ({ code, stdout })
const status = { containerId: '', netns: '', ifName: '', type: 'host-device' }
const MAC = '02:00:00:00:00:55'
let containers = 0

for (const mode of ['standalone', 'agent'] as const)
  describe(`host-device, ${mode}`, { skip }, () => {
    let node: Node
    let agent: RunningAgent | undefined
    let kept: string[]

    before(async () => {
      node = makeLab({ mode }).nodes[0]!
      await plugIn(node)
      if (mode === 'agent') agent = await node.startAgent()
      kept = node.state()
    })
    after(() => agent?.[Symbol.asyncDispose]())
    const made: Attachment[] = []
    afterEach(async () => {
      for (const it of made.splice(0)) await node.call('DEL', it, { more: alone })
      if (node.ip('-o link').includes(' dev23@')) return
      await plugIn(node)
      kept = node.state()
    })
    /** What costs a second with a process per call, and is the same code. */
    const testByAgent = mode === 'agent' ? test : () => undefined
    const testInBoth = testTwiceInWhole(mode)

    const alone = { type: 'host-device', device: 'dev23', ipam: undefined }
    const withAddress = (more: object = {}) => ({
      ...{ type: 'host-device', device: 'dev23', cniVersion: '1.1.0' },
      ipam: {
        type: 'static',
        addresses: [{ address: '10.50.0.9/24', gateway: '10.50.0.1' }],
        routes: [{ dst: '0.0.0.0/0' }],
      },
      ...more,
    })
    const newPod = (more: Partial<Attachment> = {}): { pod: Netns; it: Attachment } => {
      const pod = makeNetns('pod')
      const it = { containerId: `c${containers++}`, netns: pod.path, type: 'host-device', ...more }
      made.push(it)
      return { pod, it }
    }
    const call = (verb: Parameters<Node['call']>[0], it: Attachment, more: object = alone, options: CallOptions = {}) =>
      node.call(verb, it, { ...options, more })
    /** The kernel tells of a carrier a moment after the link is up. */
    const assertBack = async () => {
      const isBack = () => node.state().sort().join('\n') === kept.toSorted().join('\n')
      await eventually('the NIC is back', isBack, 1_000).catch(() => undefined)
      assertSameState(node.state(), kept)
    }

    test('ADD and DEL: the NIC goes with its addresses and comes back with all it had (HD-05, HD-07, HD-08, HD-15)', async () => {
      const { pod, it } = newPod()
      const result = resultOf(await call('ADD', it, withAddress()))
      assert.deepEqual(result.interfaces, [{ name: 'eth0', mac: MAC, mtu: 1400, sandbox: it.netns }])
      assert.deepEqual(result.ips, [{ address: '10.50.0.9/24', gateway: '10.50.0.1', interface: 0 }])
      assert.equal(node.ip('-o link').includes('dev23'), false)
      const [link] = JSON.parse(pod.ip('-d -j addr show eth0'))
      assert.deepEqual([link.ifalias, link.address, link.flags.includes('UP')], ['dev23', MAC, true])
      assert.match(pod.ip('-o -4 addr show eth0'), /10\.50\.0\.9\/24/)
      assert.match(pod.ip('route'), /default via 10\.50\.0\.1 dev eth0/)
      assert.deepEqual(silent(await call('CHECK', it, withAddress({ prevResult: result }))), DONE)
      pod.ip('link set eth0 mtu 1280 address 02:00:00:00:00:77')
      assert.deepEqual(silent(await call('DEL', it, withAddress())), DONE)
      await assertBack()
    })

    test('DEL: twice, without namespace, by a plain file, is success, and the NIC is back (HD-09, DEL-01, DEL-03, DEL-05)', async () => {
      const { it } = newPod()
      resultOf(await call('ADD', it))
      assert.deepEqual(silent(await call('DEL', { ...it, netns: '' })), DONE)
      await assertBack()
      assert.deepEqual(silent(await call('DEL', it)), DONE)
      const file = join(folder('files'), 'file')
      writeFileSync(file, '')
      for (const netns of [file, '/run/netns/none', ''])
        assert.deepEqual(silent(await call('DEL', { ...it, netns })), DONE)
      await assertBack()
    })

    testInBoth('DEL: needs neither a valid configuration nor the device in it (DEL-06, DEL-08)', async () => {
      const { it } = newPod()
      resultOf(await call('ADD', it))
      assert.deepEqual(silent(await call('DEL', it, { ...alone, device: 7, hwaddr: 'x' })), DONE)
      await assertBack()
    })

    testInBoth('DEL: after the namespace has died (HD-10)', async () => {
      const { pod, it } = newPod()
      resultOf(await call('ADD', it, withAddress()))
      pod.remove()
      assert.deepEqual(silent(await call('DEL', it, withAddress())), DONE)
      // A virtual link dies with its namespace, unless an agent holds that.
      if (mode === 'agent') await assertBack()
      else {
        await eventually('the pair is gone', () => !node.ip('-o link').includes('peer23'))
        await plugIn(node)
        assertSameState(withoutIndex(node.state()), withoutIndex(kept))
        kept = node.state()
      }
    })

    testByAgent('DEL: after the agent was killed, and then the namespace (HD-10)', async () => {
      const { pod, it } = newPod()
      resultOf(await call('ADD', it))
      await agent!.kill('SIGKILL')
      agent = await node.startAgent()
      pod.remove()
      assert.deepEqual(silent(await call('DEL', it)), DONE)
      await assertBack()
    })

    testByAgent('DEL: the container renamed the NIC and took its alias (HD-11)', async () => {
      const { pod, it } = newPod()
      resultOf(await call('ADD', it))
      pod.ip('link set eth0 down')
      pod.ip('link set eth0 name hidden')
      run('ip', ['-n', pod.name, 'link', 'set', 'hidden', 'alias', ''])
      assert.deepEqual(silent(await call('DEL', it)), DONE)
      await assertBack()
    })

    testByAgent('DEL: a new namespace at the same path keeps its own interface of that name (DEL-10)', async () => {
      const { pod, it } = newPod()
      resultOf(await call('ADD', it))
      pod.remove()
      run('ip', ['netns', 'add', pod.name])
      pod.ip('link add eth0 type bridge')
      assert.deepEqual(silent(await call('DEL', it)), DONE)
      assert.match(pod.ip('-o link'), /eth0/)
      pod.remove()
      await assertBack()
    })

    testByAgent('DEL: the name is taken by another link meanwhile, which stays', async () => {
      const { it } = newPod()
      resultOf(await call('ADD', it))
      node.ip('link add dev23 type bridge')
      assert.deepEqual(silent(await call('DEL', it)), DONE)
      const [back] = JSON.parse(node.ip('-j link show type veth')).filter(
        (each: { address: string }) => each.address === MAC,
      )
      assert.match(back.ifname, /^dev\d+$/)
      assert.match(node.ip(`-o -4 addr show ${back.ifname}`), /10\.99\.0\.5\/24/)
      node.ip('link del dev23')
      node.ip(`link set ${back.ifname} down`)
      node.ip(`link del ${back.ifname}`)
      await plugIn(node)
      kept = node.state()
    })

    testByAgent('DEL: a port of a bridge is one again (HD-15)', async () => {
      node.ip('link add br9 type bridge')
      node.ip('link set dev23 master br9')
      const { it } = newPod()
      resultOf(await call('ADD', it))
      assert.equal(node.ip('link show master br9'), '')
      assert.deepEqual(silent(await call('DEL', it)), DONE)
      assert.match(node.ip('link show master br9'), /dev23@/)
      node.ip('link del br9')
    })

    testByAgent('DEL: without any record the alias tells the name, as the reference does it', async () => {
      const { pod, it } = newPod()
      node.ip(`link set dev23 netns ${pod.name} name eth0 alias dev23`)
      assert.deepEqual(silent(await call('DEL', { ...it, containerId: 'unknown' })), DONE)
      const [link] = JSON.parse(node.ip('-d -j link show dev23'))
      assert.deepEqual([link.ifalias, link.flags.includes('UP'), link.mtu], [undefined, false, 1400])
      node.ip('link del dev23')
      await plugIn(node)
      kept = node.state()
    })

    testByAgent('DEL: what an alias says is no path, and no link of the node is replaced (ROB-07)', async () => {
      const { pod, it } = newPod()
      pod.ip('link add eth0 type bridge')
      for (const alias of ['../../x', 'dev23', 'mooring veth-route a b c']) {
        run('ip', ['-n', pod.name, 'link', 'set', 'eth0', 'alias', alias])
        assert.deepEqual(silent(await call('DEL', it)), DONE)
        assert.match(pod.ip('-o link'), /eth0/)
      }
      await assertBack()
    })

    testInBoth(
      'ADD: none named, or none found, is an error in the words of the reference (HD-01, HD-02, HD-04)',
      async () => {
        const { it } = newPod()
        const wrong: [object, string][] = [
          [{ device: undefined }, 'specify either "device", "hwaddr", "kernelpath" or "pciBusID"'],
          [{ device: 'none' }, 'failed to find host device: the node has none with "device": "none"'],
          [{ device: '', hwaddr: 'x' }, 'failed to parse MAC address "x"'],
          ...['relative', '/sys/class/net/d0', '/sys/devices/../class/net/d0'].map((path): [object, string] => [
            { device: '', kernelpath: path },
            `kernel device path "${path}" must be absolute and begin with /sys/devices/`,
          ]),
          [
            { device: '', runtimeConfig: { deviceID: '0000:ff:1f.7' } },
            'runtime config DeviceID 0000:ff:1f.7 not found or unsupported',
          ],
          [
            { device: '', pciBusID: '../../x' },
            'failed to find host device: the node has none with "pciBusID": "../../x"',
          ],
        ]
        for (const [more, message] of mode === 'agent' ? wrong : wrong.slice(0, 1)) {
          const { code, msg } = errorOf(await call('ADD', it, { ...alone, ...more }))
          assert.deepEqual([code, msg], [7, message])
        }
        await assertBack()
      },
    )

    testByAgent('ADD: by MAC in any case, the name before the MAC (HD-01, HD-03)', async () => {
      for (const more of [{ device: '', hwaddr: MAC.toUpperCase() }, { hwaddr: '02:00:00:00:00:99' }]) {
        const { pod, it } = newPod()
        resultOf(await call('ADD', it, { ...alone, ...more }))
        assert.equal(JSON.parse(pod.ip('-j link show eth0'))[0].address, MAC)
        assert.deepEqual(silent(await call('DEL', it)), DONE)
      }
      await assertBack()
    })

    test('ADD: by PCI address, device path and auxiliary device, also behind virtio (HD-02, HD-03)', async () => {
      if (mode === 'agent') return
      const env = { MOORING_SYSFS: fakeSysfs() }
      const selectors = [
        { pciBusID: '0000:00:1f.6' },
        { pciBusID: '0000:00:05.0' },
        { kernelpath: '/sys/devices/pci0000:00/0000:00:1f.6' },
        { pciBusID: '0000:00:05.0', runtimeConfig: { deviceID: 'mlx5_core.sf.4' } },
      ]
      for (const more of selectors) {
        const { it } = newPod()
        const result = resultOf(await call('ADD', it, { ...alone, device: '', ...more }, { env }))
        assert.equal(result.interfaces[0].mac, MAC)
        assert.deepEqual(silent(await call('DEL', it, alone)), DONE)
      }
      await assertBack()
    })

    test('ADD: a device that a program drives stays where it is, and the IPAM plugin is asked (HD-13)', async () => {
      if (mode === 'agent') return
      const env = { MOORING_SYSFS: fakeSysfs() }
      const { pod, it } = newPod()
      const more = { ...withAddress(), device: '', pciBusID: '0000:00:06.0' }
      const result = resultOf(await call('ADD', it, more, { env }))
      assert.deepEqual(result.interfaces, [{ name: 'eth0', sandbox: it.netns }])
      assert.equal(result.ips[0].address, '10.50.0.9/24')
      assert.equal(pod.ip('-o link').includes('eth0'), false)
      assert.deepEqual(silent(await call('CHECK', it, { ...more, prevResult: result }, { env })), DONE)
      assert.deepEqual(silent(await call('DEL', it, more, { env })), DONE)
      await assertBack()
    })

    testInBoth('ADD: an interface of that name stays, and the NIC too (HD-06, COM-02)', async () => {
      const { pod, it } = newPod()
      pod.ip('link add eth0 type bridge')
      const error = errorOf(await call('ADD', it))
      assert.deepEqual(
        [error.code, error.msg],
        [104, 'Cannot attach eth0: the container has an interface of that name'],
      )
      await assertBack()
    })

    testByAgent('ADD: CNI_IFNAME may be a name that the NIC has, or that another link of the node has', async () => {
      for (const ifName of ['enp0s23', 'dev23', 'peer23']) {
        const { pod, it } = newPod({ ifName })
        resultOf(await call('ADD', it))
        assert.equal(JSON.parse(pod.ip('-j link'))[1].ifname, ifName)
        assert.deepEqual(silent(await call('DEL', it)), DONE)
        await assertBack()
      }
    })

    testByAgent('ADD: what fails after the move brings the NIC back (HD-12)', async () => {
      const { it } = newPod()
      // A gateway that is on no link.
      const routes = [{ dst: '10.9.0.0/16', gw: '10.77.0.1' }]
      const ipam = { type: 'static', addresses: [{ address: '10.50.0.9/24' }], routes }
      assert.equal(errorOf(await call('ADD', it, withAddress({ ipam }))).code, 100)
      await assertBack()
      const noAddress = { type: 'static', addresses: [] }
      errorOf(await call('ADD', it, withAddress({ ipam: noAddress })))
      await assertBack()
    })

    testByAgent('ADD: twice is an error, and the first attachment stays as it is (COM-18)', async () => {
      const { pod, it } = newPod()
      resultOf(await call('ADD', it, withAddress()))
      const was = node.state(pod)
      assert.equal(errorOf(await call('ADD', it, withAddress({ device: 'eth0', allowDefaultRoute: true }))).code, 104)
      assertSameState(node.state(pod), was)
      await call('DEL', it, withAddress())
      await assertBack()
    })

    testByAgent('ADD: a NIC that another container has is an error, and stays there', async () => {
      const [first, second] = [newPod(), newPod()]
      resultOf(await call('ADD', first.it))
      assert.match(errorOf(await call('ADD', second.it)).msg, /^failed to find host device/)
      assert.match(first.pod.ip('-o link'), /eth0/)
      await call('DEL', first.it)
      await assertBack()
    })

    testByAgent("ADD: the NIC of the node's default route only where that is meant (HD-16)", async () => {
      const { pod, it } = newPod()
      const error = errorOf(await call('ADD', it, { ...alone, device: 'eth0' }))
      assert.equal(error.msg, 'Cannot give eth0 to a container: the default route of the node leads through it')
      assert.match(error.details!, /"allowDefaultRoute": true/)
      resultOf(await call('ADD', it, { ...alone, device: 'eth0', allowDefaultRoute: true }))
      assert.match(pod.ip('-o link'), /eth0/)
      assert.deepEqual(silent(await call('DEL', it)), DONE)
      await assertBack()
    })

    testByAgent(
      "ADD: the dns is the configuration's alone, and IPv6 works at once (COM-08, COM-13, COM-17)",
      async () => {
        const { pod, it } = newPod()
        pod.run('sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.default.disable_ipv6=1')
        const ipam = {
          type: 'static',
          addresses: [{ address: '10.50.0.9/24' }, { address: 'fd00:50::9/64', gateway: 'fd00:50::1' }],
          routes: [{ dst: '::/0' }],
          dns: { nameservers: ['192.0.2.53'] },
        }
        const dns = { nameservers: ['198.51.100.53'] }
        const result = resultOf(await call('ADD', it, withAddress({ ipam, dns })))
        assert.deepEqual(result.dns, dns)
        assert.doesNotMatch(pod.ip('-o -6 addr show eth0'), /tentative/)
        assert.match(pod.ip('-6 route'), /default via fd00:50::1 dev eth0/)
        assert.deepEqual(silent(await call('CHECK', it, withAddress({ ipam, prevResult: result }))), DONE)
        await call('DEL', it)
        await assertBack()
      },
    )

    testByAgent('ADD: answers in the version that it was asked in, all seven (RES-01)', async () => {
      for (const cniVersion of ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
        const { it } = newPod()
        const result = resultOf(await call('ADD', it, withAddress({ cniVersion })))
        assert.equal(result.cniVersion, cniVersion)
        if (cniVersion >= '0.3') assert.equal(result.interfaces[0].mac, MAC)
        await call('DEL', it, withAddress({ cniVersion }))
      }
      await assertBack()
    })

    testByAgent("ADD: the NIC of the node's default route stays also where the lease names it (HD-16)", async () => {
      const { pod, it } = newPod({ type: 'host-device-plus' })
      const [{ address: mac }] = JSON.parse(node.ip('-j link show eth0'))
      const lease = { cniVersion: '1.0.0', interfaces: [{ name: 'eth0', mac }], ips: [{ address: '192.168.52.30/24' }] }
      const fake = fakeIpam(lease)
      const more = { type: 'host-device-plus', cniVersion: '1.0.0', ...fake.more }
      const outcome = await call('ADD', it, more, fake.options)
      assert.match(errorOf(outcome).msg, /^Cannot give eth0 to a container: the default route of the node/)
      assert.doesNotMatch(pod.ip('-o link'), /eth0/)
      await assertBack()
    })

    testByAgent('host-device-plus: the NIC that the lease names, also one that is still on its way', async () => {
      for (const late of [false, true]) {
        const { pod, it } = newPod({ type: 'host-device-plus' })
        const lease = {
          cniVersion: '1.0.0',
          interfaces: [{ name: 'eth7', mac: MAC }],
          ips: [{ address: '192.168.52.30/24', gateway: '192.168.52.1' }],
          routes: [{ dst: '0.0.0.0/0' }],
        }
        const fake = fakeIpam(lease)
        if (late) node.ip('link del dev23')
        const more = { type: 'host-device-plus', cniVersion: '1.0.0', ...fake.more }
        const answer = call('ADD', it, more, fake.options)
        if (late) {
          await new Promise(resolve => setTimeout(resolve, 300))
          node.ip(`link add dev23 address ${MAC} type veth peer name peer23`)
        }
        const result = resultOf(await answer)
        assert.deepEqual([result.interfaces[0].mac, result.ips[0].address], [MAC, '192.168.52.30/24'])
        assert.match(pod.ip('route'), /default via 192\.168\.52\.1 dev eth0/)
        assert.deepEqual(silent(await call('DEL', it, more, fake.options)), DONE)
        if (!late) continue
        assert.match(node.ip('-o link'), / dev23@/)
        node.ip('link del dev23')
        await plugIn(node)
        kept = node.state()
        await assertBack()
      }
    })

    const damages: PairDamage[] = [
      ...[...addressDamages, ...routeDamages, ...settingDamages],
      [
        'the NIC is gone (HD-14, CHK-04)',
        /link eth0 in the pod is missing/,
        pod => pod.ip('link set eth0 name x down'),
      ],
      ['the address is gone (CHK-05)', /address 10\.50\.0\.9\/24 is missing/, pod => pod.ip('addr flush dev eth0')],
      ['the route is gone (CHK-06)', /route 0\.0\.0\.0\/0 .*is missing/, pod => pod.ip('route del default')],
      [
        'the default route leads elsewhere (CHK-11)',
        /route 0\.0\.0\.0\/0 .*is missing/,
        pod => pod.ip('route replace default via 10.50.0.2'),
      ],
      ['the MAC is another (CHK-07)', /has MAC/, pod => pod.ip('link set eth0 address 02:00:00:00:00:99')],
      ['the MTU is another', /link eth0 in the pod has MTU 1280, not 1400/, pod => pod.ip('link set eth0 mtu 1280')],
      [
        'its name on the node is gone from its alias',
        /link eth0 in the pod is not of this attachment: its alias is "other", not "/,
        pod => pod.ip('link set eth0 alias other'),
      ],
      ['the NIC is down (CHK-12)', /eth0 in the pod is down/, pod => pod.ip('link set eth0 down')],
    ]
    for (const [damage, message, doIt] of damages)
      testByAgent(`CHECK: finds that ${damage}`, async () => {
        const { pod, it } = newPod()
        const prevResult = resultOf(await call('ADD', it, withAddress()))
        doIt(pod, '')
        const error = errorOf(await call('CHECK', it, withAddress({ prevResult })))
        assert.equal(error.code, 103)
        assert.match(`${error.msg} ${error.details ?? ''}`, message)
        assert.deepEqual(silent(await call('DEL', it, withAddress())), DONE)
        await assertBack()
      })

    testInBoth('STATUS: 50 where the device is missing, not where a container has it (STA-02)', async () => {
      const more = { ...alone, cniVersion: '1.1.0' }
      assert.deepEqual(silent(await call('STATUS', status, more)), DONE)
      const missing = errorOf(await call('STATUS', status, { ...more, device: 'none' }))
      assert.deepEqual(
        [missing.code, missing.msg],
        [50, 'failed to find host device: the node has none with "device": "none"'],
      )
      if (mode === 'standalone') return
      // A device plugin names it with the pod.
      assert.deepEqual(silent(await call('STATUS', status, { ...more, device: undefined })), DONE)
      const { it } = newPod()
      resultOf(await call('ADD', it))
      assert.deepEqual(silent(await call('STATUS', status, more)), DONE)
      await call('DEL', it)
    })

    testByAgent('GC: brings back what no valid attachment has (GC-02)', async () => {
      const { it } = newPod()
      const more = { ...alone, cniVersion: '1.1.0' }
      resultOf(await call('ADD', it, more))
      await new Promise(resolve => setTimeout(resolve, 150))
      assert.deepEqual(silent(await call('GC', status, { ...more, 'cni.dev/valid-attachments': [] })), DONE)
      await assertBack()
    })

    testByAgent(
      'a NIC moved by the Go plugin is brought back by ours, and the other way round',
      { skip: peers === undefined },
      async () => {
        const go = (verb: string, it: Attachment) =>
          run(
            'nsenter',
            [
              ...[`--net=${node.path}`, 'env', `CNI_COMMAND=${verb}`, `CNI_CONTAINERID=${it.containerId}`],
              ...[`CNI_NETNS=${it.netns}`, 'CNI_IFNAME=eth0', `CNI_PATH=${peers}`, join(peers!, 'host-device')],
            ],
            JSON.stringify({ cniVersion: '1.0.0', name: 'podnet', type: 'host-device', device: 'dev23' }),
          )
        const first = newPod()
        go('ADD', first.it)
        assert.deepEqual(silent(await call('DEL', first.it)), DONE)
        assert.match(node.ip('-o link'), / dev23@/)
        const second = newPod()
        resultOf(await call('ADD', second.it))
        go('DEL', second.it)
        assert.match(node.ip('-o link'), / dev23@/)
        assert.deepEqual(silent(await call('DEL', second.it)), DONE)
        node.ip('link del dev23')
        await plugIn(node)
        kept = node.state()
      },
    )
  })

/** A NIC of the node that has everything which moving it takes away. */
async function plugIn(node: Netns): Promise<void> {
  const lines = [
    'link add dev23 type veth peer name peer23 address 02:00:00:00:00:56',
    'link set peer23 up',
    `link set dev23 mtu 1400 address ${MAC} alias storage up`,
    'link property add dev dev23 altname enp0s23',
    'addr add 10.99.0.5/24 brd + dev dev23 label dev23:a',
    'addr add 10.99.0.6/24 dev dev23',
    'addr add fd00:99::5/64 dev dev23 nodad',
    'route add 10.98.0.0/16 via 10.99.0.1 metric 7',
    'route add default via 10.99.0.1 table 100',
    'route add 2001:db8:98::/48 via fd00:99::1',
  ]
  run('ip', ['-n', node.name, '-batch', '-'], lines.join('\n'))
  await eventually('carrier', () => (node.ip('-o link').match(/LOWER_UP/g) ?? []).length === 4)
  // The kernel makes it a moment after the address.
  await eventually('the address is used', () => node.ip('-6 route show table local').includes('fd00:99::5'))
}

/** Links that were made anew have other numbers. */
const withoutIndex = (state: readonly string[]) => state.map(line => line.replace(/: \d+: /, ': '))

/** Devices that this machine lacks: a PCI NIC, one behind virtio, one that vfio-pci drives, and an auxiliary device. */
function fakeSysfs(): string {
  const sysfs = folder('sys')
  const device = (bus: string, path: string, net: string | undefined, driver: string) => {
    const directory = join(sysfs, 'devices/pci0000:00', path)
    mkdirSync(net === undefined ? directory : join(directory, net, 'dev23'), { recursive: true })
    for (const below of [`bus/${bus}/devices`, `bus/${bus}/drivers/${driver}`])
      mkdirSync(join(sysfs, below), { recursive: true })
    symlinkSync(join(sysfs, `bus/${bus}/drivers/${driver}`), join(directory, 'driver'))
    symlinkSync(directory, join(sysfs, `bus/${bus}/devices`, path))
  }
  device('pci', '0000:00:1f.6', 'net', 'e1000e')
  device('pci', '0000:00:05.0', 'virtio2/net', 'virtio-pci')
  device('pci', '0000:00:06.0', undefined, 'vfio-pci')
  device('auxiliary', 'mlx5_core.sf.4', 'net', 'mlx5_core.sf')
  return sysfs
}
