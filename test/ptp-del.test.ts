// SPDX-License-Identifier: Apache-2.0

// Goal: DEL of ptp leaves nothing, and nothing that is not its own goes, seen from outside as in ptp.test.ts. Needs root.

import assert from 'node:assert/strict'
import { describe } from 'node:test'
import { delTests } from './dels.ts'
import { assertSameState, errorOf, skip } from './nodelab.ts'
import { ptpLab } from './ptp-lab.ts'

for (const mode of ['standalone', 'agent'] as const)
  describe(`ptp, DEL, ${mode}`, { skip }, () => {
    const at = ptpLab(mode)
    const { testByAgent, testTwiceInWhole, config, newPod, assertNothingLeft, add, del, withFakeIpam } = at

    delTests({
      test: testTwiceInWhole,
      newPod: () => newPod({ ...config(), ipMasq: true }),
      add,
      del: (it, more) => at.node.call('DEL', it, { more }),
      assertNothingLeft: () => assertNothingLeft(),
      invalid: { mtu: 'wrong', ipMasq: 7 },
      forget: at.forgetEverything,
      ids: 'PTP-06, PTP-10',
    })

    testByAgent('DEL: a failing IPAM does not keep the link, and its error is told (DEL-09)', async () => {
      const { it, options, repair } = withFakeIpam({ ips: [{ address: '10.6.0.77/24', gateway: '10.6.0.1' }] }, 'DEL')
      await add(it, options)
      assert.equal(errorOf(await at.node.call('DEL', it, options)).code, 11)
      assertSameState(
        at.node.state().filter(line => !line.startsWith('attachment')),
        at.kept,
      )
      repair()
      await del(it, options)
      assertNothingLeft()
    })

    testByAgent(
      'DEL: without ADD, or with a new namespace at the path, leaves the interface that is there (DEL-02, DEL-10)',
      async () => {
        const { pod, it } = newPod()
        pod.ip('link add eth0 type veth peer name other')
        await del(it)
        assert.match(pod.ip('-o link'), /eth0/)
        const prevResult = {
          cniVersion: '1.1.0',
          interfaces: [
            { name: 'eth0', mac: '02:00:00:00:00:01' },
            { name: 'eth0', sandbox: it.netns },
          ],
        }
        await del(it, { more: { prevResult } })
        assert.match(at.node.ip('-o link'), / eth0@/, "the node's NIC has another MAC than the result tells")
        assertNothingLeft()
      },
    )
  })
