// SPDX-License-Identifier: Apache-2.0

// Goal: DEL of host-device gives the node its NIC back with all that it had, whatever happened to the container, and finds what
// upstream's plugin moved. Needs root.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe } from 'node:test'
import { delTests } from './dels.ts'
import { alone, DONE, hostDeviceLab, MAC, silent, withAddress } from './host-device-lab.ts'
import { type Attachment, assertSameState, eventually, peers, resultOf, run, skip } from './nodelab.ts'

for (const mode of ['standalone', 'agent'] as const)
  describe(`host-device, DEL, ${mode}`, { skip }, () => {
    const at = hostDeviceLab(mode)
    const { testByAgent, testTwiceInWhole, newPod, call, assertBack, plugInAgain } = at

    // Without an agent the end of the namespace is that of this NIC, which is virtual.
    delTests({
      test: testByAgent,
      newPod,
      add: async it => resultOf(await call('ADD', it)),
      del: (it, more) => call('DEL', it, { ...alone, ...more }),
      assertNothingLeft: gone => (gone === 'link' ? plugInAgain() : assertBack()),
      invalid: { device: 7, hwaddr: 'x' },
      ids: 'HD-09',
    })

    testTwiceInWhole('DEL: after the namespace has died (HD-10)', async () => {
      const { pod, it } = newPod()
      resultOf(await call('ADD', it, withAddress()))
      pod.remove()
      assert.deepEqual(silent(await call('DEL', it, withAddress())), DONE)
      // A virtual link dies with its namespace, unless an agent holds that.
      if (mode === 'agent') await assertBack()
      else {
        await eventually('the pair is gone', () => !at.node.ip('-o link').includes('peer23'))
        const was = at.kept
        await plugInAgain()
        assertSameState(withoutIndex(at.kept), withoutIndex(was))
      }
    })

    testByAgent('DEL: after the agent was killed, and then the namespace (HD-10)', async () => {
      const { pod, it } = newPod()
      resultOf(await call('ADD', it))
      await at.agent.kill('SIGKILL')
      at.agent = await at.node.startAgent()
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
      at.node.ip('link add dev23 type bridge')
      assert.deepEqual(silent(await call('DEL', it)), DONE)
      const [back] = JSON.parse(at.node.ip('-j link show type veth')).filter(
        (each: { address: string }) => each.address === MAC,
      )
      assert.match(back.ifname, /^dev\d+$/)
      assert.match(at.node.ip(`-o -4 addr show ${back.ifname}`), /10\.99\.0\.5\/24/)
      at.node.ip('link del dev23')
      at.node.ip(`link set ${back.ifname} down`)
      at.node.ip(`link del ${back.ifname}`)
      await plugInAgain()
    })

    testByAgent('DEL: a port of a bridge is one again (HD-15)', async () => {
      at.node.ip('link add br9 type bridge')
      at.node.ip('link set dev23 master br9')
      const { it } = newPod()
      resultOf(await call('ADD', it))
      assert.equal(at.node.ip('link show master br9'), '')
      assert.deepEqual(silent(await call('DEL', it)), DONE)
      assert.match(at.node.ip('link show master br9'), /dev23@/)
      at.node.ip('link del br9')
    })

    testByAgent('DEL: without any record the alias tells the name, as the reference does it', async () => {
      const { pod, it } = newPod()
      at.node.ip(`link set dev23 netns ${pod.name} name eth0 alias dev23`)
      assert.deepEqual(silent(await call('DEL', { ...it, containerId: 'unknown' })), DONE)
      const [link] = JSON.parse(at.node.ip('-d -j link show dev23'))
      assert.deepEqual([link.ifalias, link.flags.includes('UP'), link.mtu], [undefined, false, 1400])
      at.node.ip('link del dev23')
      await plugInAgain()
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

    testByAgent(
      'a NIC moved by the Go plugin is brought back by ours, and the other way round',
      { skip: peers === undefined },
      async () => {
        const go = (verb: string, it: Attachment) =>
          run(
            'nsenter',
            [
              ...[`--net=${at.node.path}`, 'env', `CNI_COMMAND=${verb}`, `CNI_CONTAINERID=${it.containerId}`],
              ...[`CNI_NETNS=${it.netns}`, 'CNI_IFNAME=eth0', `CNI_PATH=${peers}`, join(peers!, 'host-device')],
            ],
            JSON.stringify({ cniVersion: '1.0.0', name: 'podnet', type: 'host-device', device: 'dev23' }),
          )
        const first = newPod()
        go('ADD', first.it)
        assert.deepEqual(silent(await call('DEL', first.it)), DONE)
        assert.match(at.node.ip('-o link'), / dev23@/)
        const second = newPod()
        resultOf(await call('ADD', second.it))
        go('DEL', second.it)
        assert.match(at.node.ip('-o link'), / dev23@/)
        assert.deepEqual(silent(await call('DEL', second.it)), DONE)
        at.node.ip('link del dev23')
        await plugInAgain()
      },
    )
  })

/** Links that were made anew have other numbers. */
const withoutIndex = (state: readonly string[]) => state.map(line => line.replace(/: \d+: /, ': '))
