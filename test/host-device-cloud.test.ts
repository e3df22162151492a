// SPDX-License-Identifier: Apache-2.0

// Goal: host-device with tcnp-ipam gives a pod a NIC that the cloud attached to the node's server, with an address of that
// NIC's port, and packets pass the cloud's port security; the simulated cloud has a data plane in namespaces. Needs root.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { deadlineIn } from '#base'
import { type CloudSession, cloudFromConf, openCloud } from '#openstack'
import { type CloudNode, makeCloudNode } from './crash/cloud.ts'
import { fakeIpam } from './fake-ipam.ts'
import {
  cniBin,
  eventually,
  folder,
  makeNetns,
  type Netns,
  type Node,
  type RunningAgent,
  resultOf,
  root,
  skip,
  start,
} from './nodelab.ts'

const limits = () => ({ deadline: deadlineIn(10_000) })

describe('host-device with a NIC that Nova attached', { skip }, () => {
  let made: CloudNode
  let cloud: CloudSession
  let node: Node
  let agent: RunningAgent
  let nic: { port_id: string; mac_addr: string }
  /** The NIC's own address, and its name on the node. */
  let own: string
  let device: string
  let kept: string[]

  before(async () => {
    made = await makeCloudNode('agent')
    node = made.node
    agent = await node.startAgent()
    const { simulator } = made
    const { username, password, project } = simulator.accounts.demo
    cloud = openCloud(cloudFromConf({ username, password, project, domain: 'default', authUrl: simulator.authUrl }))
    const { servers, network_id } = simulator.demo()
    const attached = await cloud.nova.interfaces.attach(servers['worker-1']!.id, { net_id: network_id }, limits())
    nic = attached
    own = attached.fixed_ips[0]!.ip_address
    await eventually('the NIC is in the server', () => node.ip('-o link').includes(nic.mac_addr))
    const links: { address: string; ifname: string }[] = JSON.parse(node.ip('-j link'))
    device = links.find(({ address }) => address === nic.mac_addr)!.ifname
    node.ip(`addr add ${own}/24 dev ${device} noprefixroute`)
    node.ip(`link set ${device} up`)
    kept = stateOf()
  })
  after(async () => {
    await agent[Symbol.asyncDispose]()
    await cloud.close()
    await made[Symbol.asyncDispose]()
  })

  /** What the node has of the NIC. */
  const stateOf = () =>
    [`-o link show ${device}`, `-o addr show ${device}`, `route show dev ${device}`].map(question =>
      // These follow from the carrier, which comes a moment after the link is up.
      node.ip(question).replaceAll(/ (linkdown|tentative)| state \w+|<\S+>/g, ''),
    )
  const assertBack = async () => {
    await eventually('the NIC is back', () => node.ip('-o addr').includes(` ${own}/24 `))
    assert.deepEqual(stateOf(), kept)
  }
  const ping = (pod: Netns, address: string) => pod.run('ping', '-qc1', '-W5', address)

  /** As printed, but for the mode, and the port whose address it is. */
  const printed = () => {
    const { more } = made.options({}, { hostPort: nic.port_id })
    return { type: 'host-device', device, ...more }
  }

  test('by name, with a further address of its port', async () => {
    const pod = makeNetns('pod')
    const config = { name: 'cni0', cniVersion: '0.4.0', ...printed() }
    const it = { containerId: 'first', netns: pod.path, type: 'host-device', config }
    const prevResult = resultOf(await node.call('ADD', it))
    const [address] = prevResult.ips[0].address.split('/')
    const port = await cloud.neutron.ports.get(nic.port_id, limits())
    assert.ok(port!.fixed_ips.some(each => each.ip_address === address))
    assert.equal(prevResult.interfaces[0].mac, nic.mac_addr)
    assert.match(ping(pod, '10.10.10.1'), /1 received/)
    resultOf(await node.call('CHECK', it, { more: { prevResult } }))
    resultOf(await node.call('DEL', it))
    await assertBack()
  })

  test('host-device-plus: the one that the lease names', async () => {
    const lease = {
      cniVersion: '0.3.1',
      interfaces: [{ name: device, mac: nic.mac_addr }],
      ips: [{ version: '4', address: `${own}/24`, gateway: '10.10.10.1' }],
      routes: [{ dst: '0.0.0.0/0' }],
    }
    const { more, options } = fakeIpam(lease)
    const config = { name: 'cni0', cniVersion: '0.3.1', type: 'host-device-plus', ...more }
    const pod = makeNetns('pod')
    const it = { containerId: 'second', netns: pod.path, type: 'host-device-plus', config }
    resultOf(await node.call('ADD', it, options))
    assert.match(ping(pod, '10.10.10.1'), /1 received/)
    resultOf(await node.call('DEL', it, options))
    await assertBack()
  })

  test('the printed chain with veth-host, by cnitool', async () => {
    const directory = folder('net.d')
    const vethHost = {
      type: 'veth-host',
      serviceCidr: '10.96.0.0/12',
      hostInterface: 'eth0',
      containerInterface: 'veth0',
      ipMasq: true,
    }
    const list = { name: 'cni0', cniVersion: '0.3.1', plugins: [printed(), vethHost] }
    writeFileSync(join(directory, '10-cnichain.conflist'), JSON.stringify(list))
    const pod = makeNetns('test')
    const env = { ...node.env, CNI_PATH: cniBin(), NETCONFPATH: directory, PATH: process.env['PATH'] ?? '' }
    const cnitool = (verb: string) => start([join(root, 'mooring'), 'cni', verb, 'cni0', pod.path], { env }).outcome
    const result = resultOf(await cnitool('add'))
    const links = pod.ip('-o link')
    assert.match(links, /: eth0/)
    assert.match(links, /: veth0@/)
    const nodeAddress = made.simulator.demo().servers['worker-1']!.ports[0]!.ips[0]!
    for (const address of ['10.10.10.1', nodeAddress]) assert.match(ping(pod, address), /1 received/)
    assert.equal(result.interfaces[0].mac, nic.mac_addr)
    const looked = await start(
      [join(root, 'mooring'), 'inspect', pod.name, '--netns', node.path, '--data-dir', node.dataDir],
      { env },
    ).outcome
    assert.equal(looked.code, 0, looked.stdout + looked.stderr)
    assert.match(looked.stdout, /host-device, ready\n.*veth-host, ready\n|veth-host, ready\n.*host-device, ready\n/)
    resultOf(await cnitool('del'))
    await assertBack()
  })
})
