// SPDX-License-Identifier: Apache-2.0

// Goal: portmap does what upstream's plugin of that name does at ADD and DEL, seen from outside: results, errors, and what
// stands in the kernel afterwards. The pods are addresses that nobody has: packets are for portmap-packets.test.ts. Needs root.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { type Attachment, errorOf, folder, peers, resultOf, skip, start, type Verb } from './nodelab.ts'
import {
  call,
  dns,
  elements,
  forgetRecord,
  newPod,
  nft,
  type Pod,
  type PortMapping,
  portmapLab,
  RELEASED,
  silent,
  web,
} from './portmap-lab.ts'

for (const mode of ['standalone', 'agent'] as const)
  describe(`portmap, ${mode}`, { skip }, () => {
    const at = portmapLab(mode)
    const { testByAgent, assertNothingLeft } = at

    test('ADD passes the result on as it is, CHECK is content, DEL leaves nothing, twice (CHN-02, PM-07)', async () => {
      const pod = newPod(at.netns())
      assert.deepEqual(resultOf(await call(at.node, 'ADD', pod, [web, dns])), pod.prevResult)
      const owner = `podnet ${pod.it.containerId} eth0`
      const shown = elements(at.node)
      assert.ok(
        shown.every(line => line.includes(`"comment":"${owner}"`)),
        shown.join('\n'),
      )
      // Of the web port one to each address of the pod, its subnets and localhost; of dns the same for IPv4 alone.
      assert.equal(shown.length, 5 + 3, shown.join('\n'))
      assert.deepEqual(silent(await call(at.node, 'CHECK', pod, [web, dns])), RELEASED)
      assert.deepEqual(silent(await call(at.node, 'DEL', pod, [web, dns])), RELEASED)
      assertNothingLeft()
      assert.deepEqual(silent(await call(at.node, 'DEL', pod, [web, dns])), RELEASED)
    })

    test('a port that another pod has is an error that names the pod, and nothing of the second is left', async () => {
      const [first, second] = [newPod(at.netns()), newPod(at.netns())]
      resultOf(await call(at.node, 'ADD', first, [web]))
      const alone = elements(at.node)
      const error = errorOf(await call(at.node, 'ADD', second, [dns, web]))
      assert.deepEqual(
        [error.code, error.msg],
        [
          102,
          `Cannot lead host port 8080/tcp to ${second.it.containerId}: it is taken by container ${first.it.containerId} (network podnet, interface eth0)`,
        ],
      )
      assert.deepEqual(elements(at.node), alone)
      // Kubernetes sends DEL for what failed.
      assert.deepEqual(silent(await call(at.node, 'DEL', second, [dns, web])), RELEASED)
      assert.deepEqual(elements(at.node), alone)
      assert.deepEqual(silent(await call(at.node, 'CHECK', first, [web])), RELEASED)
      resultOf(await call(at.node, 'DEL', first, [web]))
      resultOf(await call(at.node, 'ADD', second, [dns, web]))
      resultOf(await call(at.node, 'DEL', second, [dns, web]))
      assertNothingLeft()
    })

    testByAgent('ADD without ports does nothing and passes the result on (PM-01)', async () => {
      const pod = newPod(at.netns())
      const before = nft(at.node, 'list ruleset')
      for (const more of [{ runtimeConfig: undefined }, { runtimeConfig: {} }, {}]) {
        assert.deepEqual(resultOf(await call(at.node, 'ADD', pod, [], { more })), pod.prevResult)
        assert.deepEqual(silent(await call(at.node, 'CHECK', pod, [], { more })), RELEASED)
        assert.deepEqual(silent(await call(at.node, 'DEL', pod, [], { more })), RELEASED)
      }
      assert.equal(nft(at.node, 'list ruleset'), before)
      assertNothingLeft()
    })

    testByAgent('what is invalid is refused in the words of upstream (PM-02, PM-03, CHN-10)', async () => {
      const one = (mapping: PortMapping) => ({ runtimeConfig: { portMappings: [{ ...web, ...mapping }] } })
      const cases: [object, RegExp][] = [
        [one({ hostPort: 0 }), /^Invalid host port number: 0$/],
        [one({ hostPort: -1 }), /^Invalid host port number: -1$/],
        [one({ hostPort: 65_536 }), /^Invalid host port number: 65536$/],
        [one({ hostPort: undefined }), /^Invalid host port number: 0$/],
        [one({ containerPort: 0 }), /^Invalid container port number: 0$/],
        [one({ containerPort: 70_000 }), /^Invalid container port number: 70000$/],
        [one({ hostPort: '80' }), /"runtimeConfig.portMappings\[0\].hostPort" /],
        [one({ protocol: 'icmp' }), /^Invalid protocol "icmp" of host port 8080: want tcp, udp or sctp$/],
        [one({ protocol: '' }), /^Invalid protocol "" of host port 8080/],
        [one({ hostIP: '10.0.0' }), /^Invalid host IP "10.0.0" of host port 8080$/],
        [
          { runtimeConfig: { portMappings: [web, { ...web, containerPort: 81 }] } },
          /^Invalid host port number: 8080 is mapped twice, to container ports 80 and 81$/,
        ],
        [{ markMasqBit: 32 }, /^MasqMarkBit must be between 0 and 31$/],
        [{ markMasqBit: -1 }, /^MasqMarkBit must be between 0 and 31$/],
        [{ markMasqBit: 5, externalSetMarkChain: 'X' }, /^Cannot specify externalSetMarkChain and markMasqBit$/],
        [{ backend: 'ipfw' }, /^unrecognized backend "ipfw"$/],
        [
          {
            backend: 'nftables',
            externalSetMarkChain: 'X',
            conditionsV4: ['-s', '1.2.3.4'],
            conditionsV6: ['-d', '1::'],
          },
          /^nftables backend was requested but configuration contains iptables-specific options \[externalSetMarkChain conditionsV4 conditionsV6\]$/,
        ],
        [
          { backend: 'iptables', conditionsV4: ['ip', 'saddr', '1.2.3.4'] },
          /^iptables backend was requested but configuration contains nftables-specific options \[conditionsV4\]$/,
        ],
        [{ conditionsV4: ['-m', 'limit'] }, /^Cannot use "conditionsV4": "-m limit" is not understood$/],
        [{ conditionsV6: ['-s', '10.0.0.0/8'] }, /^Cannot use "conditionsV6": "10.0.0.0\/8" is no network of IPv6$/],
        [{ prevResult: undefined }, /^must be called as chained plugin$/],
      ]
      const pod = newPod(at.netns())
      for (const [more, msg] of cases) {
        const error = errorOf(await call(at.node, 'ADD', pod, [web], { more }))
        assert.equal(error.code, 7, JSON.stringify(error))
        assert.match(error.msg, msg)
        assert.deepEqual(silent(await call(at.node, 'DEL', pod, [web], { more })), RELEASED, error.msg)
      }
      assert.match(
        errorOf(await call(at.node, 'CHECK', pod, [web], { more: { prevResult: undefined } })).msg,
        /prevResult/,
      )
      assertNothingLeft()
    })

    testByAgent('a result of every version is passed on in that version', async () => {
      const interfaces = [
        { name: 'veth9', mac: '02:00:00:00:00:01' },
        { name: 'eth0', sandbox: at.netns() },
      ]
      const address = '10.10.30.2/24'
      for (const version of ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
        const family = version < '1.0.0' ? { version: '4' } : {}
        const prevResult =
          version < '0.3.0'
            ? { cniVersion: version, ip4: { ip: address }, dns: {} }
            : { cniVersion: version, interfaces, ips: [{ ...family, address, interface: 1 }], dns: {} }
        const pod = { ...newPod(at.netns()), prevResult }
        const result = resultOf(await call(at.node, 'ADD', pod, [web], { more: { cniVersion: version } }))
        assert.deepEqual({ ...result, dns: {} }, prevResult)
        assert.match(nft(at.node, 'list map inet mooring portmap_any_v4'), /tcp \. 8080 .* : 10\.10\.30\.2 \. 80/)
        resultOf(await call(at.node, 'DEL', pod, [web], { more: { cniVersion: version } }))
      }
      assertNothingLeft()
    })

    testByAgent('every option that upstream has is taken (PM-03)', async () => {
      const cases: [object, PortMapping[], number][] = [
        [{ snat: false }, [web], 2],
        [{ masqAll: true }, [web], 4],
        [{ markMasqBit: 0 }, [web], 5],
        [{ markMasqBit: 31 }, [web], 5],
        [{ externalSetMarkChain: 'KUBE-MARK-MASQ' }, [web], 5],
        [
          { backend: 'iptables', conditionsV4: ['!', '-d', '192.0.2.0/24'], conditionsV6: ['!', '-d', 'fc00::/7'] },
          [web],
          5,
        ],
        [{ backend: 'nftables', conditionsV4: ['ip saddr != 192.0.2.0/24 ip daddr', '10.0.0.0/8'] }, [web], 5],
        [{}, [web, web, { ...web, hostIP: '0.0.0.0' }, { ...web, hostIP: '::' }], 5],
        [{}, [{ ...web, hostIP: '::ffff:10.10.10.8' }], 3],
        [
          {},
          [
            { ...web, hostIP: 'fd00:10::8' },
            { ...web, hostIP: '10.10.10.8', containerPort: 81 },
          ],
          5,
        ],
        [{}, [{ ...web, protocol: 'SCTP' }, web, { ...web, protocol: 'UDP' }], 15],
        [{ prevResult: { ips: [{ address: '10.10.10.30/32' }] } }, [web], 3],
        [{ prevResult: { ips: [{ address: '10.10.10.30/32' }] } }, [{ ...web, hostIP: '::1' }], 0],
        [{ prevResult: { interfaces: [{ name: 'br0' }], ips: [{ address: '10.0.0.1/8', interface: 0 }] } }, [web], 0],
      ]
      for (const [more, mappings, wanted] of cases) {
        const pod = newPod(at.netns())
        resultOf(await call(at.node, 'ADD', pod, mappings, { more: { cniVersion: '1.0.0', ...more } }))
        const what = `${JSON.stringify(more)} ${JSON.stringify(mappings)}`
        assert.equal(elements(at.node).length, wanted, `${what}\n${elements(at.node).join('\n')}`)
        assert.deepEqual(silent(await call(at.node, 'CHECK', pod, mappings, { more })), RELEASED, what)
        resultOf(await call(at.node, 'DEL', pod, mappings, { more }))
        assert.deepEqual(elements(at.node), [], what)
      }
      assertNothingLeft()
    })

    testByAgent(
      'rules are made once for each prefix length, bit and condition, however many pods use them',
      async () => {
        const more = { markMasqBit: 7, conditionsV4: ['-s', '10.0.0.0/8'] }
        const rules = () =>
          nft(at.node, '-s list ruleset')
            .split('\n')
            .filter(line => line.includes('@portmap') || line.includes('ct mark &'))
        const pods = [newPod(at.netns()), newPod(at.netns())]
        resultOf(await call(at.node, 'ADD', pods[0]!, [web], { more }))
        const once = rules()
        resultOf(await call(at.node, 'ADD', pods[1]!, [{ ...web, hostPort: 8081 }], { more }))
        assert.deepEqual(rules(), once)
        for (const pod of pods) resultOf(await call(at.node, 'DEL', pod, [web], { more }))
        assert.deepEqual(rules(), once)
        assertNothingLeft()
      },
    )

    testByAgent('pods with conditions that differ may share a port of the node', async () => {
      const [first, second] = [newPod(at.netns()), newPod(at.netns())]
      const [near, far] = [{ conditionsV4: ['-s', '10.0.0.0/8'] }, { conditionsV4: ['!', '-s', '10.0.0.0/8'] }]
      const v4 = { ...web, hostIP: '0.0.0.0' }
      resultOf(await call(at.node, 'ADD', first, [v4], { more: near }))
      resultOf(await call(at.node, 'ADD', second, [v4], { more: far }))
      for (const pod of [first, second]) resultOf(await call(at.node, 'DEL', pod, [v4]))
      assertNothingLeft()
    })

    testByAgent('DEL needs neither namespace nor result nor a valid configuration nor a record (PM-07)', async () => {
      const file = join(folder('plain'), 'netns')
      writeFileSync(file, '')
      const cases: [Partial<Attachment>, object][] = [
        [{ netns: '' }, {}],
        [{ netns: '/run/netns/none' }, { prevResult: undefined }],
        [{ netns: file }, { runtimeConfig: undefined, prevResult: undefined }],
        [{}, { runtimeConfig: { portMappings: [{ hostPort: 0 }] }, markMasqBit: 99 }],
      ]
      for (const forget of [false, true])
        for (const [change, more] of cases) {
          const pod = newPod(at.netns())
          const other = newPod(at.netns())
          resultOf(await call(at.node, 'ADD', pod, [web, dns]))
          resultOf(await call(at.node, 'ADD', other, [{ ...web, hostPort: 9090 }]))
          if (forget) forgetRecord(at.node, pod)
          assert.deepEqual(
            silent(await call(at.node, 'DEL', { ...pod, it: { ...pod.it, ...change } }, [], { more })),
            RELEASED,
          )
          assert.equal(elements(at.node).length, 5)
          resultOf(await call(at.node, 'DEL', other, []))
          assert.deepEqual(elements(at.node), [], `${forget} ${JSON.stringify(more)}`)
        }
      assertNothingLeft()
    })

    testByAgent('what an ADD left whose record was lost does not keep the same container away', async () => {
      const pod = newPod(at.netns())
      resultOf(await call(at.node, 'ADD', pod, [web]))
      forgetRecord(at.node, pod)
      resultOf(await call(at.node, 'ADD', pod, [web, dns]))
      assert.equal(errorOf(await call(at.node, 'ADD', pod, [web, dns])).code, 104)
      assert.deepEqual(silent(await call(at.node, 'CHECK', pod, [web, dns])), RELEASED)
      resultOf(await call(at.node, 'DEL', pod, [web, dns]))
      assertNothingLeft()
    })

    testByAgent("DEL leaves a port alone that is another pod's by now", async () => {
      const [first, second] = [newPod(at.netns()), newPod(at.netns())]
      resultOf(await call(at.node, 'ADD', first, [web]))
      for (const name of ['any_v4', 'any_v6']) nft(at.node, `flush map inet mooring portmap_${name}`)
      for (const name of ['v4_24', 'v4_8', 'v6_64']) nft(at.node, `flush set inet mooring portmap_near_any_${name}_13`)
      resultOf(await call(at.node, 'ADD', second, [web]))
      resultOf(await call(at.node, 'DEL', first, [web]))
      assert.deepEqual(silent(await call(at.node, 'CHECK', second, [web])), RELEASED)
      resultOf(await call(at.node, 'DEL', second, [web]))
      assertNothingLeft()
    })

    const noPeers = peers === undefined && 'needs lab/peers'
    testByAgent('DEL removes what upstream made, on a node that changed over', { skip: noPeers }, async () => {
      const [mine, longer] = [newPod(at.netns()), newPod(at.netns())]
      longer.it = { ...longer.it, containerId: `x${mine.it.containerId}` }
      const rulesOfPods = () =>
        nft(at.node, '-s list ruleset')
          .split('\n')
          .filter(line => /CNI-DN-|comment "x?c\d+"|dnat to/.test(line) && !line.includes('@portmap'))
      for (const backend of ['iptables', 'nftables']) {
        const upstream = async (verb: Verb, { it, prevResult }: Pod) => {
          const env = { CNI_COMMAND: verb, CNI_CONTAINERID: it.containerId, CNI_NETNS: at.netns(), CNI_IFNAME: 'eth0' }
          const runtimeConfig = { portMappings: [web] }
          const stdin = { ...at.node.config(), type: 'portmap', backend, prevResult, runtimeConfig }
          const program = ['/usr/bin/nsenter', `--net=${at.node.path}`, join(peers!, 'portmap')]
          const whole = { ...env, CNI_PATH: peers!, PATH: process.env['PATH']! }
          resultOf(await start(program, { env: whole, stdin: JSON.stringify(stdin) }).outcome)
        }
        await upstream('ADD', longer)
        const before = rulesOfPods()
        await upstream('ADD', mine)
        assert.ok(rulesOfPods().length > before.length)
        assert.deepEqual(silent(await call(at.node, 'DEL', mine, [web])), RELEASED)
        assert.deepEqual(rulesOfPods(), before)
        assert.deepEqual(silent(await call(at.node, 'DEL', longer, [web])), RELEASED)
        assert.deepEqual(rulesOfPods(), [], backend)
      }
      for (const family of ['ip', 'ip6'])
        for (const table of ['nat', 'cni_hostport']) nft(at.node, `delete table ${family} ${table}`)
    })
  })
