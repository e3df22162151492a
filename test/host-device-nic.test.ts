// SPDX-License-Identifier: Apache-2.0

// Goal: a NIC of a bus comes back too, which the kernel puts into the machine's first namespace when its own dies. Method:
// the two virtio NICs of lab/vmlab --nic --nic, whose first namespace is the node. Needs root, and runs nowhere else.

import assert from 'node:assert/strict'
import { existsSync, realpathSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { after, before, describe, test } from 'node:test'
import {
  assertSameState,
  errorOf,
  eventually,
  makeNetns,
  type Netns,
  type Node,
  netnsOf,
  nodeOf,
  skip as noRoot,
  type RunningAgent,
  resultOf,
  run,
} from './nodelab.ts'

const DONE = { code: 0, stdout: '' }
const silent = ({ code, stdout }: { code: number | null; stdout: string }) => ({ code, stdout })
const hasNics = process.env['VMLAB'] === '1' && ['eth0', 'eth1'].every(name => existsSync(`/sys/class/net/${name}`))
const skip = noRoot || (hasNics ? false : 'needs lab/vmlab --nic --nic')

describe('host-device with a NIC of a bus', { skip }, () => {
  let node: Node
  let agent: RunningAgent
  let kept: string[]
  let device: string
  let containers = 0

  before(async () => {
    run('ip', ['netns', 'attach', 'first', '1'])
    const first = netnsOf('first')
    device = dirname(realpathSync('/sys/class/net/eth0/device'))
    prepare(first, 'eth0')
    node = nodeOf(first, 'agent')
    agent = await node.startAgent()
    kept = node.state()
  })
  after(async () => {
    await agent[Symbol.asyncDispose]()
    netnsOf('first').remove()
  })

  const config = (more: object) => ({ type: 'host-device', cniVersion: '1.1.0', ipam: undefined, ...more })
  const newPod = () => {
    const pod = makeNetns('pod')
    return { pod, it: { containerId: `c${containers++}`, netns: pod.path, type: 'host-device' } }
  }
  const assertBack = async () => {
    const isBack = () => node.state().sort().join('\n') === kept.toSorted().join('\n')
    await eventually('the NIC is back', isBack, 5_000).catch(() => undefined)
    assertSameState(node.state(), kept)
  }

  test('ADD: by PCI address and by device path, and back with all it had (HD-01, HD-15)', async () => {
    const address = device.split('/').at(-1)!
    for (const more of [{ runtimeConfig: { deviceID: address } }, { kernelpath: device }]) {
      const { pod, it } = newPod()
      const result = resultOf(await node.call('ADD', it, { more: config(more) }))
      assert.equal(result.interfaces[0].mac, '52:54:00:00:00:01')
      assert.match(pod.ip('-o link'), /eth0/)
      assert.deepEqual(silent(await node.call('DEL', it, { more: config(more) })), DONE)
      await assertBack()
    }
  })

  test('DEL: the namespace died while no agent held it, and the kernel has put the NIC back (HD-10)', async () => {
    const { pod, it } = newPod()
    const net1 = { ...it, ifName: 'net1' }
    resultOf(await node.call('ADD', net1, { more: config({ device: 'eth0' }) }))
    await agent.kill('SIGKILL')
    pod.remove()
    await eventually('the kernel has put the NIC back', () => node.ip('-o link').includes(' net1: '))
    agent = await node.startAgent()
    assert.deepEqual(silent(await node.call('DEL', { ...net1, netns: '' }, { more: config({ device: 'eth0' }) })), DONE)
    await assertBack()
  })

  test('DEL: a node that is not the first namespace gets it from there (HD-10)', async () => {
    const inner = makeNetns('node')
    node.ip(`link set eth1 netns ${inner.name}`)
    prepare(inner, 'eth1')
    const other = nodeOf(inner, 'agent')
    const was = other.state()
    const innerAgent = await other.startAgent()
    const { pod, it } = newPod()
    resultOf(await other.call('ADD', it, { more: config({ device: 'eth1' }) }))
    await innerAgent.kill('SIGKILL')
    pod.remove()
    await eventually('the kernel has put the NIC back', () => run('ip', ['-o', 'link']).includes('52:54:00:00:00:02'))
    await using _again = await other.startAgent()
    assert.deepEqual(silent(await other.call('DEL', it, { more: config({ device: 'eth1' }) })), DONE)
    await eventually('carrier', () => other.state().length === was.length).catch(() => undefined)
    assertSameState(withoutIndex(other.state()), withoutIndex(was))
    inner.ip('link set eth1 down')
    inner.ip('link set eth1 netns 1')
    kept = node.state()
  })

  test('ADD: a NIC that uio_pci_generic has stays with the program (HD-13)', async () => {
    const path = dirname(realpathSync('/sys/class/net/eth1/device'))
    const address = path.split('/').at(-1)!
    run('modprobe', ['uio_pci_generic'])
    writeFileSync(`${path}/driver_override`, 'uio_pci_generic')
    writeFileSync(`${path}/driver/unbind`, address)
    writeFileSync('/sys/bus/pci/drivers_probe', address)
    const { pod, it } = newPod()
    const more = config({ pciBusID: address })
    const result = resultOf(await node.call('ADD', it, { more }))
    assert.deepEqual(result.interfaces, [{ name: 'eth0', sandbox: it.netns }])
    assert.doesNotMatch(pod.ip('-o link'), /eth0/)
    assert.deepEqual(silent(await node.call('CHECK', it, { more: { ...more, prevResult: result } })), DONE)
    assert.deepEqual(silent(await node.call('DEL', it, { more })), DONE)
    const gone = errorOf(await node.call('ADD', it, { more: config({ device: 'eth1' }) }))
    assert.match(gone.msg, /^failed to find host device/)
  })
})

/** Gives a NIC what moving it takes away. */
function prepare(netns: Netns, name: string): void {
  const lines = [
    `link set ${name} mtu 1400 alias storage up`,
    `link property add dev ${name} altname ens${name.at(-1)}`,
    `addr add 10.99.0.5/24 brd + dev ${name}`,
    `addr add fd00:99::5/64 dev ${name} nodad`,
    `route add 10.98.0.0/16 via 10.99.0.1 metric 7`,
  ]
  run('ip', ['-n', netns.name, '-batch', '-'], lines.join('\n'))
}

const withoutIndex = (state: readonly string[]) => state.map(line => line.replace(/: \d+: /, ': '))
