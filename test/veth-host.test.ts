// SPDX-License-Identifier: Apache-2.0

// Goal: veth-host makes what its manual prints, takes all of it away again whatever happened meanwhile, and tells what is
// damaged; seen from outside, by the installed executables. Pods have a macvlan of the node's NIC. Needs root.

import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import {
  type Attachment,
  assertSameState,
  type CallOptions,
  errorOf,
  folder,
  makeLab,
  makeNetns,
  type Netns,
  type Node,
  peers,
  type RunningAgent,
  resultOf,
  skip,
  start,
  stateOfKernel,
  type Verb,
} from './nodelab.ts'
import { configOf, makePod, type Pod, type Version } from './veth-host/pods.ts'

const released = { code: 0, stdout: '' }
const silent = ({ code, stdout }: { code: number | null; stdout: string }) => ({ code, stdout })
const BY_NODE = { isDefaultGateway: true }
/** Without the space that `ip` ends its lines with. */
const lines = (text: string) =>
  text
    .split('\n')
    .map(line => line.trim())
    .filter(line => line !== '')

/** The anycast address that a forwarding machine has follows from the setting, which stays. */
const inPod = ({ netns }: Pod) => stateOfKernel(netns).filter(line => !line.includes(': anycast '))

for (const mode of ['standalone', 'agent'] as const)
  describe(`veth-host, ${mode}`, { skip }, () => {
    let node: Node
    let agent: RunningAgent | undefined
    let kept: string[]
    /** What costs a second with a process per call, and is the same code. */
    const testByAgent = mode === 'agent' ? test : () => undefined

    before(async () => {
      node = makeLab({ mode }).nodes[0]!
      if (mode === 'agent') agent = await node.startAgent()
      await bringForGood()
      kept = node.state()
    })
    /** The table of nf_tables, settings. */
    async function bringForGood(): Promise<void> {
      const pod = newPod()
      resultOf(await call('ADD', pod))
      resultOf(await call('DEL', pod))
    }
    after(() => agent?.[Symbol.asyncDispose]())

    const made: Pod[] = []
    // So that a test that failed does not make the next ones fail.
    afterEach(async context => {
      for (const pod of made.splice(0)) {
        if (!('passed' in context && context.passed)) await call('DEL', pod)
        pod.netns.remove()
      }
    })
    function newPod(families?: readonly Version[]): Pod {
      const pod = makePod(node, families)
      made.push(pod)
      return pod
    }
    const call = (verb: 'ADD' | 'DEL' | 'CHECK', pod: Pod, keys: object = {}, options: CallOptions = {}) =>
      node.call(verb, pod.it, { ...options, more: configOf({ prevResult: pod.prevResult, ...keys }) })
    const assertNothingLeft = (when = '') => assertSameState(node.state(), kept, when)

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
      assert.deepEqual(lines(node.ip(`route show ${pod.v4}`)), [`${pod.v4} dev ${host.name} proto 98 scope link`])
      assert.deepEqual(lines(node.ip('rule')).slice(1, 3), [
        `1023:\tfrom all fwmark 0x2000/0x2000 iif ${host.name} lookup main proto 98`,
        `1024:\tfrom all iif ${host.name} lookup 256 proto 98`,
      ])
      assert.deepEqual(lines(node.ip('route show table 256')), [`default via ${pod.v4} dev ${host.name} proto 98`])
      for (const [netns, link, mac] of [
        [node, host.name, host.mac],
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
      assert.deepEqual(lines(node.ip('route show table 256')), [`default via ${pod.v4} dev ${host} proto 98`])
      assert.deepEqual(lines(node.ip('-6 route show table 256')), [
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

    testByAgent('DEL: nothing is left without record, namespace, prevResult or a valid configuration', async () => {
      const ways: [string, (pod: Pod) => Promise<void>][] = [
        [
          'no CNI_NETNS',
          async pod => void resultOf(await node.call('DEL', { ...pod.it, netns: '' }, { more: configOf() })),
        ],
        [
          'the namespace is gone',
          async pod => {
            pod.netns.remove()
            resultOf(await node.call('DEL', pod.it, { more: configOf() }))
          },
        ],
        [
          'the namespace is a file',
          async pod => {
            pod.netns.remove()
            const file = join(folder('netns'), 'file')
            writeFileSync(file, '')
            resultOf(await node.call('DEL', { ...pod.it, netns: file }, { more: configOf() }))
          },
        ],
        ['twice', async pod => void [resultOf(await call('DEL', pod)), resultOf(await call('DEL', pod))]],
        ['no prevResult', async pod => void resultOf(await node.call('DEL', pod.it, { more: configOf() }))],
        ['invalid', async pod => void resultOf(await call('DEL', pod, { serviceCidr: 7, mtu: 'x', ipMasq: 'no' }))],
        [
          'the link was removed by hand',
          async pod => {
            pod.netns.ip('link del veth0')
            resultOf(await call('DEL', pod))
          },
        ],
        [
          'eth0 was removed by hand',
          async pod => {
            pod.netns.ip('link del eth0')
            resultOf(await call('DEL', pod))
          },
        ],
      ]
      for (const keys of [{}, { ...BY_NODE, ipMasq: false, allowMetadata: true }])
        for (const [what, del] of ways) {
          const pod = newPod()
          resultOf(await call('ADD', pod, keys))
          await del(pod)
          assertNothingLeft(what)
        }
    })

    if (mode === 'standalone')
      test('DEL: without a record, by what follows from the key alone', async () => {
        for (const keys of [{}, { ...BY_NODE, ipMasq: false, allowMetadata: true, nodePortMark: '0x1000' }]) {
          const pod = newPod()
          const before = inPod(pod)
          resultOf(await call('ADD', pod, keys))
          for (const end of ['', '-wal', '-shm']) rmSync(join(node.dataDir, `journal.db${end}`), { force: true })
          resultOf(await node.call('DEL', pod.it, { more: configOf() }))
          assertSameState(inPod(pod), before, 'in the pod')
          const left = node
            .state()
            .filter(line => !kept.includes(line) && !/veth_host_\w+_1000|made by|hook|^\S+ }$/.test(line))
          assert.deepEqual(
            left.filter(line => /veth[0-9a-f]{8}|lookup|attachment/.test(line)),
            [],
          )
        }
        kept = node.state()
      })

    if (mode === 'standalone')
      test('ADD and CHECK: the address of the node by which the pod is spoken to', async () => {
        node.ip('addr add 10.88.0.1/24 dev lo')
        const pod = newPod(['v4'])
        const result = resultOf(await call('ADD', pod))
        assert.deepEqual(lines(node.ip(`route show ${pod.v4}`)), [
          `${pod.v4} dev ${result.interfaces[1].name} proto 98 scope link src 10.10.10.8`,
        ])
        node.ip('addr add 10.10.10.7/24 dev eth0')
        node.run('sysctl', '-qw', 'net.ipv4.conf.eth0.promote_secondaries=1')
        node.ip('addr del 10.10.10.8/24 dev eth0')
        const error = errorOf(await call('CHECK', pod, { prevResult: result }))
        assert.match(error.msg, /the node has lost its address 10\.10\.10\.8, which is the pod's next hop/)
        resultOf(await call('DEL', pod))
        node.ip('addr del 10.10.10.7/24 dev eth0')
        node.ip('addr add 10.10.10.8/24 dev eth0')
        node.ip('route add default via 10.10.10.1')
        node.ip('addr del 10.88.0.1/24 dev lo')
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
      'ADD: beside a default route by the node, services have routes where others would lead elsewhere',
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
      node.ip('rule add from 10.1.1.1 lookup 256')
      node.ip('route add 10.2.2.0/24 dev eth0 table 257')
      const [first, second] = [newPod(), newPod()]
      for (const [pod, table] of [
        [first, 258],
        [second, 259],
      ] as const) {
        const host = resultOf(await call('ADD', pod)).interfaces[1].name
        assert.match(node.ip('rule'), new RegExp(`1024:\\s+from all iif ${host} lookup ${table} proto 98`))
      }
      await call('DEL', first)
      const third = newPod()
      resultOf(await call('ADD', third, { routeTableStart: 258 }))
      assert.match(node.ip('route show table 258'), new RegExp(`^default via ${third.v4} `))
      for (const pod of [second, third]) await call('DEL', pod)
      assert.deepEqual(lines(node.ip('route show table 257')), ['10.2.2.0/24 dev eth0 scope link'])
      node.ip('rule del from 10.1.1.1 lookup 256')
      node.ip('route del 10.2.2.0/24 dev eth0 table 257')
      assertNothingLeft()
    })

    testByAgent('CHECK names each part that is missing or other than it was', async () => {
      const commonBreaks: [string, (pod: Pod, host: string) => void, RegExp][] = [
        [
          'host route',
          (pod, host) => node.ip(`route del ${pod.v4} dev ${host}`),
          /route \S+ dev veth\w+ is missing on the node/,
        ],
        [
          'IPv6 host route',
          (pod, host) => node.ip(`-6 route del ${pod.v6} dev ${host}`),
          /route fd00:\S+ dev veth\w+ is missing on the node/,
        ],
        [
          'rule 1024',
          (_, host) => node.ip(`rule del iif ${host} pref 1024`),
          /rule 1024 iif veth\w+ lookup 256 is missing on the node/,
        ],
        [
          'rule 1023',
          (_, host) => node.ip(`-6 rule del iif ${host} pref 1023`),
          /rule 1023 fwmark 0x2000 iif veth\w+ lookup 254 is missing on the node/,
        ],
        [
          'table',
          () => node.ip('route flush table 256'),
          /route default via \S+ dev veth\w+ table 256 is missing on the node/,
        ],
        [
          'neighbour',
          (pod, host) => node.ip(`neigh del ${pod.v4} dev ${host}`),
          /neighbour \S+ lladdr \S+ dev veth\w+ is missing on the node/,
        ],
        ['link down', (_, host) => node.ip(`link set ${host} down`), /link veth\w+ on the node is down/],
        [
          'MAC',
          (_, host) => node.ip(`link set ${host} address 02:00:00:00:00:01`),
          /link veth\w+ on the node has MAC 02:00:00:00:00:01, not/,
        ],
        ['MTU', (_, host) => node.ip(`link set ${host} mtu 1400`), /link veth\w+ on the node has MTU 1400, not 1500/],
        [
          'MTU in the pod',
          pod => pod.netns.ip('link set veth0 mtu 1400'),
          /link veth0 in the pod has MTU 1400, not 1500/,
        ],
        [
          'another pair',
          pod => {
            const [{ address }] = JSON.parse(pod.netns.ip('-j link show veth0')) as [{ address: string }]
            pod.netns.ip('link set veth0 name veth9 down')
            pod.netns.ip(`link add veth0 address ${address} type veth peer name veth8`)
          },
          /link veth0 in the pod is not the other end of veth\w+/,
        ],
        [
          'strict link',
          (_, host) => node.run('sysctl', '-qw', `net.ipv4.conf.${host}.rp_filter=1`),
          /rp_filter of veth\w+ is strict on the node/,
        ],
        [
          'strict in the pod',
          pod => pod.netns.run('sysctl', '-qw', 'net.ipv4.conf.veth0.rp_filter=1'),
          /rp_filter of veth0 is strict in the pod/,
        ],
        ['alias', (_, host) => node.ip(`link set ${host} alias other`), /is not of this attachment/],
        [
          'strict',
          () => node.run('sysctl', '-qw', 'net.ipv4.conf.eth0.rp_filter=1'),
          /rp_filter of eth0 is strict on the node/,
        ],
        [
          'forwarding',
          () => node.run('sysctl', '-qw', 'net.ipv4.ip_forward=0'),
          /net.ipv4.ip_forward is off on the node/,
        ],
        [
          'element',
          (pod, host) => node.run('nft', `delete element inet mooring veth_host_addresses_v4 { ${host} . ${pod.v4} }`),
          /element veth\w+ . \S+ of set inet mooring veth_host_addresses_v4 is missing/,
        ],
        [
          'map',
          (pod, host) => node.run('nft', `delete element inet mooring veth_host_nodes_v6 { ${host} . ${pod.v6} }`),
          /of map inet mooring veth_host_nodes_v6 is missing/,
        ],
        [
          'rules',
          () => node.run('nft', 'flush', 'chain', 'inet', 'mooring', 'veth_host_snat'),
          /the rules of chain inet mooring veth_host_snat are not there/,
        ],
        [
          'veth in the pod',
          pod => pod.netns.ip('link del veth0'),
          /link veth\w+ on the node is missing.*link veth0 in the pod is missing/,
        ],
        ['link down in the pod', pod => pod.netns.ip('link set veth0 down'), /link veth0 in the pod is down/],
        [
          'MAC in the pod',
          pod => pod.netns.ip('link set veth0 address 02:00:00:00:00:01'),
          /link veth0 in the pod has MAC/,
        ],
        [
          'service route',
          pod => pod.netns.ip('route del 10.96.0.0/12'),
          /route 10.96.0.0\/12 via 10.10.10.8 dev veth0 is missing in the pod/,
        ],
        [
          'IPv6 service route',
          pod => pod.netns.ip('-6 route del fd00:96::/108'),
          /route fd00:96::\/108 via fd00:10::8 dev veth0 is missing in the pod/,
        ],
        [
          'route to the node',
          pod => pod.netns.ip('-6 route del fd00:10::8'),
          /route fd00:10::8\/128 dev veth0 is missing in the pod/,
        ],
        [
          'neighbour in the pod',
          pod => pod.netns.ip('neigh del 10.10.10.8 dev veth0'),
          /neighbour 10.10.10.8 lladdr \S+ dev veth0 is missing in the pod/,
        ],
        [
          'rule in the pod',
          pod => pod.netns.ip('rule del fwmark 0x2000/0x2000 pref 1024'),
          /rule 1024 fwmark 0x2000 lookup 256 is missing in the pod/,
        ],
        [
          'table in the pod',
          pod => pod.netns.ip('-6 route flush table 256'),
          /route default via fd00:10::8 dev veth0 table 256 is missing in the pod/,
        ],
        [
          'rules in the pod',
          pod => pod.netns.run('nft', 'flush', 'chain', 'inet', 'mooring-veth0', 'output'),
          /the rules of chain inet mooring-veth0 output are not there in the pod/,
        ],
        [
          'table of the pod',
          pod => pod.netns.run('nft', 'delete', 'table', 'inet', 'mooring-veth0'),
          /mooring-veth0 postrouting are not there/,
        ],
        [
          'forwarding in the pod',
          pod => pod.netns.run('sysctl', '-qw', 'net.ipv6.conf.all.forwarding=0'),
          /net.ipv6.conf.all.forwarding is off in the pod/,
        ],
        [
          'marks in the pod',
          pod => pod.netns.run('sysctl', '-qw', 'net.ipv4.conf.veth0.src_valid_mark=0'),
          /net.ipv4.conf.veth0.src_valid_mark is off in the pod/,
        ],
      ]
      const breaks: [object, typeof commonBreaks][] = [
        [{}, commonBreaks],
        [
          BY_NODE,
          [
            [
              'default route',
              pod => pod.netns.ip('route del default'),
              /route default via 10.10.10.8 dev veth0 is missing in the pod/,
            ],
            [
              'rules of the NIC',
              pod => pod.netns.ip('rule del iif veth0'),
              /rule 1024 iif veth0 lookup 65792 is missing in the pod/,
            ],
            [
              'table of the NIC',
              pod => pod.netns.ip('route flush table 65792'),
              /the routes of table 65792, by eth0, are missing in the pod/,
            ],
          ],
        ],
      ]
      const drop = 'table ip filter { chain forward { type filter hook forward priority 0; policy drop; }; }'
      commonBreaks.push([
        'drop of others',
        () => node.run('nft', drop),
        /chain forward of table ip filter has policy drop/,
      ])
      for (const [keys, cases] of breaks)
        for (const [what, damage, text] of cases) {
          const pod = newPod()
          const result = resultOf(await call('ADD', pod, keys))
          const host = result.interfaces[1].name
          const [{ ifalias }] = JSON.parse(node.ip(`-j link show ${host}`))
          damage(pod, host)
          const error = errorOf(await call('CHECK', pod, { ...keys, prevResult: result }))
          assert.equal(error.code, 103, what)
          assert.match(`${error.msg}; ${error.details}`, text, what)
          // What the agent looks at once in a while: here the next ADD makes all anew.
          if (what === 'rules') node.run('nft', 'delete', 'table', 'inet', 'mooring')
          // With another alias it would be another's, and stay.
          if (what === 'alias') node.run('ip', 'link', 'set', host, 'alias', ifalias)
          resultOf(await call('DEL', pod, keys))
          if (what === 'drop of others') node.run('nft', 'delete', 'table', 'ip', 'filter')
          if (what === 'rules') await bringForGood()
          assertNothingLeft(what)
        }
    })

    for (const [whose, directory] of [
      ['ours', undefined],
      ["upstream's", peers],
    ] as const)
      testByAgent(`a chain behind macvlan, ${whose}: CHECK is content with it, DEL leaves nothing`, async t => {
        if (whose !== 'ours' && directory === undefined) return t.skip('needs lab/peers')
        const first = (verb: Verb, it: Attachment, config: object) => {
          if (directory === undefined) return node.call(verb, it, { more: config })
          const env = {
            ...{ CNI_COMMAND: verb, CNI_CONTAINERID: it.containerId, CNI_NETNS: it.netns, CNI_IFNAME: 'eth0' },
            CNI_PATH: directory,
          }
          const command = ['/usr/bin/nsenter', `--net=${node.path}`, join(directory, 'macvlan')]
          return start(command, { env, stdin: JSON.stringify(config) }).outcome
        }
        for (const keys of [{}, BY_NODE]) {
          const netns = makeNetns('pod')
          const it = { containerId: `chain${keys === BY_NODE}`, netns: netns.path }
          const macvlan = { ...node.config(), type: 'macvlan', master: 'eth0', name: 'chain' }
          const inner = resultOf(await first('ADD', { ...it, type: 'macvlan' }, macvlan))
          const more = { ...configOf(keys), serviceCidr: '10.96.0.0/12', name: 'chain', prevResult: inner }
          const prevResult = resultOf(await node.call('ADD', { ...it, type: 'veth-host' }, { more }))
          assert.deepEqual(prevResult.interfaces.slice(0, 1), inner.interfaces)
          assert.deepEqual(prevResult.ips, inner.ips)
          resultOf(await first('CHECK', { ...it, type: 'macvlan' }, { ...macvlan, prevResult }))
          resultOf(await node.call('CHECK', { ...it, type: 'veth-host' }, { more: { ...more, prevResult } }))
          resultOf(await node.call('DEL', { ...it, type: 'veth-host' }, { more: { ...more, prevResult } }))
          resultOf(await first('DEL', { ...it, type: 'macvlan' }, { ...macvlan, prevResult }))
          netns.remove()
          assertNothingLeft()
        }
      })

    testByAgent('STATUS: the host interface, and a foreign drop of what is forwarded', async () => {
      const status = (more: object = {}) =>
        node.call(
          'STATUS',
          { containerId: '', netns: '', type: 'veth-host' },
          { more: configOf({ cniVersion: '1.1.0', ...more }) },
        )
      assert.deepEqual(silent(await status()), released)
      const missing = errorOf(await status({ hostInterface: 'eth9' }))
      assert.deepEqual([missing.code, missing.msg], [50, 'Cannot find host interface "eth9"'])
      node.run('nft', 'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }')
      const dropped = errorOf(await status())
      assert.equal(dropped.code, 50)
      assert.match(dropped.msg, /chain FORWARD of table ip filter has policy drop drops what is forwarded/)
      assert.deepEqual(silent(await status({ allowForwardDrop: true })), released)
      node.run('nft', 'delete', 'table', 'ip', 'filter')
    })

    testByAgent('GC: releases what the runtime does not name, and leaves the others', async () => {
      const [stays, goes] = [newPod(), newPod()]
      const result = resultOf(await call('ADD', stays))
      const withOne = node.state()
      resultOf(await call('ADD', goes))
      await new Promise(resolve => setTimeout(resolve, 150))
      const valid = [{ containerID: stays.it.containerId, ifname: 'eth0' }]
      const more = configOf({ cniVersion: '1.1.0', 'cni.dev/valid-attachments': valid })
      resultOf(await node.call('GC', { containerId: '', netns: '', type: 'veth-host' }, { more }))
      assertSameState(node.state(), withOne)
      assert.deepEqual(silent(await call('CHECK', stays, { prevResult: result })), released)
      resultOf(await call('DEL', stays))
      assertNothingLeft()
    })

    testByAgent('ADD: rules that somebody flushed are made again, and the other pods have theirs', async () => {
      const [first, second] = [newPod(), newPod()]
      const results = [resultOf(await call('ADD', first))]
      node.run('nft', 'flush', 'ruleset')
      results.push(resultOf(await call('ADD', second)))
      for (const [index, pod] of [first, second].entries()) {
        assert.deepEqual(silent(await call('CHECK', pod, { prevResult: results[index] })), released)
        resultOf(await call('DEL', pod))
      }
      kept = node.state()
    })

    testByAgent('two networks may have marks of their own', async () => {
      const [first, second] = [newPod(), newPod()]
      const other = { nodePortMark: '0x10', containerInterface: 'svc0' }
      const results = [resultOf(await call('ADD', first)), resultOf(await call('ADD', second, other))]
      assert.match(node.ip('rule'), /1023:\s+from all fwmark 0x10\/0x10 iif veth\w+ lookup main/)
      assert.match(second.netns.ip('route'), /10\.96\.0\.0\/12 via 10\.10\.10\.8 dev svc0/)
      assert.deepEqual(silent(await call('CHECK', first, { prevResult: results[0] })), released)
      assert.deepEqual(silent(await call('CHECK', second, { ...other, prevResult: results[1] })), released)
      resultOf(await call('DEL', second, other))
      resultOf(await call('DEL', first))
      kept = node.state()
    })

    testByAgent('a late DEL whose CNI_NETNS is another container’s by now leaves that one whole', async () => {
      const [old, young] = [newPod(), newPod()]
      resultOf(await call('ADD', old))
      const result = resultOf(await call('ADD', young))
      resultOf(await node.call('DEL', { ...old.it, netns: young.it.netns }, { more: configOf() }))
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
