// SPDX-License-Identifier: Apache-2.0

// Goal: host-device with tcnp-ipam gives a pod a NIC that the cloud attached to the node's server, with an address of that
// NIC's port, and packets pass the cloud's port security; the simulated cloud has a data plane in namespaces. Needs root.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { deadlineIn } from '#base'
import { cloudFromConf, openCloud } from '#openstack'
import { makeCloudNode } from './crash/cloud.ts'
import { assertSameState, cniBin, eventually, folder, makeNetns, resultOf, skip, stateOfKernel } from './nodelab.ts'

const limits = () => ({ deadline: deadlineIn(10_000) })

test('a NIC that Nova attached: by name with mode mix, and as the one that the lease names', { skip }, async t => {
  await using made = await makeCloudNode('agent')
  const { node, simulator } = made
  await using _agent = await node.startAgent()
  const { username, password, project } = simulator.accounts.demo
  const cloud = openCloud(cloudFromConf({ username, password, project, domain: 'default', authUrl: simulator.authUrl }))
  t.after(() => cloud.close())
  const server = simulator.demo().servers['worker-1']!.id
  const nic = await cloud.nova.interfaces.attach(server, { net_id: simulator.demo().network_id }, limits())
  const own = nic.fixed_ips[0]!.ip_address
  await eventually('the NIC is in the server', () => node.ip('-o link').includes(nic.mac_addr))
  const device = JSON.parse(node.ip('-j link')).find(
    (each: { address: string }) => each.address === nic.mac_addr,
  ).ifname
  node.ip(`addr add ${own}/24 dev ${device} noprefixroute`)
  node.ip(`link set ${device} up`)
  const kept = stateOfKernel(node)

  // As printed, but for the mode and the port.
  const { more } = made.options({}, { hostPort: nic.port_id })
  const mix = { name: 'cni0', cniVersion: '0.3.1', type: 'host-device', device, ...more }
  const first = { containerId: 'first', netns: makeNetns('pod').path, type: 'host-device', config: mix }
  const pod = first.netns.split('/').at(-1)!
  const result = resultOf(await node.call('ADD', first))
  const [address] = result.ips[0].address.split('/')
  const port = await cloud.neutron.ports.get(nic.port_id, limits())
  assert.ok(port!.fixed_ips.some(each => each.ip_address === address))
  assert.equal(result.interfaces[0].mac, nic.mac_addr)
  const ping = (from: string) => node.run('ip', 'netns', 'exec', from, 'ping', '-qc1', '-W5', '10.10.10.1')
  assert.match(ping(pod), /1 received/)
  resultOf(
    await node.call('CHECK', first, { more: { cniVersion: '0.4.0', prevResult: { ...result, cniVersion: '0.4.0' } } }),
  )
  resultOf(await node.call('DEL', first))
  await eventually('the NIC is back', () => stateOfKernel(node).length === kept.length)
  assertSameState(stateOfKernel(node), kept)

  // What an IPAM plugin answers that has attached the NIC itself.
  const directory = folder('fake')
  const routes = [{ dst: '0.0.0.0/0' }]
  const interfaces = [{ name: device, mac: nic.mac_addr }]
  const lease = {
    cniVersion: '0.3.1',
    interfaces,
    ips: [{ version: '4', address: `${own}/24`, gateway: '10.10.10.1' }],
    routes,
  }
  const script = `#!/bin/sh\n[ $CNI_COMMAND != ADD ] || echo '${JSON.stringify(lease)}'\n`
  writeFileSync(join(directory, 'fake-ipam'), script, { mode: 0o755 })
  const env = { CNI_PATH: `${directory}:${cniBin()}` }
  const eni = { name: 'cni0', cniVersion: '0.3.1', type: 'host-device-plus', ipam: { type: 'fake-ipam' } }
  const other = makeNetns('pod')
  const second = { containerId: 'second', netns: other.path, type: 'host-device-plus', config: eni }
  resultOf(await node.call('ADD', second, { env }))
  assert.match(ping(other.name), /1 received/)
  resultOf(await node.call('DEL', second, { env }))
  await eventually('the NIC is back', () => stateOfKernel(node).length === kept.length)
  assertSameState(stateOfKernel(node), kept)
})
