// SPDX-License-Identifier: Apache-2.0

// Goal: `mooring nic move` takes a NIC into a namespace and back with all that it had. Needs root.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import {
  assertSameState,
  eventually,
  folder,
  makeNetns,
  type Outcome,
  root,
  run,
  skip,
  start,
  stateOfKernel,
} from './nodelab.ts'

describe('mooring nic move', { skip }, () => {
  const node = skip ? undefined! : makeNetns('node')
  const dataDir = skip ? '' : folder('data')
  const move = (...args: string[]): Promise<Outcome> =>
    start([join(root, 'mooring'), 'nic', 'move', ...args, '--netns', node.path, '--data-dir', dataDir], {
      env: { PATH: process.env['PATH'] ?? '' },
    }).outcome
  const prepare = async () => {
    const lines = [
      'link add dev23 type veth peer name peer23',
      'link set peer23 up',
      'link set dev23 mtu 1400 address fa:16:3e:95:e5:b5 up',
      'addr add 10.99.0.5/24 brd + dev dev23',
      'route add default via 10.99.0.1',
    ]
    run('ip', ['-n', node.name, '-batch', '-'], lines.join('\n'))
    await eventually('carrier', () => (node.ip('-o link').match(/LOWER_UP/g) ?? []).length === 3)
  }

  test('in, and back with name, addresses, routes, MTU and MAC', async () => {
    await prepare()
    const kept = stateOfKernel(node)
    const pod = makeNetns('pod')
    const refused = await move('dev23', pod.name)
    assert.match(refused.stderr, /Cannot move dev23: the default route of the node leads through it\. --force moves it/)
    assertSameState(stateOfKernel(node), kept)

    const { code, stdout, stderr } = await move('dev23', pod.name, '--force')
    assert.equal(code, 0, stderr)
    assert.equal(stdout, `dev23 is dev23 in ${pod.path}, down; back with: mooring nic move dev23 host\n`)
    assert.match(pod.ip('-o link'), /dev23@\S+ <BROADCAST,MULTICAST> mtu 1400 .* fa:16:3e:95:e5:b5/)
    pod.ip('link set dev23 name other')
    assert.equal((await move('dev23', 'host')).stdout, 'dev23 is back, with what it had\n')
    const isBack = () => stateOfKernel(node).sort().join('\n') === kept.toSorted().join('\n')
    await eventually('the NIC is back', isBack, 1_000).catch(() => undefined)
    assertSameState(stateOfKernel(node), kept)
    assert.match((await move('dev23', 'host')).stderr, /nothing is known of it/)
  })

  test('by PID and under another name; a name that is taken is refused, and the NIC stays', async () => {
    const pod = makeNetns('pod')
    const pid = pod.run('sh', '-c', 'sleep 60 > /dev/null 2>&1 & echo $!').trim()
    pod.ip('link add eth0 type bridge')
    const kept = stateOfKernel(node)
    assert.match(
      (await move('dev23', pid, '--name', 'eth0', '--force')).stderr,
      /Cannot move dev23 into the container as eth0/,
    )
    assertSameState(stateOfKernel(node), kept)
    assert.equal((await move('dev23', pid, '--name', 'net1', '--force')).code, 0)
    assert.match(pod.ip('-o link'), /net1@/)
    assert.equal((await move('dev23', 'host')).code, 0)
    process.kill(Number(pid))
  })

  test('back from where somebody else moved it to', async () => {
    const pod = makeNetns('pod')
    node.ip(`link set dev23 netns ${pod.name}`)
    assert.match((await move('dev23', 'host')).stderr, /Say where it is: --from NETNS/)
    assert.match((await move('dev99', 'host', '--from', pod.name)).stderr, /has no such NIC/)
    const { stdout } = await move('dev23', 'host', '--from', pod.name)
    assert.equal(stdout, 'dev23 is back, down: nothing is known of what it had\n')
    assert.match(node.ip('-o link'), /dev23@/)
  })
})
