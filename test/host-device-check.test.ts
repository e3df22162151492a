// SPDX-License-Identifier: Apache-2.0

// Goal: CHECK, STATUS and GC of host-device. Needs root.

import assert from 'node:assert/strict'
import { describe } from 'node:test'
import { alone, DONE, hostDeviceLab, silent, withAddress } from './host-device-lab.ts'
import { errorOf, resultOf, skip } from './nodelab.ts'
import { addressDamages, type PairDamage, routeDamages, settingDamages } from './pair-damages.ts'

for (const mode of ['standalone', 'agent'] as const)
  describe(`host-device, CHECK, STATUS and GC, ${mode}`, { skip }, () => {
    const at = hostDeviceLab(mode)
    const { testByAgent, testTwiceInWhole, newPod, call, assertBack } = at

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

    testTwiceInWhole('STATUS: 50 where the device is missing, not where a container has it (STA-02)', async () => {
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
  })

const status = { containerId: '', netns: '', ifName: '', type: 'host-device' }
