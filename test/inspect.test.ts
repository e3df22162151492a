// SPDX-License-Identifier: Apache-2.0

// Goal: what the manuals check by hand is on one page: `mooring inspect`, and `mooring netns` and `mooring exec` lead into
// a container's namespace by whatever name it is known. Needs root.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import {
  type Attachment,
  makeLab,
  makeNetns,
  type Netns,
  type Node,
  type Outcome,
  type RunningAgent,
  resultOf,
  root,
  run,
  skip,
  start,
} from './nodelab.ts'

describe('mooring inspect, netns, exec', { skip }, () => {
  let node: Node
  let agent: RunningAgent
  let pod: Netns
  let it: Attachment
  let address: string
  let hostLink: string
  let pid: string

  const mooring = (...args: string[]): Promise<Outcome> =>
    start([join(root, 'mooring'), ...args], { env: { PATH: process.env['PATH'] ?? '' } }).outcome
  const onNode = () => ['--netns', node.path, '--data-dir', node.dataDir]
  const inspect = (target: string, ...more: string[]) => mooring('inspect', target, ...onNode(), ...more)

  before(async () => {
    node = makeLab({ mode: 'agent' }).nodes[0]!
    agent = await node.startAgent()
    pod = makeNetns('pod')
    it = { containerId: 'c0ffee0123456789', netns: pod.path }
    const env = { CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME=redis-0' }
    const result = resultOf(await node.call('ADD', it, { env, more: { ipMasq: true } }))
    address = result.ips[0].address.split('/')[0]
    hostLink = result.interfaces[0].name
    // What the manual's second NIC has: a rule and a table of its own.
    node.ip(`rule add priority 1024 iif ${hostLink} lookup 596`)
    node.ip(`route add default via ${address} dev ${hostLink} table 596 onlink`)
    pid = pod.run('sh', '-c', 'sleep 600 > /dev/null 2>&1 & echo $!').trim()
  })
  after(async () => {
    process.kill(Number(pid))
    await agent[Symbol.asyncDispose]()
  })

  test('inspect: shows both sides of a container on one page', async () => {
    const { code, stdout, stderr } = await inspect(pod.name)
    assert.equal(code, 0, stderr)
    const wanted = [
      `namespace ${pod.path} (net:[`,
      '  eth0 of demo/redis-0 in network podnet: veth-route, ready\n',
      `  up  veth  mtu 1500  `,
      `  ${address}/24`,
      '  default via 169.254.1.1 dev eth0\n',
      `: ${hostLink}  up  veth  `,
      `"mooring veth-route podnet ${it.containerId} eth0"`,
      `  ${address} dev ${hostLink}\n`,
      `  default via ${address} dev ${hostLink} table 596\n`,
      `  1024: from all iif ${hostLink} lookup 596\n`,
      `  ${address} on eth0\n`,
      `  element ${hostLink} . ${address} of set inet mooring `,
    ]
    for (const text of wanted) assert.ok(stdout.includes(text), `${text}\n---\n${stdout}`)
    // Nothing of others.
    assert.doesNotMatch(stdout, /via 10\.10\.10\.1 |32766|!/)
  })

  test('inspect: finds a container by path, PID, id, the beginning of it, and pod', async () => {
    for (const target of [pod.path, pid, 'c0ffee', 'demo/redis-0']) {
      const { code, stdout, stderr } = await inspect(target, '--json')
      assert.equal(code, 0, `${target}: ${stderr}`)
      const report = JSON.parse(stdout)
      assert.equal(report.container.links.at(-1).addresses[0], `${address}/24`)
      assert.deepEqual(
        report.node.links.map(({ name }: { name: string }) => name),
        [hostLink],
      )
      assert.deepEqual(report.attachments, [
        {
          ...{ network: 'podnet', containerId: it.containerId, ifName: 'eth0', type: 'veth-route', state: 'ready' },
          ...{ pod: 'demo/redis-0', faults: [] },
        },
      ])
    }
    const unknown = await inspect('nothing')
    assert.equal(unknown.code, 1)
    assert.match(unknown.stderr, /^mooring: Cannot find "nothing": it is no path, no name of ip netns, no process/)
  })

  test('inspect: marks what differs from what the ADD made', async () => {
    pod.ip('route del default')
    node.ip(`route del ${address}`)
    const { code, stdout } = await inspect('redis-0')
    assert.equal(code, 1)
    assert.match(stdout, new RegExp(`\n! route ${address} dev ${hostLink} is missing on the node\n`))
    assert.match(stdout, /\n! route 0\.0\.0\.0\/0 via 169\.254\.1\.1 dev eth0 is missing/)
    pod.ip('route add default via 169.254.1.1 dev eth0')
    node.ip(`route add ${address} dev ${hostLink} proto 98`)
  })

  test('inspect: shows a namespace that nobody attached anything to, and makes no journal for it', async () => {
    const empty = makeNetns('empty')
    const { code, stdout } = await mooring('inspect', empty.path, '--netns', node.path, '--data-dir', '/nowhere')
    assert.equal(code, 0)
    assert.match(stdout, /in the container\n {2}1: lo {2}up {2}/)
  })

  test("netns: gives a process's namespace a name for ip netns, and takes it back", async () => {
    const name = `${pod.name}-byhand`
    assert.deepEqual((await mooring('netns', pid, name)).stdout, `${name}\n`)
    assert.match(run('ip', ['netns', 'exec', name, 'ip', '-o', 'addr']), new RegExp(address))
    assert.match((await mooring('netns', pid, name)).stderr, /is there already/)
    assert.equal((await mooring('netns', pid, '--remove')).stdout, `removed ${name}\n`)
    assert.doesNotMatch(run('ip', ['netns']), /byhand/)
    // What others made stays.
    assert.match((await mooring('netns', pod.name, '--remove')).stderr, /gave no such name/)
    assert.match(run('ip', ['netns']), new RegExp(`^${pod.name}\\b`, 'm'))
    assert.match((await mooring('netns', '999999999')).stderr, /Cannot find process 999999999/)
  })

  test('exec: runs a command in the namespace, and its exit code is the answer', async () => {
    const shown = await mooring('exec', 'redis-0', '--data-dir', node.dataDir, '--', 'ip', '-o', '-4', 'addr')
    assert.deepEqual([shown.code, shown.stdout.includes(`${address}/24`)], [0, true])
    const outcomes: [string[], number][] = [
      [['sh', '-c', 'exit 42'], 42],
      [['sh', '-c', 'kill -9 $$'], 137],
      [['/nowhere/nothing'], 127],
    ]
    for (const [command, code] of outcomes) assert.equal((await mooring('exec', pod.path, '--', ...command)).code, code)
  })

  test('inspect: says where it has looked for a journal and found none', async () => {
    const { code, stdout, stderr } = await mooring('inspect', pod.path, '--netns', node.path, '--data-dir', '/nowhere')
    assert.equal(code, 0)
    assert.match(stdout, /\nlinks on the node\n/)
    assert.match(stderr, /^mooring: There is no journal in \/nowhere: .* Name the agent's --data-dir$/m)
    assert.equal((await inspect(pod.path)).stderr, '')
  })

  test('inspect: a container whose namespace is gone', async () => {
    process.kill(Number(pid))
    pod.remove()
    const { code, stdout } = await inspect('redis-0')
    assert.equal(code, 1)
    assert.match(stdout, /^namespace \S+, which is gone\n/)
    assert.match(stdout, /\n! its namespace \S+ is gone\n/)
    resultOf(await node.call('DEL', it))
    pid = run('sh', ['-c', 'sleep 60 > /dev/null 2>&1 & echo $!']).trim()
  })
})
