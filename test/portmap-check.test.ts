// SPDX-License-Identifier: Apache-2.0

// Goal: CHECK, STATUS and GC of portmap, many pods at once, and what is there again after somebody or something failed. Needs
// root.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { attach, tally, trace, withoutStrace } from './crash/strace.ts'
import {
  cniBin,
  errorOf,
  eventually,
  folder,
  makeLab,
  makeManyNetns,
  makeNetns,
  type Node,
  type RunningAgent,
  resultOf,
  skip,
  start,
} from './nodelab.ts'
import { call, dns, elements, newPod, nft, portmapLab, RELEASED, silent, web } from './portmap-lab.ts'

for (const mode of ['standalone', 'agent'] as const)
  describe(`portmap, CHECK, STATUS and GC, ${mode}`, { skip }, () => {
    const at = portmapLab(mode)
    const { testByAgent, assertNothingLeft } = at

    testByAgent(
      'CHECK names each element that is missing or leads elsewhere, and chains without rules (PM-08)',
      async () => {
        const pod = newPod(at.netns())
        resultOf(await call(at.node, 'ADD', pod, [web, dns]))
        const check = async () => {
          const { code, msg, details = '' } = errorOf(await call(at.node, 'CHECK', pod, [web, dns]))
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
        const link = /dev (\w+)/.exec(at.node.ip(`route get ${pod.prevResult.ips[0]!.address.split('/')[0]}`))![1]
        const setting = `net.ipv4.conf.${link}.route_localnet`
        at.node.run('sysctl', '-qw', `${setting}=0`)
        assert.ok((await check()).includes(`${setting} is off on the node`))
        at.node.run('sysctl', '-qw', `${setting}=1`)
        const gone: string[] = []
        for (const [set, key, named] of keys) {
          nft(at.node, `delete element inet mooring ${set} { ${key} }`)
          gone.push(`element ${named} of ${set.includes('near') ? 'set' : 'map'} inet mooring ${set} is missing`)
          const text = await check()
          for (const sentence of gone) assert.ok(text.includes(sentence), `${sentence}\n${text}`)
        }
        nft(at.node, 'add element inet mooring portmap_any_v4 { tcp . 8080 comment "x" : 10.9.9.9 . 80 }')
        assert.match(await check(), /is of "x", not of "podnet c\d+ eth0"/)
        for (const chain of ['prerouting', 'output', 'postrouting', 'ports', 'loopback']) {
          nft(at.node, `flush chain inet mooring portmap_${chain}`)
          assert.match(await check(), new RegExp(`the rules of chain inet mooring portmap_${chain} are not there`))
        }
        nft(at.node, 'delete element inet mooring portmap_any_v4 { tcp . 8080 }')
        resultOf(await call(at.node, 'DEL', pod, [web, dns]))
        nft(at.node, 'flush ruleset')
        assert.match(await check(), /is missing/)
        const again = newPod(at.netns())
        resultOf(await call(at.node, 'ADD', again, [web]))
        resultOf(await call(at.node, 'DEL', again, [web]))
        assertNothingLeft()
      },
    )

    testByAgent('after somebody flushed the rule set, the next ADD puts everything back', async () => {
      const pods = [1, 2, 3].map(() => newPod(at.netns()))
      const more = { markMasqBit: 9, conditionsV4: ['!', '-s', '192.0.2.0/24'] }
      const mapping = (index: number) => [{ ...web, hostPort: 8000 + index }]
      for (const index of [0, 1]) resultOf(await call(at.node, 'ADD', pods[index]!, mapping(index), { more }))
      const before = elements(at.node)
      // One that has no ports has nothing to put back.
      const without = newPod(at.netns())
      resultOf(await call(at.node, 'ADD', without, []))
      nft(at.node, 'flush ruleset')
      resultOf(await call(at.node, 'ADD', pods[2]!, mapping(2)))
      resultOf(await call(at.node, 'DEL', pods[2]!, mapping(2)))
      resultOf(await call(at.node, 'DEL', without, []))
      assert.deepEqual(new Set(elements(at.node)), new Set(before))
      for (const index of [0, 1]) {
        assert.deepEqual(silent(await call(at.node, 'CHECK', pods[index]!, mapping(index), { more })), RELEASED)
        resultOf(await call(at.node, 'DEL', pods[index]!, mapping(index), { more }))
      }
      assertNothingLeft()
    })

    testByAgent('the agent puts back what somebody flushed, also where only our chains were', async () => {
      await at.agent.kill('SIGTERM')
      at.agent = await at.node.startAgent({ reconcile: 1 })
      const pod = newPod(at.netns())
      resultOf(await call(at.node, 'ADD', pod, [web]))
      const before = elements(at.node)
      for (const harm of ['flush ruleset', 'flush chain inet mooring portmap_ports']) {
        nft(at.node, harm)
        // The elements come after the chains.
        await eventually(
          `${harm} is undone`,
          () =>
            nft(at.node, 'list ruleset').includes('map @portmap_any_v4') && elements(at.node).length === before.length,
        )
        assert.deepEqual(elements(at.node), before)
        assert.deepEqual(silent(await call(at.node, 'CHECK', pod, [web])), RELEASED)
      }
      resultOf(await call(at.node, 'DEL', pod, [web]))
      await at.agent.kill('SIGTERM')
      at.agent = await at.node.startAgent()
      assertNothingLeft()
    })

    testByAgent('GC frees what is in no list, and nothing else (GC-01)', async () => {
      const [dead, alive] = [newPod(at.netns()), newPod(at.netns())]
      resultOf(await call(at.node, 'ADD', dead, [web]))
      resultOf(await call(at.node, 'ADD', alive, [{ ...web, hostPort: 9090 }]))
      await new Promise(resolve => setTimeout(resolve, 150)) // records that are younger stay
      const valid = [{ containerID: alive.it.containerId, ifname: 'eth0' }]
      const gc = { cniVersion: '1.1.0', 'cni.dev/valid-attachments': valid, prevResult: undefined }
      assert.deepEqual(silent(await call(at.node, 'GC', alive, [], { more: gc })), RELEASED)
      assert.ok(elements(at.node).every(line => line.includes(`podnet ${alive.it.containerId} eth0`)))
      assert.equal(elements(at.node).length, 5)
      resultOf(await call(at.node, 'DEL', alive, []))
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
            { type: 'veth-route', ipam: at.node.config()['ipam'] },
            { type: 'portmap', capabilities: { portMappings: true } },
          ],
        }
        writeFileSync(join(directory, '10-podnet.conflist'), JSON.stringify(list))
        const env = { ...at.node.env, CNI_PATH: cniBin(), NETCONFPATH: directory, PATH: process.env['PATH']! }
        const ports = JSON.stringify({ portMappings: [web, dns] })
        const cache = ['--cache-dir', folder('cache')]
        const cnitool = (verb: string) =>
          start([join(cniBin(), 'cnitool'), verb, ...cache, 'podnet', at.netns()], { env: { ...env, CAP_ARGS: ports } })
            .outcome
        const { ips } = resultOf(await cnitool('add'))
        const pod = ips[0].address.split('/')[0].replaceAll('.', '\\.')
        const shown = new RegExp(`tcp \\. 8080 comment "podnet cnitool-[0-9a-f]{20} eth0" : ${pod} \\. 80`)
        assert.match(nft(at.node, 'list map inet mooring portmap_any_v4'), shown)
        // The list of `cnitool gc` is empty: nothing stays.
        for (const verb of ['check', 'status', 'del', 'gc']) {
          const outcome = await cnitool(verb)
          assert.deepEqual(silent(outcome), RELEASED, `${verb} ${outcome.stderr}`)
        }
        assert.deepEqual(elements(at.node), [])
        assert.deepEqual(
          at.node.state().filter(line => line.startsWith('attachment')),
          [],
        )
        // What veth-route keeps on the node is no matter of these tests.
        at.keep()
      },
    )

    testByAgent('STATUS names a foreign chain that drops what is forwarded', async () => {
      const pod = newPod(at.netns())
      const status = (more: object) =>
        call(at.node, 'STATUS', pod, [], { more: { cniVersion: '1.1.0', prevResult: undefined, ...more } })
      assert.deepEqual(silent(await status({})), RELEASED)
      nft(at.node, 'add table ip theirs')
      at.node.run('nft', 'add chain ip theirs FORWARD { type filter hook forward priority 0; policy drop; }')
      const error = errorOf(await status({}))
      assert.equal(error.code, 50)
      assert.match(error.msg, /chain FORWARD of table ip theirs has policy drop/)
      assert.deepEqual(silent(await status({ allowForwardDrop: true })), RELEASED)
      nft(at.node, 'delete table ip theirs')
    })

    testByAgent('64 pods at once have their ports, and of 16 that want the same port one gets it', async t => {
      const pods = makeManyNetns('many', 64).map(path => newPod(path))
      const begin = performance.now()
      const outcomes = await Promise.all(
        pods.map((pod, index) => call(at.node, 'ADD', pod, [{ ...web, hostPort: 10_000 + index }])),
      )
      t.diagnostic(`64 ADDs in ${Math.round(performance.now() - begin)} ms`)
      for (const outcome of outcomes) resultOf(outcome)
      assert.equal(elements(at.node).length, 64 * 5)
      for (const outcome of await Promise.all(pods.map(pod => call(at.node, 'DEL', pod, [])))) resultOf(outcome)
      assertNothingLeft()
      const rivals = pods.slice(0, 16)
      const codes = (await Promise.all(rivals.map(pod => call(at.node, 'ADD', pod, [web])))).map(({ code, stdout }) =>
        code === 0 ? 0 : JSON.parse(stdout).code,
      )
      assert.deepEqual(
        codes.sort((a, b) => a - b),
        [0, ...Array(15).fill(102)],
      )
      assert.equal(elements(at.node).length, 5)
      await Promise.all(rivals.map(pod => call(at.node, 'DEL', pod, [web])))
      assertNothingLeft()
    })
  })

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
