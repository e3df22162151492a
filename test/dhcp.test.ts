// SPDX-License-Identifier: Apache-2.0

// Goal: the reference's `dhcp` gives addresses to macvlan and host-device as it does to the reference's own: the link is
// there and up when it asks, and still there when it gives the address back. Needs root, python3 and lab/peers.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import {
  assertSameState,
  cniBin,
  errorOf,
  eventually,
  makeLab,
  makeNetns,
  type Netns,
  type Node,
  peers,
  type RunningAgent,
  resultOf,
  skip,
} from './nodelab.ts'

const missing = skip || (peers === undefined ? 'needs PEERS_DIR' : false)

describe('addresses by DHCP', { skip: missing }, () => {
  let node: Node
  let router: Netns
  let agent: RunningAgent
  /** What the server got, and what the daemon says. */
  let messages = ''
  let said = ''
  let daemon: ChildProcess
  const running: ChildProcess[] = []
  // Short: the path of a socket has 107 bytes.
  const directory = missing ? '' : mkdtempSync(join(tmpdir(), 'dhcp-'))
  const socket = join(directory, 's')
  const options = { env: { CNI_PATH: `${cniBin()}:${peers}` } }

  function begin(command: readonly string[]): ChildProcess {
    const child = spawn(command[0]!, command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] })
    running.push(child)
    return child
  }

  function beginDaemon(): void {
    daemon = begin([join(peers!, 'dhcp'), 'daemon', '-socketpath', socket, '-timeout', '3s'])
    daemon.stderr!.on('data', text => {
      said += text
    })
  }

  before(async () => {
    const lab = makeLab({ mode: 'agent' })
    ;[node, router] = [lab.nodes[0]!, lab.router]
    agent = await node.startAgent()
    const server = begin(['ip', 'netns', 'exec', router.name, 'python3', join(import.meta.dirname, 'dhcp-server.py')])
    server.stdout!.on('data', text => {
      messages += text
    })
    beginDaemon()
    await eventually('the server is ready', () => messages.includes('ready'))
  })
  after(async () => {
    for (const child of running) child.kill()
    await agent?.[Symbol.asyncDispose]()
    if (directory !== '') rmSync(directory, { recursive: true })
  })

  function newPod(type: string, keys: object) {
    const pod = makeNetns('pod')
    const ipam = { type: 'dhcp', daemonSocketPath: socket }
    const config = { cniVersion: '1.0.0', name: 'd', type, ...keys, ipam }
    return { pod, it: { containerId: pod.name, netns: pod.path, type, config } }
  }

  async function live(type: string, keys: object): Promise<void> {
    const kept = node.state()
    const { pod, it } = newPod(type, keys)
    messages = ''
    said = ''
    const result = resultOf(await node.call('ADD', it, options))
    assert.equal(result.ips[0].address, '10.10.10.77/24')
    assert.match(pod.ip('-4 addr show eth0'), /inet 10\.10\.10\.77\/24/)
    assert.match(pod.ip('route'), /^default via 10\.10\.10\.1 dev eth0/m)
    pod.run('ping', '-qc1', '-W2', '10.10.10.1')
    assert.match(messages, /DISCOVER\nREQUEST/)
    resultOf(await node.call('CHECK', it, { ...options, more: { prevResult: result } }))
    resultOf(await node.call('DEL', it, options))
    assert.match(said, /lease acquired[^$]*releasing lease\n$/, 'with the link still there')
    await eventually('the server has heard that the address is free', () => messages.endsWith('RELEASE\n'))
    assertSameState(node.state(), kept)
  }

  test('macvlan asks by its own link, and gives the address back by it', () => live('macvlan', { master: 'eth0' }))

  test('a daemon that does not answer keeps neither link nor record for longer than it is away', async () => {
    const kept = node.state()
    const { pod, it } = newPod('macvlan', { master: 'eth0' })
    resultOf(await node.call('ADD', it, options))
    daemon.kill()
    await once(daemon, 'exit')
    assert.match(errorOf(await node.call('DEL', it, options)).msg, /error dialing DHCP daemon/)
    assert.doesNotMatch(pod.ip('-o link'), /eth0/)
    rmSync(socket, { force: true })
    beginDaemon()
    await eventually('the daemon listens', () => existsSync(socket))
    resultOf(await node.call('DEL', it, options))
    assertSameState(node.state(), kept)
  })

  test('host-device asks by the NIC that it has moved, bridge by its pair', async () => {
    // A NIC of the node on the segment, beside the one that it needs itself.
    router.ip(`link add p9 type veth peer name nic9 netns ${node.name}`)
    router.ip('link set p9 master br0 up')
    await live('host-device', { device: 'nic9' })

    node.ip('link add br9 type bridge')
    node.run('sysctl', '-qw', 'net.ipv6.conf.br9.disable_ipv6=1')
    node.ip('link set nic9 master br9 up')
    node.ip('link set br9 up')
    await eventually('the bridge has a carrier', () => !node.ip('-o link show br9').includes('NO-CARRIER'))
    await live('bridge', { bridge: 'br9' })
  })
})
