// SPDX-License-Identifier: Apache-2.0

// Goal: veth-host makes what its manual prints, and takes all of it away again whatever happened meanwhile; seen from outside,
// by the installed executables. Pods have a macvlan of the node's NIC. Needs root.

import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { delTests } from './dels.ts'
import {
  type Attachment,
  assertSameState,
  errorOf,
  makeLab,
  makeNetns,
  type Netns,
  type Node,
  peers,
  resultOf,
  skip,
  start,
  type Verb,
} from './nodelab.ts'
import { BY_NODE, inPod, lines, released, silent, vethHostLab } from './veth-host/lab.ts'
import { configOf, makePod, type Pod } from './veth-host/pods.ts'

for (const mode of ['standalone', 'agent'] as const)
  describe(`veth-host, ${mode}`, { skip }, () => {
    const at = vethHostLab(mode)
    const { testByAgent, newPod, call, assertNothingLeft } = at

    test('ADD: node and pod show what the manual prints, the default route by the NIC of the pod', async () => {
      const pod = newPod(['v4'])
      const before = inPod(pod)
      const result = resultOf(await call('ADD', pod, { ipMasq: false }))
      const [nic, host, inside] = result.interfaces
      assert.match(host.name, /^veth[0-9a-f]{8}$/)
      assert.deepEqual(
        [nic.name, inside.name, inside.sandbox, 'sandbox' in host],
        ['eth0', 'veth0', pod.it.netns, false],
      )
      assert.deepEqual(result.ips, [{ address: `${pod.v4}/24`, gateway: '10.10.10.1', interface: 0 }])
      assert.deepEqual(
        result.routes.map(({ dst, gw }: { dst: string; gw?: string }) => [dst, gw]),
        [
          ['0.0.0.0/0', undefined],
          ['10.96.0.0/12', '10.10.10.8'],
        ],
      )
      assert.deepEqual(lines(pod.netns.ip('route')), [
        'default via 10.10.10.1 dev eth0',
        `10.10.10.0/24 dev eth0 proto kernel scope link src ${pod.v4}`,
        '10.10.10.8 dev veth0 scope link',
        '10.96.0.0/12 via 10.10.10.8 dev veth0',
      ])
      assert.deepEqual(lines(at.node.ip(`route show ${pod.v4}`)), [`${pod.v4} dev ${host.name} proto 98 scope link`])
      assert.deepEqual(lines(at.node.ip('rule')).slice(1, 3), [
        `1023:\tfrom all fwmark 0x2000/0x2000 iif ${host.name} lookup main proto 98`,
        `1024:\tfrom all iif ${host.name} lookup 256 proto 98`,
      ])
      assert.deepEqual(lines(at.node.ip('route show table 256')), [`default via ${pod.v4} dev ${host.name} proto 98`])
      for (const [netns, link, mac] of [
        [at.node, host.name, host.mac],
        [pod.netns, 'veth0', inside.mac],
      ] as const) {
        const [shown] = JSON.parse(netns.ip(`-j -4 addr show ${link}`))
        assert.deepEqual(shown?.addr_info ?? [], [], 'the veth has no address')
        assert.equal(JSON.parse(netns.ip(`-j link show ${link}`))[0].address, mac)
      }
      assert.deepEqual(silent(await call('CHECK', pod, { ipMasq: false, prevResult: result })), released)
      assert.deepEqual(silent(await call('DEL', pod, { ipMasq: false, prevResult: result })), released)
      assertSameState(inPod(pod), before, 'in the pod')
      assertNothingLeft()
    })

    test('ADD: node and pod show what the manual prints, the default route by the node', async () => {
      const pod = newPod()
      const before = inPod(pod)
      const result = resultOf(await call('ADD', pod, BY_NODE))
      const host = result.interfaces[1].name
      assert.deepEqual(lines(pod.netns.ip('route')), [
        'default via 10.10.10.8 dev veth0',
        `10.10.10.0/24 dev eth0 proto kernel scope link src ${pod.v4}`,
        '10.10.10.8 dev veth0 scope link',
      ])
      assert.deepEqual(lines(pod.netns.ip('-6 route show default')), [
        'default via fd00:10::8 dev veth0 metric 1024 pref medium',
      ])
      assert.deepEqual(lines(at.node.ip('route show table 256')), [`default via ${pod.v4} dev ${host} proto 98`])
      assert.deepEqual(lines(at.node.ip('-6 route show table 256')), [
        `default via ${pod.v6} dev ${host} proto 98 metric 1024 pref medium`,
      ])
      assert.deepEqual(
        result.routes.filter(({ dst }: { dst: string }) => dst.endsWith('/0')),
        [
          { dst: '0.0.0.0/0', gw: '10.10.10.8' },
          { dst: '::/0', gw: 'fd00:10::8' },
        ],
      )
      assert.deepEqual(silent(await call('CHECK', pod, { ...BY_NODE, prevResult: result })), released)
      assert.deepEqual(silent(await call('DEL', pod, BY_NODE)), released)
      assertSameState(inPod(pod), before, 'in the pod: the default route by eth0 is back')
      assertNothingLeft()
    })

    const attachments: [what: string, keys: object][] = [
      ['', {}],
      ['by the node, not masqueraded: ', { ...BY_NODE, ipMasq: false, allowMetadata: true }],
    ]
    for (const [what, keys] of attachments) {
      let pod: Pod
      delTests({
        test: (name, run) => testByAgent(`${what}${name}`, run),
        newPod() {
          pod = newPod()
          return { pod: pod.netns, it: pod.it }
        },
        add: async () => resultOf(await call('ADD', pod, keys)),
        del: (it, more) => at.node.call('DEL', it, { more: configOf({ ...keys, ...more }) }),
        assertNothingLeft: () => assertNothingLeft(),
        invalid: { serviceCidr: 7, mtu: 'x', ipMasq: 'no' },
        link: 'veth0',
      })
    }

    testByAgent('DEL: nothing is left where the NIC was removed by hand', async () => {
      for (const [, keys] of attachments) {
        const pod = newPod()
        resultOf(await call('ADD', pod, keys))
        pod.netns.ip('link del eth0')
        resultOf(await call('DEL', pod))
        assertNothingLeft()
      }
    })

    testByAgent('DEL: nothing is left where somebody replaced rules of the node, or added to them', async () => {
      const pod = newPod()
      const { name } = resultOf(await call('ADD', pod)).interfaces[1]
      at.node.ip(`rule del pref 1023 iif ${name}`)
      at.node.ip(`rule add pref 1023 iif ${name} fwmark 0x2000/0xffff lookup main protocol 98`)
      at.node.ip(`rule add pref 1023 iif ${name} fwmark 0x4000/0x4000 lookup main`)
      at.node.ip(`-6 rule del pref 1024 iif ${name}`)
      at.node.ip(`-6 rule add pref 1024 iif ${name} lookup 300`)
      resultOf(await call('DEL', pod))
      assertNothingLeft()
    })

    if (mode === 'standalone')
      test('DEL: without a record, by what follows from the key alone', async () => {
        for (const keys of [{}, { ...BY_NODE, ipMasq: false, allowMetadata: true, nodePortMark: '0x1000' }]) {
          const pod = newPod()
          const before = inPod(pod)
          resultOf(await call('ADD', pod, keys))
          for (const end of ['', '-wal', '-shm']) rmSync(join(at.node.dataDir, `journal.db${end}`), { force: true })
          resultOf(await at.node.call('DEL', pod.it, { more: configOf() }))
          assertSameState(inPod(pod), before, 'in the pod')
          const left = at.node
            .state()
            .filter(line => !at.kept.includes(line) && !/veth_host_\w+_1000|made by|hook|^\S+ }$/.test(line))
          assert.deepEqual(
            left.filter(line => /veth[0-9a-f]{8}|lookup|attachment/.test(line)),
            [],
          )
        }
        at.keep()
      })

    if (mode === 'standalone')
      test('ADD and CHECK: the address of the node by which the pod is spoken to', async () => {
        at.node.ip('addr add 10.88.0.1/24 dev lo')
        const pod = newPod(['v4'])
        const result = resultOf(await call('ADD', pod))
        assert.deepEqual(lines(at.node.ip(`route show ${pod.v4}`)), [
          `${pod.v4} dev ${result.interfaces[1].name} proto 98 scope link src 10.10.10.8`,
        ])
        at.node.ip('addr add 10.10.10.7/24 dev eth0')
        at.node.run('sysctl', '-qw', 'net.ipv4.conf.eth0.promote_secondaries=1')
        at.node.ip('addr del 10.10.10.8/24 dev eth0')
        const error = errorOf(await call('CHECK', pod, { prevResult: result }))
        assert.match(error.msg, /the node has lost its address 10\.10\.10\.8, which is the pod's next hop/)
        resultOf(await call('DEL', pod))
        at.node.ip('addr del 10.10.10.7/24 dev eth0')
        at.node.ip('addr add 10.10.10.8/24 dev eth0')
        at.node.ip('route add default via 10.10.10.1')
        at.node.ip('addr del 10.88.0.1/24 dev lo')
        assertNothingLeft()
      })

    testByAgent('ADD twice is error 104, and the first stays whole', async () => {
      const pod = newPod()
      const result = resultOf(await call('ADD', pod))
      const error = errorOf(await call('ADD', pod))
      assert.deepEqual(
        [error.code, error.msg],
        [104, `Cannot attach eth0: container ${pod.it.containerId} has it already`],
      )
      assert.deepEqual(silent(await call('CHECK', pod, { prevResult: result })), released)
      await call('DEL', pod)
    })

    testByAgent('ADD: what cannot be is refused in words, and nothing is left', async () => {
      const cases: [object, number, RegExp][] = [
        [{ prevResult: undefined }, 7, /^must be called as chained plugin: "prevResult" is missing$/],
        [{ serviceCidr: undefined }, 7, /"serviceCidr" is missing/],
        [{ serviceCidr: '10.96.0.0' }, 7, /"serviceCidr" is "10.96.0.0", want NETWORK\/LENGTH/],
        [{ serviceCidr: ['10.96.0.0/12', 'x'] }, 7, /"serviceCidr\[1\]" is "x"/],
        [{ hostInterface: 'eth9' }, 7, /^Cannot find host interface "eth9"$/],
        [{ hostInterface: 'lo' }, 7, /^Cannot attach: |^Cannot (route|join)/],
        [{ containerInterface: 'eth0' }, 7, /"containerInterface" is "eth0", which is the pod's own NIC/],
        [{ containerInterface: 'a/b' }, 7, /"containerInterface" is "a\/b"/],
        [{ containerInterface: 'lo' }, 104, /^Cannot attach lo: the container has an interface of that name$/],
        [{ nodePortMark: '0x4000' }, 7, /"nodePortMark" is 0x4000, which is Kubernetes' own/],
        [{ nodePortMark: 3 }, 7, /"nodePortMark" is 0x3, want a single bit/],
        [{ nodePorts: '1:2:3' }, 7, /"nodePorts" is "1:2:3", want FROM:TO/],
        [{ routeTableStart: 0 }, 7, /"routeTableStart" is 0/],
        [{ mtu: 9000 }, 7, /^invalid MTU 9000, must be \[0, eth0 MTU\(1500\)\]$/],
        [{ ipMasq: 'yes' }, 7, /"ipMasq" is a string, want true or false/],
      ]
      const pod = newPod()
      for (const [keys, code, text] of cases) {
        const error = errorOf(await call('ADD', pod, keys))
        assert.equal(error.code, code, JSON.stringify(error))
        assert.match(error.msg, text)
      }
      const bare = { ...pod.prevResult, ips: [] }
      assert.match(errorOf(await call('ADD', pod, { prevResult: bare })).msg, /prevResult has no address of eth0/)
      const own = { ...pod.prevResult, ips: [{ address: '10.10.10.8/24', interface: 0 }] }
      assert.match(errorOf(await call('ADD', pod, { prevResult: own })).msg, /10\.10\.10\.8, which is the node's own/)
      pod.netns.ip('link del eth0')
      assert.match(errorOf(await call('ADD', pod)).msg, /the container has no interface eth0/)
      assertNothingLeft()
    })

    testByAgent('ADD: the MTU is the smaller one, or "mtu"', async () => {
      for (const [nic, keys, want] of [
        [1400, {}, 1400],
        [1500, { mtu: 1300 }, 1300],
      ] as const) {
        const pod = newPod(['v4'])
        pod.netns.ip(`link set eth0 mtu ${nic}`)
        const { interfaces } = resultOf(await call('ADD', pod, { ...keys, cniVersion: '1.1.0' }))
        assert.deepEqual([interfaces[1].mtu, interfaces[2].mtu], [want, want])
        assert.equal(JSON.parse(pod.netns.ip('-j link show veth0'))[0].mtu, want)
        await call('DEL', pod)
      }
    })

    testByAgent(
      'ADD: beside a default route by the at.node, services have routes where others would lead elsewhere',
      async () => {
        const pod = newPod()
        pod.netns.ip('route add 10.0.0.0/8 via 10.10.10.1')
        const result = resultOf(await call('ADD', pod, BY_NODE))
        assert.deepEqual(lines(pod.netns.ip('route show 10.96.0.0/12')), ['10.96.0.0/12 via 10.10.10.8 dev veth0'])
        assert.equal(pod.netns.ip('-6 route show fd00:96::/108'), '')
        assert.deepEqual(silent(await call('CHECK', pod, { ...BY_NODE, prevResult: result })), released)
        await call('DEL', pod, BY_NODE)
      },
    )

    testByAgent('ADD: a pod with further addresses speaks to the node from the one that the result names', async () => {
      const pod = newPod(['v4'])
      pod.netns.ip('link add other type veth peer name otherp')
      pod.netns.ip('addr add 10.99.0.1/24 dev other')
      resultOf(await call('ADD', pod, BY_NODE))
      assert.deepEqual(lines(pod.netns.ip('route show dev veth0')), [
        `default via 10.10.10.8 src ${pod.v4}`,
        `10.10.10.8 scope link src ${pod.v4}`,
      ])
      await call('DEL', pod, BY_NODE)
    })

    testByAgent('ADD: tables that somebody has are left alone', async () => {
      at.node.ip('rule add from 10.1.1.1 lookup 256')
      at.node.ip('route add 10.2.2.0/24 dev eth0 table 257')
      const [first, second] = [newPod(), newPod()]
      for (const [pod, table] of [
        [first, 258],
        [second, 259],
      ] as const) {
        const host = resultOf(await call('ADD', pod)).interfaces[1].name
        assert.match(at.node.ip('rule'), new RegExp(`1024:\\s+from all iif ${host} lookup ${table} proto 98`))
      }
      await call('DEL', first)
      const third = newPod()
      resultOf(await call('ADD', third, { routeTableStart: 258 }))
      assert.match(at.node.ip('route show table 258'), new RegExp(`^default via ${third.v4} `))
      for (const pod of [second, third]) await call('DEL', pod)
      assert.deepEqual(lines(at.node.ip('route show table 257')), ['10.2.2.0/24 dev eth0 scope link'])
      at.node.ip('rule del from 10.1.1.1 lookup 256')
      at.node.ip('route del 10.2.2.0/24 dev eth0 table 257')
      assertNothingLeft()
    })

    for (const [whose, directory] of [
      ['ours', undefined],
      ["upstream's", peers],
    ] as const)
      testByAgent(`a chain behind macvlan, ${whose}: CHECK is content with it, DEL leaves nothing`, async t => {
        if (whose !== 'ours' && directory === undefined) return t.skip('needs lab/peers')
        const first = (verb: Verb, it: Attachment, config: object) => {
          if (directory === undefined) return at.node.call(verb, it, { more: config })
          const env = {
            ...{ CNI_COMMAND: verb, CNI_CONTAINERID: it.containerId, CNI_NETNS: it.netns, CNI_IFNAME: 'eth0' },
            CNI_PATH: directory,
          }
          const command = ['/usr/bin/nsenter', `--net=${at.node.path}`, join(directory, 'macvlan')]
          return start(command, { env, stdin: JSON.stringify(config) }).outcome
        }
        for (const keys of [{}, BY_NODE]) {
          const netns = makeNetns('pod')
          const it = { containerId: `chain${keys === BY_NODE}`, netns: netns.path }
          const macvlan = { ...at.node.config(), type: 'macvlan', master: 'eth0', name: 'chain' }
          const inner = resultOf(await first('ADD', { ...it, type: 'macvlan' }, macvlan))
          const more = { ...configOf(keys), serviceCidr: '10.96.0.0/12', name: 'chain', prevResult: inner }
          const prevResult = resultOf(await at.node.call('ADD', { ...it, type: 'veth-host' }, { more }))
          assert.deepEqual(prevResult.interfaces.slice(0, 1), inner.interfaces)
          assert.deepEqual(prevResult.ips, inner.ips)
          resultOf(await first('CHECK', { ...it, type: 'macvlan' }, { ...macvlan, prevResult }))
          resultOf(await at.node.call('CHECK', { ...it, type: 'veth-host' }, { more: { ...more, prevResult } }))
          resultOf(await at.node.call('DEL', { ...it, type: 'veth-host' }, { more: { ...more, prevResult } }))
          resultOf(await first('DEL', { ...it, type: 'macvlan' }, { ...macvlan, prevResult }))
          netns.remove()
          assertNothingLeft()
        }
      })

    testByAgent('two networks may have marks of their own', async () => {
      const [first, second] = [newPod(), newPod()]
      const other = { nodePortMark: '0x10', containerInterface: 'svc0' }
      const results = [resultOf(await call('ADD', first)), resultOf(await call('ADD', second, other))]
      assert.match(at.node.ip('rule'), /1023:\s+from all fwmark 0x10\/0x10 iif veth\w+ lookup main/)
      assert.match(second.netns.ip('route'), /10\.96\.0\.0\/12 via 10\.10\.10\.8 dev svc0/)
      assert.deepEqual(silent(await call('CHECK', first, { prevResult: results[0] })), released)
      assert.deepEqual(silent(await call('CHECK', second, { ...other, prevResult: results[1] })), released)
      resultOf(await call('DEL', second, other))
      resultOf(await call('DEL', first))
      at.keep()
    })

    testByAgent('a late DEL whose CNI_NETNS is another container’s by now leaves that one whole', async () => {
      const [old, young] = [newPod(), newPod()]
      resultOf(await call('ADD', old))
      const result = resultOf(await call('ADD', young))
      resultOf(await at.node.call('DEL', { ...old.it, netns: young.it.netns }, { more: configOf() }))
      assert.deepEqual(silent(await call('CHECK', young, { prevResult: result })), released)
      resultOf(await call('DEL', young))
      assertNothingLeft()
    })
  })

/** A family that the node has not. */
describe('veth-host on a node without IPv6 addresses', { skip }, () => {
  let node: Node
  before(() => {
    node = makeLab().nodes[0]!
    node.ip('addr del fd00:10::8/64 dev eth0')
  })
  const netnsOf = (pod: Pod): Netns => pod.netns

  test('a dual-stack pod is joined by IPv4, its IPv6 stays as it was; a service network of IPv6 is refused', async () => {
    const pod = makePod(node)
    const before = netnsOf(pod).ip('-6 route show default')
    const more = configOf({ prevResult: pod.prevResult, ...BY_NODE })
    const error = errorOf(await node.call('ADD', pod.it, { more }))
    assert.deepEqual([error.code, error.msg], [7, 'Cannot route fd00:96::/108 by eth0: it has no IPv6 address'])
    const ipv4 = { ...more, serviceCidr: '10.96.0.0/12' }
    resultOf(await node.call('ADD', pod.it, { more: ipv4 }))
    assert.equal(netnsOf(pod).ip('-6 route show default'), before)
    resultOf(await node.call('DEL', pod.it, { more: ipv4 }))
    const alone = makePod(node, ['v6'])
    const refused = errorOf(await node.call('ADD', alone.it, { more: { ...ipv4, prevResult: alone.prevResult } }))
    assert.match(refused.msg, /Cannot join the pod by eth0: it has no address of the same version as the pod/)
  })
})
