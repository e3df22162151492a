// SPDX-License-Identifier: Apache-2.0

// Goal: portmap does what upstream's plugin of that name does, seen from outside: results, errors, and what stands in the
// kernel afterwards. The pods are addresses that nobody has: packets are for portmap-packets.test.ts. Needs root.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, afterEach, before, describe, test } from 'node:test'
import { attach, tally, trace, withoutStrace } from './crash/strace.ts'
import {
  type Attachment,
  assertSameState,
  type CallOptions,
  cniBin,
  errorOf,
  eventually,
  folder,
  makeLab,
  makeManyNetns,
  makeNetns,
  type Node,
  peers,
  type RunningAgent,
  resultOf,
  skip,
  start,
  type Verb,
} from './nodelab.ts'

const RELEASED = { code: 0, stdout: '' }
const silent = ({ code, stdout }: { code: number | null; stdout: string }) => ({ code, stdout })
type PortMapping = { hostPort?: unknown; containerPort?: unknown; protocol?: string; hostIP?: string }
const web: PortMapping = { hostPort: 8080, containerPort: 80, protocol: 'tcp' }
const dns: PortMapping = { hostPort: 53, containerPort: 5353, protocol: 'udp', hostIP: '10.10.10.8' }

let containers = 0
const made: Pod[] = []
/** A pod with an address of each family, as an earlier plugin of the chain would tell. */
function newPod(netns: string, more: Partial<Attachment> = {}) {
  const id = containers++
  const it: Attachment = { containerId: `c${id}`, netns, type: 'portmap', ...more }
  const prevResult = {
    cniVersion: '1.0.0',
    interfaces: [{ name: `veth${id}` }, { name: it.ifName ?? 'eth0', sandbox: netns }],
    ips: [
      { address: `10.10.${20 + (id >> 8)}.${id & 255}/24`, interface: 1 },
      { address: `fd00:20::${id.toString(16)}/64`, interface: 1 },
    ],
    routes: [{ dst: '0.0.0.0/0' }],
    dns: { nameservers: ['192.0.2.53'] },
  }
  made.push({ it, prevResult })
  return { it, prevResult }
}
type Pod = { it: Attachment; prevResult: object }

/** Calls portmap as the chain does. */
const call = (
  node: Node,
  verb: Verb,
  { it, prevResult }: Pod,
  portMappings: PortMapping[],
  options: CallOptions = {},
) =>
  node.call(verb, it, {
    ...options,
    more: { type: 'portmap', prevResult, runtimeConfig: { portMappings }, ipam: undefined, ...options.more },
  })

const nft = (node: Node, text: string) => node.run('nft', ...text.split(' '))
/** Elements of our maps and sets, one a line, with comments. */
function elements(node: Node): string[] {
  const { nftables } = JSON.parse(nft(node, '-j list ruleset')) as { nftables: Record<string, Shown>[] }
  return nftables
    .flatMap(each => each['map'] ?? each['set'] ?? [])
    .filter(({ name }) => name.startsWith('portmap_'))
    .flatMap(({ name, elem = [] }) => elem.map(each => `${name} ${JSON.stringify(each)}`))
}
type Shown = { name: string; elem?: unknown[] }

for (const mode of ['standalone', 'agent'] as const)
  describe(`portmap, ${mode}`, { skip }, () => {
    let node: Node
    let agent: RunningAgent | undefined
    let kept: string[]
    let netns: string
    before(async () => {
      node = makeLab({ mode }).nodes[0]!
      netns = makeNetns('pod').path
      if (mode === 'agent') agent = await node.startAgent()
      // What the first ports bring for good: maps, rules.
      const first = newPod(netns)
      resultOf(await call(node, 'ADD', first, [web]))
      resultOf(await call(node, 'DEL', first, [web]))
      kept = node.state()
    })
    after(() => agent?.[Symbol.asyncDispose]())
    // So that a test that failed does not make the next ones fail.
    afterEach(async context => {
      const mine = made.splice(0)
      if (!('passed' in context && context.passed)) for (const pod of mine) await call(node, 'DEL', pod, [])
    })
    const testByAgent = mode === 'agent' ? test : () => undefined
    const assertNothingLeft = (when = 'something is left') => {
      assert.deepEqual(elements(node), [], when)
      // Sets and rules of prefix lengths and mark bits stay, empty.
      const isForGood = (line: string) => line.includes('portmap') || /^nl\S+: (type|ct mark|\})/.test(line)
      assertSameState(
        node.state().filter(line => !isForGood(line)),
        kept.filter(line => !isForGood(line)),
        when,
      )
    }

    test('ADD passes the result on as it is, CHECK is content, DEL leaves nothing, twice (CHN-02, PM-07)', async () => {
      const pod = newPod(netns)
      assert.deepEqual(resultOf(await call(node, 'ADD', pod, [web, dns])), pod.prevResult)
      const owner = `podnet ${pod.it.containerId} eth0`
      const shown = elements(node)
      assert.ok(
        shown.every(line => line.includes(`"comment":"${owner}"`)),
        shown.join('\n'),
      )
      // Of the web port one to each address of the pod, its subnets and localhost; of dns the same for IPv4 alone.
      assert.equal(shown.length, 5 + 3, shown.join('\n'))
      assert.deepEqual(silent(await call(node, 'CHECK', pod, [web, dns])), RELEASED)
      assert.deepEqual(silent(await call(node, 'DEL', pod, [web, dns])), RELEASED)
      assertNothingLeft()
      assert.deepEqual(silent(await call(node, 'DEL', pod, [web, dns])), RELEASED)
    })

    test('a port that another pod has is an error that names the pod, and nothing of the second is left', async () => {
      const [first, second] = [newPod(netns), newPod(netns)]
      resultOf(await call(node, 'ADD', first, [web]))
      const alone = elements(node)
      const error = errorOf(await call(node, 'ADD', second, [dns, web]))
      assert.deepEqual(
        [error.code, error.msg],
        [
          102,
          `Cannot lead host port 8080/tcp to ${second.it.containerId}: it is taken by container ${first.it.containerId} (network podnet, interface eth0)`,
        ],
      )
      assert.deepEqual(elements(node), alone)
      // Kubernetes sends DEL for what failed.
      assert.deepEqual(silent(await call(node, 'DEL', second, [dns, web])), RELEASED)
      assert.deepEqual(elements(node), alone)
      assert.deepEqual(silent(await call(node, 'CHECK', first, [web])), RELEASED)
      resultOf(await call(node, 'DEL', first, [web]))
      resultOf(await call(node, 'ADD', second, [dns, web]))
      resultOf(await call(node, 'DEL', second, [dns, web]))
      assertNothingLeft()
    })

    testByAgent('ADD without ports does nothing and passes the result on (PM-01)', async () => {
      const pod = newPod(netns)
      const before = nft(node, 'list ruleset')
      for (const more of [{ runtimeConfig: undefined }, { runtimeConfig: {} }, {}]) {
        assert.deepEqual(resultOf(await call(node, 'ADD', pod, [], { more })), pod.prevResult)
        assert.deepEqual(silent(await call(node, 'CHECK', pod, [], { more })), RELEASED)
        assert.deepEqual(silent(await call(node, 'DEL', pod, [], { more })), RELEASED)
      }
      assert.equal(nft(node, 'list ruleset'), before)
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
      const pod = newPod(netns)
      for (const [more, msg] of cases) {
        const error = errorOf(await call(node, 'ADD', pod, [web], { more }))
        assert.equal(error.code, 7, JSON.stringify(error))
        assert.match(error.msg, msg)
        assert.deepEqual(silent(await call(node, 'DEL', pod, [web], { more })), RELEASED, error.msg)
      }
      assert.match(
        errorOf(await call(node, 'CHECK', pod, [web], { more: { prevResult: undefined } })).msg,
        /prevResult/,
      )
      assertNothingLeft()
    })

    testByAgent('a result of every version is passed on in that version', async () => {
      const interfaces = [
        { name: 'veth9', mac: '02:00:00:00:00:01' },
        { name: 'eth0', sandbox: netns },
      ]
      const address = '10.10.30.2/24'
      for (const version of ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
        const family = version < '1.0.0' ? { version: '4' } : {}
        const prevResult =
          version < '0.3.0'
            ? { cniVersion: version, ip4: { ip: address }, dns: {} }
            : { cniVersion: version, interfaces, ips: [{ ...family, address, interface: 1 }], dns: {} }
        const pod = { ...newPod(netns), prevResult }
        const result = resultOf(await call(node, 'ADD', pod, [web], { more: { cniVersion: version } }))
        assert.deepEqual({ ...result, dns: {} }, prevResult)
        assert.match(nft(node, 'list map inet mooring portmap_any_v4'), /tcp \. 8080 .* : 10\.10\.30\.2 \. 80/)
        resultOf(await call(node, 'DEL', pod, [web], { more: { cniVersion: version } }))
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
        const pod = newPod(netns)
        resultOf(await call(node, 'ADD', pod, mappings, { more: { cniVersion: '1.0.0', ...more } }))
        const what = `${JSON.stringify(more)} ${JSON.stringify(mappings)}`
        assert.equal(elements(node).length, wanted, `${what}\n${elements(node).join('\n')}`)
        assert.deepEqual(silent(await call(node, 'CHECK', pod, mappings, { more })), RELEASED, what)
        resultOf(await call(node, 'DEL', pod, mappings, { more }))
        assert.deepEqual(elements(node), [], what)
      }
      assertNothingLeft()
    })

    testByAgent(
      'rules are made once for each prefix length, bit and condition, however many pods use them',
      async () => {
        const more = { markMasqBit: 7, conditionsV4: ['-s', '10.0.0.0/8'] }
        const rules = () =>
          nft(node, '-s list ruleset')
            .split('\n')
            .filter(line => line.includes('@portmap') || line.includes('ct mark &'))
        const pods = [newPod(netns), newPod(netns)]
        resultOf(await call(node, 'ADD', pods[0]!, [web], { more }))
        const once = rules()
        resultOf(await call(node, 'ADD', pods[1]!, [{ ...web, hostPort: 8081 }], { more }))
        assert.deepEqual(rules(), once)
        for (const pod of pods) resultOf(await call(node, 'DEL', pod, [web], { more }))
        assert.deepEqual(rules(), once)
        assertNothingLeft()
      },
    )

    testByAgent('pods with conditions that differ may share a port of the node', async () => {
      const [first, second] = [newPod(netns), newPod(netns)]
      const [near, far] = [{ conditionsV4: ['-s', '10.0.0.0/8'] }, { conditionsV4: ['!', '-s', '10.0.0.0/8'] }]
      const v4 = { ...web, hostIP: '0.0.0.0' }
      resultOf(await call(node, 'ADD', first, [v4], { more: near }))
      resultOf(await call(node, 'ADD', second, [v4], { more: far }))
      for (const pod of [first, second]) resultOf(await call(node, 'DEL', pod, [v4]))
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
          const pod = newPod(netns)
          const other = newPod(netns)
          resultOf(await call(node, 'ADD', pod, [web, dns]))
          resultOf(await call(node, 'ADD', other, [{ ...web, hostPort: 9090 }]))
          if (forget) forgetRecord(node, pod)
          assert.deepEqual(
            silent(await call(node, 'DEL', { ...pod, it: { ...pod.it, ...change } }, [], { more })),
            RELEASED,
          )
          assert.equal(elements(node).length, 5)
          resultOf(await call(node, 'DEL', other, []))
          assert.deepEqual(elements(node), [], `${forget} ${JSON.stringify(more)}`)
        }
      assertNothingLeft()
    })

    testByAgent('what an ADD left whose record was lost does not keep the same container away', async () => {
      const pod = newPod(netns)
      resultOf(await call(node, 'ADD', pod, [web]))
      forgetRecord(node, pod)
      resultOf(await call(node, 'ADD', pod, [web, dns]))
      assert.equal(errorOf(await call(node, 'ADD', pod, [web, dns])).code, 104)
      assert.deepEqual(silent(await call(node, 'CHECK', pod, [web, dns])), RELEASED)
      resultOf(await call(node, 'DEL', pod, [web, dns]))
      assertNothingLeft()
    })

    testByAgent("DEL leaves a port alone that is another pod's by now", async () => {
      const [first, second] = [newPod(netns), newPod(netns)]
      resultOf(await call(node, 'ADD', first, [web]))
      for (const name of ['any_v4', 'any_v6']) nft(node, `flush map inet mooring portmap_${name}`)
      for (const name of ['v4_24', 'v4_8', 'v6_64']) nft(node, `flush set inet mooring portmap_near_any_${name}_13`)
      resultOf(await call(node, 'ADD', second, [web]))
      resultOf(await call(node, 'DEL', first, [web]))
      assert.deepEqual(silent(await call(node, 'CHECK', second, [web])), RELEASED)
      resultOf(await call(node, 'DEL', second, [web]))
      assertNothingLeft()
    })

    const noPeers = peers === undefined && 'needs lab/peers'
    testByAgent('DEL removes what upstream made, on a node that changed over', { skip: noPeers }, async () => {
      const [mine, longer] = [newPod(netns), newPod(netns)]
      longer.it = { ...longer.it, containerId: `x${mine.it.containerId}` }
      const rulesOfPods = () =>
        nft(node, '-s list ruleset')
          .split('\n')
          .filter(line => /CNI-DN-|comment "x?c\d+"|dnat to/.test(line) && !line.includes('@portmap'))
      for (const backend of ['iptables', 'nftables']) {
        const upstream = async (verb: Verb, { it, prevResult }: Pod) => {
          const env = { CNI_COMMAND: verb, CNI_CONTAINERID: it.containerId, CNI_NETNS: netns, CNI_IFNAME: 'eth0' }
          const runtimeConfig = { portMappings: [web] }
          const stdin = { ...node.config(), type: 'portmap', backend, prevResult, runtimeConfig }
          const program = ['/usr/bin/nsenter', `--net=${node.path}`, join(peers!, 'portmap')]
          const whole = { ...env, CNI_PATH: peers!, PATH: process.env['PATH']! }
          resultOf(await start(program, { env: whole, stdin: JSON.stringify(stdin) }).outcome)
        }
        await upstream('ADD', longer)
        const before = rulesOfPods()
        await upstream('ADD', mine)
        assert.ok(rulesOfPods().length > before.length)
        assert.deepEqual(silent(await call(node, 'DEL', mine, [web])), RELEASED)
        assert.deepEqual(rulesOfPods(), before)
        assert.deepEqual(silent(await call(node, 'DEL', longer, [web])), RELEASED)
        assert.deepEqual(rulesOfPods(), [], backend)
      }
      for (const family of ['ip', 'ip6'])
        for (const table of ['nat', 'cni_hostport']) nft(node, `delete table ${family} ${table}`)
    })

    testByAgent(
      'CHECK names each element that is missing or leads elsewhere, and chains without rules (PM-08)',
      async () => {
        const pod = newPod(netns)
        resultOf(await call(node, 'ADD', pod, [web, dns]))
        const check = async () => {
          const { code, msg, details = '' } = errorOf(await call(node, 'CHECK', pod, [web, dns]))
          assert.equal(code, 103)
          return `${msg}; ${details}`
        }
        const keys = [
          ['portmap_any_v4', 'tcp . 8080', '6 . 8080'],
          ['portmap_any_v6', 'tcp . 8080', '6 . 8080'],
          ['portmap_to_v4', '10.10.10.8 . udp . 53', '10.10.10.8 . 17 . 53'],
          ['portmap_near_any_v4_8_13', '127.0.0.0 . tcp . 8080', '127.0.0.0 . 6 . 8080'],
          ['portmap_near_any_v6_64_13', 'fd00:20:: . tcp . 8080', 'fd00:20:: . 6 . 8080'],
          ['portmap_near_to_v4_8_13', '127.0.0.0 . 10.10.10.8 . udp . 53', '127.0.0.0 . 10.10.10.8 . 17 . 53'],
        ] as const
        const link = /dev (\w+)/.exec(node.ip(`route get ${pod.prevResult.ips[0]!.address.split('/')[0]}`))![1]
        const setting = `net.ipv4.conf.${link}.route_localnet`
        node.run('sysctl', '-qw', `${setting}=0`)
        assert.ok((await check()).includes(`${setting} is off on the node`))
        node.run('sysctl', '-qw', `${setting}=1`)
        const gone: string[] = []
        for (const [set, key, named] of keys) {
          nft(node, `delete element inet mooring ${set} { ${key} }`)
          gone.push(`element ${named} of ${set.includes('near') ? 'set' : 'map'} inet mooring ${set} is missing`)
          const text = await check()
          for (const sentence of gone) assert.ok(text.includes(sentence), `${sentence}\n${text}`)
        }
        nft(node, 'add element inet mooring portmap_any_v4 { tcp . 8080 comment "x" : 10.9.9.9 . 80 }')
        assert.match(await check(), /is of "x", not of "podnet c\d+ eth0"/)
        for (const chain of ['prerouting', 'output', 'postrouting', 'ports', 'loopback']) {
          nft(node, `flush chain inet mooring portmap_${chain}`)
          assert.match(await check(), new RegExp(`the rules of chain inet mooring portmap_${chain} are not there`))
        }
        nft(node, 'delete element inet mooring portmap_any_v4 { tcp . 8080 }')
        resultOf(await call(node, 'DEL', pod, [web, dns]))
        nft(node, 'flush ruleset')
        assert.match(await check(), /is missing/)
        const again = newPod(netns)
        resultOf(await call(node, 'ADD', again, [web]))
        resultOf(await call(node, 'DEL', again, [web]))
        assertNothingLeft()
      },
    )

    testByAgent('after somebody flushed the rule set, the next ADD puts everything back', async () => {
      const pods = [1, 2, 3].map(() => newPod(netns))
      const more = { markMasqBit: 9, conditionsV4: ['!', '-s', '192.0.2.0/24'] }
      const mapping = (index: number) => [{ ...web, hostPort: 8000 + index }]
      for (const index of [0, 1]) resultOf(await call(node, 'ADD', pods[index]!, mapping(index), { more }))
      const before = elements(node)
      // One that has no ports has nothing to put back.
      const without = newPod(netns)
      resultOf(await call(node, 'ADD', without, []))
      nft(node, 'flush ruleset')
      resultOf(await call(node, 'ADD', pods[2]!, mapping(2)))
      resultOf(await call(node, 'DEL', pods[2]!, mapping(2)))
      resultOf(await call(node, 'DEL', without, []))
      assert.deepEqual(new Set(elements(node)), new Set(before))
      for (const index of [0, 1]) {
        assert.deepEqual(silent(await call(node, 'CHECK', pods[index]!, mapping(index), { more })), RELEASED)
        resultOf(await call(node, 'DEL', pods[index]!, mapping(index), { more }))
      }
      assertNothingLeft()
    })

    testByAgent('the agent puts back what somebody flushed, also where only our chains were', async () => {
      await agent!.kill('SIGTERM')
      agent = await node.startAgent({ reconcile: 1 })
      const pod = newPod(netns)
      resultOf(await call(node, 'ADD', pod, [web]))
      const before = elements(node)
      for (const harm of ['flush ruleset', 'flush chain inet mooring portmap_ports']) {
        nft(node, harm)
        // The elements come after the chains.
        await eventually(
          `${harm} is undone`,
          () => nft(node, 'list ruleset').includes('map @portmap_any_v4') && elements(node).length === before.length,
        )
        assert.deepEqual(elements(node), before)
        assert.deepEqual(silent(await call(node, 'CHECK', pod, [web])), RELEASED)
      }
      resultOf(await call(node, 'DEL', pod, [web]))
      await agent.kill('SIGTERM')
      agent = await node.startAgent()
      assertNothingLeft()
    })

    testByAgent('GC frees what is in no list, and nothing else (GC-01)', async () => {
      const [dead, alive] = [newPod(netns), newPod(netns)]
      resultOf(await call(node, 'ADD', dead, [web]))
      resultOf(await call(node, 'ADD', alive, [{ ...web, hostPort: 9090 }]))
      await new Promise(resolve => setTimeout(resolve, 150)) // records that are younger stay
      const valid = [{ containerID: alive.it.containerId, ifname: 'eth0' }]
      const gc = { cniVersion: '1.1.0', 'cni.dev/valid-attachments': valid, prevResult: undefined }
      assert.deepEqual(silent(await call(node, 'GC', alive, [], { more: gc })), RELEASED)
      assert.ok(elements(node).every(line => line.includes(`podnet ${alive.it.containerId} eth0`)))
      assert.equal(elements(node).length, 5)
      resultOf(await call(node, 'DEL', alive, []))
      assertNothingLeft()
    })

    testByAgent(
      'a runtime hands the ports over by the capability, and every verb goes through the list (CAP-02)',
      async () => {
        const directory = folder('net.d')
        const list = {
          name: 'podnet',
          cniVersion: '1.1.0',
          plugins: [
            { type: 'veth-route', ipam: node.config()['ipam'] },
            { type: 'portmap', capabilities: { portMappings: true } },
          ],
        }
        writeFileSync(join(directory, '10-podnet.conflist'), JSON.stringify(list))
        const env = { ...node.env, CNI_PATH: cniBin(), NETCONFPATH: directory, PATH: process.env['PATH']! }
        const ports = JSON.stringify({ portMappings: [web, dns] })
        const cache = ['--cache-dir', folder('cache')]
        const cnitool = (verb: string) =>
          start([join(cniBin(), 'cnitool'), verb, ...cache, 'podnet', netns], { env: { ...env, CAP_ARGS: ports } })
            .outcome
        const { ips } = resultOf(await cnitool('add'))
        const pod = ips[0].address.split('/')[0].replaceAll('.', '\\.')
        const shown = new RegExp(`tcp \\. 8080 comment "podnet cnitool-[0-9a-f]{20} eth0" : ${pod} \\. 80`)
        assert.match(nft(node, 'list map inet mooring portmap_any_v4'), shown)
        // The list of `cnitool gc` is empty: nothing stays.
        for (const verb of ['check', 'status', 'del', 'gc']) {
          const outcome = await cnitool(verb)
          assert.deepEqual(silent(outcome), RELEASED, `${verb} ${outcome.stderr}`)
        }
        assert.deepEqual(elements(node), [])
        assert.deepEqual(
          node.state().filter(line => line.startsWith('attachment')),
          [],
        )
        // What veth-route keeps on the node is no matter of these tests.
        kept = node.state()
      },
    )

    testByAgent('STATUS names a foreign chain that drops what is forwarded', async () => {
      const pod = newPod(netns)
      const status = (more: object) =>
        call(node, 'STATUS', pod, [], { more: { cniVersion: '1.1.0', prevResult: undefined, ...more } })
      assert.deepEqual(silent(await status({})), RELEASED)
      nft(node, 'add table ip theirs')
      node.run('nft', 'add chain ip theirs FORWARD { type filter hook forward priority 0; policy drop; }')
      const error = errorOf(await status({}))
      assert.equal(error.code, 50)
      assert.match(error.msg, /chain FORWARD of table ip theirs has policy drop/)
      assert.deepEqual(silent(await status({ allowForwardDrop: true })), RELEASED)
      nft(node, 'delete table ip theirs')
    })

    testByAgent('64 pods at once have their ports, and of 16 that want the same port one gets it', async t => {
      const pods = makeManyNetns('many', 64).map(path => newPod(path))
      const begin = performance.now()
      const outcomes = await Promise.all(
        pods.map((pod, index) => call(node, 'ADD', pod, [{ ...web, hostPort: 10_000 + index }])),
      )
      t.diagnostic(`64 ADDs in ${Math.round(performance.now() - begin)} ms`)
      for (const outcome of outcomes) resultOf(outcome)
      assert.equal(elements(node).length, 64 * 5)
      for (const outcome of await Promise.all(pods.map(pod => call(node, 'DEL', pod, [])))) resultOf(outcome)
      assertNothingLeft()
      const rivals = pods.slice(0, 16)
      const codes = (await Promise.all(rivals.map(pod => call(node, 'ADD', pod, [web])))).map(({ code, stdout }) =>
        code === 0 ? 0 : JSON.parse(stdout).code,
      )
      assert.deepEqual(
        codes.sort((a, b) => a - b),
        [0, ...Array(15).fill(102)],
      )
      assert.equal(elements(node).length, 5)
      await Promise.all(rivals.map(pod => call(node, 'DEL', pod, [web])))
      assertNothingLeft()
    })
  })

/** As if the journal had been lost. */
function forgetRecord(node: Node, { it }: Pod): void {
  const db = new DatabaseSync(join(node.dataDir, 'journal.db'))
  try {
    db.exec('PRAGMA busy_timeout = 5000')
    db.prepare('DELETE FROM attachment WHERE container_id = ?').run(it.containerId)
  } finally {
    db.close()
  }
}

describe('portmap, a fault in each netlink request', { skip: skip || withoutStrace }, () => {
  const REQUESTS_MAX = 40
  let node: Node
  let agent: RunningAgent
  let netns: string
  before(async () => {
    node = makeLab({ mode: 'agent' }).nodes[0]!
    node.run('ip', 'route', 'add', '10.10.20.0/22', 'dev', 'lo')
    netns = makeNetns('pod').path
    agent = await node.startAgent()
  })
  after(() => agent[Symbol.asyncDispose]())

  /** Ports of the first pod that asks: chains, sets and elements are made, flows are forgotten, a setting is made. */
  async function round(errno: string, when: number): Promise<{ code: number; failed: boolean; calls: string[] }> {
    nft(node, 'flush ruleset')
    const pod = newPod(netns)
    const tracer = await attach(agent.pid, 'sendto', `error=${errno}:when=${when}`)
    const outcome = await call(node, 'ADD', pod, [web, dns])
    tracer.stop()
    await tracer.ended
    const code = outcome.code === 0 ? 0 : errorOf(outcome).code
    if (code !== 0) assert.match(errorOf(outcome).msg, new RegExp(`^Cannot .+ \\(${errno}\\)`))
    resultOf(await call(node, 'DEL', pod, [web, dns]))
    assert.deepEqual(elements(node), [], `after ${errno} in request ${when}`)
    assert.deepEqual(
      node.state().filter(line => line.startsWith('attachment')),
      [],
    )
    return { code, failed: code !== 0, calls: tracer.calls() }
  }

  test('ADD: ENOBUFS in every request in turn is error 11, and DEL leaves nothing', async t => {
    const failed: string[] = []
    for (let when = 1; when <= REQUESTS_MAX; when++) {
      const { code, calls } = await round('ENOBUFS', when)
      if (calls.length < when) break
      if (code === 0) continue
      assert.equal(code, 11)
      failed.push(calls[when - 1]!)
    }
    t.diagnostic(`failed: ${tally(failed)}`)
    assert.ok(failed.length >= 8, `${failed.length}`)
  })

  test('ADD and DEL start no process', async () => {
    const tracer = await attach(agent.pid, 'execve,execveat,fork,vfork,clone,clone3')
    const pod = newPod(netns)
    for (const verb of ['ADD', 'DEL'] as const) resultOf(await call(node, verb, pod, [web, dns]))
    tracer.stop()
    await tracer.ended
    assert.deepEqual(tracer.calls(), [])
    const shim = trace('execve,execveat,fork,vfork,clone,clone3')
    resultOf(await call(node, 'ADD', pod, [web], { prefix: shim.prefix }))
    assert.deepEqual(shim.calls(), ['execve'])
    resultOf(await call(node, 'DEL', pod, [web]))
  })
})
