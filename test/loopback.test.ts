// SPDX-License-Identifier: Apache-2.0

// Goal: loopback is upstream's, seen from outside: items LO of the conformance list, what upstream answers to a plain file
// at the namespace's path, and the two modes. Needs root.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { attach, withoutStrace } from './crash/strace.ts'
import {
  type Attachment,
  assertSameState,
  type CallOptions,
  errorOf,
  folder,
  makeNetns,
  type Netns,
  type Node,
  nodeOf,
  peers,
  type RunningAgent,
  resultOf,
  skip,
  start,
  stateOfKernel,
} from './nodelab.ts'

const silent = ({ code, stdout }: { code: number | null; stdout: string }) => ({ code, stdout })
const DONE = { code: 0, stdout: '' }
const config = { cniVersion: '1.1.0', name: 'lonet', type: 'loopback' }

for (const mode of ['standalone', 'agent'] as const)
  describe(`loopback, ${mode}`, { skip }, () => {
    let node: Node
    let agent: RunningAgent | undefined
    before(async () => {
      node = nodeOf(makeNetns('node'), mode)
      if (mode === 'agent') agent = await node.startAgent()
    })
    after(() => agent?.[Symbol.asyncDispose]())
    const testByAgent = mode === 'agent' ? test : () => undefined

    /** A namespace as the kernel makes it: `lo` is down, or off for IPv6 too. */
    const newPod = (settings: readonly string[] = []): { pod: Netns; it: Attachment } => {
      const pod = makeNetns('pod')
      pod.ip('link set lo down')
      if (settings.length > 0) pod.run('sysctl', '-qw', ...settings)
      return { pod, it: { containerId: pod.name, netns: pod.path, type: 'loopback', config } }
    }
    const call = (verb: Parameters<Node['call']>[0], it: Attachment, more: object = {}, options: CallOptions = {}) =>
      node.call(verb, it, { ...options, more })
    const isUp = (pod: Netns) => JSON.parse(pod.ip('-j link show lo'))[0].flags.includes('UP')

    test('ADD brings lo up and tells its addresses, whatever CNI_IFNAME says; DEL takes it down (LO-01, LO-02, LO-04, LO-05)', async () => {
      const { pod, it } = newPod()
      const was = node.state(pod)
      const result = resultOf(await call('ADD', it))
      assert.deepEqual(result, {
        cniVersion: '1.1.0',
        interfaces: [{ name: 'lo', mac: '00:00:00:00:00:00', sandbox: it.netns }],
        ips: [
          { address: '127.0.0.1/8', interface: 0 },
          { address: '::1/128', interface: 0 },
        ],
      })
      assert.ok(isUp(pod))
      assert.deepEqual(silent(await call('CHECK', it, { prevResult: result })), DONE)
      assert.deepEqual(silent(await call('DEL', it)), DONE)
      assert.ok(!isUp(pod))
      const error = errorOf(await call('CHECK', it, { prevResult: result }))
      assert.deepEqual([error.code, error.msg], [103, 'loopback interface is down'])
      assert.deepEqual(silent(await call('DEL', it)), DONE)
      assertSameState(node.state(pod), was)
    })

    test('DEL is done with a namespace that is gone, was never there, or is a plain file (LO-04, DEL-03, DEL-04, DEL-05)', async () => {
      const { pod, it } = newPod()
      resultOf(await call('ADD', it))
      pod.remove()
      const file = join(folder('files'), 'file')
      writeFileSync(file, '')
      for (const netns of [it.netns, '', '/run/netns/none', file])
        assert.deepEqual(silent(await call('DEL', { ...it, netns })), DONE)
    })

    testByAgent('what an earlier plugin made is handed on as it is (LO-02, CHN-02)', async () => {
      const prevResult = {
        cniVersion: '1.1.0',
        interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', sandbox: '/run/netns/x', mtu: 1442 }],
        ips: [{ address: '10.1.2.3/24', gateway: '10.1.2.1', interface: 0 }],
        routes: [{ dst: '0.0.0.0/0', table: 0 }],
        dns: { nameservers: ['10.0.0.53'] },
      }
      const { pod, it } = newPod()
      assert.deepEqual(resultOf(await call('ADD', it, { prevResult })), prevResult)
      assert.ok(isUp(pod))
      assert.deepEqual(silent(await call('CHECK', it, { prevResult })), DONE)
    })

    testByAgent('an address that is none of loopback is refused, and lo stays down (LO-03)', async () => {
      for (const address of ['10.0.0.1/32', 'fd00::1/128']) {
        const { pod, it } = newPod()
        pod.ip(`addr add ${address} dev lo`)
        const error = errorOf(await call('ADD', it))
        assert.equal(error.msg, `loopback interface found with non-loopback address "${address.split('/')[0]}"`)
        assert.ok(!isUp(pod))
      }
    })

    testByAgent('further addresses of loopback are no matter, the first of each family is told', async () => {
      const { pod, it } = newPod()
      pod.ip('link set lo up')
      pod.ip('addr add 127.0.0.53/8 dev lo')
      const { ips } = resultOf(await call('ADD', it))
      assert.deepEqual(
        ips.map((ip: { address: string }) => ip.address),
        ['127.0.0.1/8', '::1/128'],
      )
    })

    testByAgent('old results have ip4 and ip6; without IPv6 there is ip4 alone (LO-06, RES-01, RES-02)', async () => {
      const dual = newPod()
      const { ip4, ip6 } = resultOf(await call('ADD', dual.it, { cniVersion: '0.2.0' }))
      assert.deepEqual([ip4.ip, ip6.ip], ['127.0.0.1/8', '::1/128'])
      const { it } = newPod(['net.ipv6.conf.all.disable_ipv6=1'])
      const result = resultOf(await call('ADD', it, { cniVersion: '0.2.0' }))
      assert.deepEqual([result.ip4.ip, 'ip6' in result], ['127.0.0.1/8', false])
      const { ips } = resultOf(await call('ADD', it, { cniVersion: '0.4.0' }))
      assert.deepEqual(ips, [{ version: '4', address: '127.0.0.1/8', interface: 0 }])
    })

    testByAgent('CHECK: an address that is gone and another namespace are faults (CHK-05, CHK-08)', async () => {
      const { pod, it } = newPod()
      const prevResult = resultOf(await call('ADD', it))
      const other = structuredClone(prevResult)
      other.interfaces[0].sandbox = '/run/netns/other'
      assert.match(
        errorOf(await call('CHECK', it, { prevResult: other })).msg,
        /^Sandbox in prevResult .* doesn't match/,
      )
      assert.deepEqual(silent(await call('CHECK', it)), DONE)
      pod.ip('addr change 127.0.0.1/8 dev lo valid_lft 3600 preferred_lft 3600')
      assert.match(
        errorOf(await call('CHECK', it, { prevResult })).msg,
        /^address 127\.0\.0\.1\/8 on lo expires in \d+ s$/,
      )
      pod.ip('addr del 127.0.0.1/8 dev lo')
      const gone = 'address 127.0.0.1/8 is missing on lo'
      assert.equal(errorOf(await call('CHECK', it, { prevResult })).msg, gone)
      // Behind another plugin, whose result does not tell of it.
      assert.equal(errorOf(await call('CHECK', it)).msg, gone)
    })

    testByAgent(
      'ADD and CHECK without a namespace are error 8; STATUS and GC have nothing to do (COM-14, STA-01, GC-06)',
      async () => {
        const { it } = newPod()
        for (const verb of ['ADD', 'CHECK'] as const)
          assert.equal(errorOf(await call(verb, { ...it, netns: '/run/netns/none' })).code, 8)
        for (const verb of ['STATUS', 'GC'] as const)
          assert.deepEqual(silent(await call(verb, it, { 'cni.dev/valid-attachments': [] })), DONE)
      },
    )

    testByAgent('64 pods at once', async () => {
      const pods = Array.from({ length: 64 }, () => newPod())
      const results = (await Promise.all(pods.map(({ it }) => call('ADD', it)))).map(resultOf)
      for (const [index, { pod }] of pods.entries()) {
        assert.equal(results[index].interfaces[0].sandbox, pod.path)
        assert.ok(isUp(pod))
      }
      for (const outcome of await Promise.all(pods.map(({ it }) => call('DEL', it))))
        assert.deepEqual(silent(outcome), DONE)
    })
  })

describe('loopback, a fault in each netlink request', { skip: skip || withoutStrace }, () => {
  let node: Node
  let agent: RunningAgent
  before(async () => {
    node = nodeOf(makeNetns('node'), 'agent')
    agent = await node.startAgent()
  })
  after(() => agent?.[Symbol.asyncDispose]())

  for (const verb of ['ADD', 'DEL', 'CHECK'] as const)
    test(`${verb}: is an error that names it, and leaves lo as it was`, async () => {
      const pod = makeNetns('pod')
      pod.ip('link set lo down')
      const it = { containerId: pod.name, netns: pod.path, type: 'loopback', config }
      if (verb !== 'ADD') resultOf(await node.call('ADD', it))
      const was = node.state(pod)
      for (let when = 1; ; when++) {
        const tracer = await attach(agent.pid, 'sendto', `error=ENOBUFS:when=${when}`)
        const outcome = await node.call(verb, it, { more: { prevResult: { cniVersion: '1.1.0' } } })
        tracer.stop()
        await tracer.ended
        if (outcome.code === 0) {
          assert.ok(when > 2, `${when}`)
          break
        }
        const { code, msg } = errorOf(outcome)
        assert.deepEqual([code, /^Cannot .*\(ENOBUFS\)/.test(msg)], [11, true], outcome.stdout)
        assertSameState(node.state(pod), was, `after ENOBUFS in request ${when}`)
      }
    })
})

describe('loopback and upstream', { skip: skip || (peers === undefined && 'needs PEERS_DIR') }, () => {
  test('both leave and tell the same', async () => {
    const node = nodeOf(makeNetns('node'), 'standalone')
    const seen = await Promise.all(
      [false, true].map(async upstream => {
        const pod = makeNetns('pod')
        pod.ip('link set lo down')
        const it = { containerId: 'c1', netns: pod.path, type: 'loopback', config }
        const env = { CNI_CONTAINERID: 'c1', CNI_NETNS: pod.path, CNI_IFNAME: 'eth0', CNI_PATH: peers! }
        const call = (verb: 'ADD' | 'DEL') =>
          upstream
            ? start([join(peers!, 'loopback')], { env: { ...env, CNI_COMMAND: verb }, stdin: JSON.stringify(config) })
                .outcome
            : node.call(verb, it)
        const states = [
          resultOf(await call('ADD')),
          stateOfKernel(pod),
          resultOf(await call('DEL')),
          stateOfKernel(pod),
        ]
        return JSON.parse(JSON.stringify(states).replaceAll(pod.name, 'pod'))
      }),
    )
    assert.deepEqual(seen[0], seen[1])
  })
})
