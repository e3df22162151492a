// SPDX-License-Identifier: Apache-2.0

// Goal: host-device gives a container a NIC of the node, whatever names it, and the node the NIC back; seen from outside, by
// the installed executables. Needs root.

import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fakeIpam } from './fake-ipam.ts'
import { alone, DONE, hostDeviceLab, MAC, silent, withAddress } from './host-device-lab.ts'
import { assertSameState, errorOf, folder, resultOf, skip } from './nodelab.ts'

for (const mode of ['standalone', 'agent'] as const)
  describe(`host-device, ${mode}`, { skip }, () => {
    const at = hostDeviceLab(mode)
    const { testByAgent, testTwiceInWhole, newPod, call, assertBack, plugInAgain } = at

    test('ADD and DEL: the NIC goes with its addresses and comes back with all it had (HD-05, HD-07, HD-08, HD-15)', async () => {
      const { pod, it } = newPod()
      const result = resultOf(await call('ADD', it, withAddress()))
      assert.deepEqual(result.interfaces, [{ name: 'eth0', mac: MAC, mtu: 1400, sandbox: it.netns }])
      assert.deepEqual(result.ips, [{ address: '10.50.0.9/24', gateway: '10.50.0.1', interface: 0 }])
      assert.equal(at.node.ip('-o link').includes('dev23'), false)
      const [link] = JSON.parse(pod.ip('-d -j addr show eth0'))
      assert.deepEqual([link.ifalias, link.address, link.flags.includes('UP')], ['dev23', MAC, true])
      assert.match(pod.ip('-o -4 addr show eth0'), /10\.50\.0\.9\/24/)
      assert.match(pod.ip('route'), /default via 10\.50\.0\.1 dev eth0/)
      assert.deepEqual(silent(await call('CHECK', it, withAddress({ prevResult: result }))), DONE)
      pod.ip('link set eth0 mtu 1280 address 02:00:00:00:00:77')
      assert.deepEqual(silent(await call('DEL', it, withAddress())), DONE)
      await assertBack()
    })

    testTwiceInWhole(
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

    testTwiceInWhole('ADD: an interface of that name stays, and the NIC too (HD-06, COM-02)', async () => {
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
      const was = at.node.state(pod)
      assert.equal(errorOf(await call('ADD', it, withAddress({ device: 'eth0', allowDefaultRoute: true }))).code, 104)
      assertSameState(at.node.state(pod), was)
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
      const [{ address: mac }] = JSON.parse(at.node.ip('-j link show eth0'))
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
        if (late) at.node.ip('link del dev23')
        const more = { type: 'host-device-plus', cniVersion: '1.0.0', ...fake.more }
        const answer = call('ADD', it, more, fake.options)
        if (late) {
          await new Promise(resolve => setTimeout(resolve, 300))
          at.node.ip(`link add dev23 address ${MAC} type veth peer name peer23`)
        }
        const result = resultOf(await answer)
        assert.deepEqual([result.interfaces[0].mac, result.ips[0].address], [MAC, '192.168.52.30/24'])
        assert.match(pod.ip('route'), /default via 192\.168\.52\.1 dev eth0/)
        assert.deepEqual(silent(await call('DEL', it, more, fake.options)), DONE)
        if (!late) continue
        assert.match(at.node.ip('-o link'), / dev23@/)
        at.node.ip('link del dev23')
        await plugInAgain()
        await assertBack()
      }
    })
  })

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
