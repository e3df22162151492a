// SPDX-License-Identifier: Apache-2.0

// Goal: host-device with tcnp-ipam in mode eni gives each pod a NIC that Nova has attached to the node's server, from the
// reserve, and gives it back, whenever the agent dies; the simulated cloud has a data plane in namespaces. Needs root.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, before, describe, test } from 'node:test'
import { deadlineIn } from '#base'
import { type CloudSession, cloudFromConf, openCloud } from '#openstack'
import { list } from '#simulator'
import { type CloudNode, makeCloudNode } from './crash/cloud.ts'
import { eventually, makeNetns, type Netns, type Outcome, type RunningAgent, resultOf, skip } from './nodelab.ts'

type Port = { readonly id: string; readonly device_id: string; readonly mac_address: string }

describe('a NIC of the server for each pod', { skip }, () => {
  let made: CloudNode
  let agent: RunningAgent
  let cloud: CloudSession
  let count = 0
  before(async () => {
    made = await makeCloudNode('agent')
    agent = await made.node.startAgent()
    const { username, password, project } = made.simulator.accounts.demo
    const { authUrl } = made.simulator
    cloud = openCloud(cloudFromConf({ username, password, project, domain: 'default', authUrl }))
  })
  after(async () => {
    await cloud.close()
    await agent[Symbol.asyncDispose]()
    await made[Symbol.asyncDispose]()
  })

  const attachment = (pod: Netns) => ({ containerId: `c${count++}`, netns: pod.path, type: 'host-device' })
  const config = (neutronConf: object = {}) => {
    const { more } = made.options({}, { mode: 'eni', reserve: 1, ...neutronConf })
    return { more: { ...more, cniVersion: '1.1.0' } }
  }
  const status = () =>
    made.node.call('STATUS', { containerId: '', netns: '', ifName: '', type: 'host-device' }, config())
  const server = () => made.simulator.demo().servers['worker-1']!
  async function makeNetwork(): Promise<string> {
    const limits = { deadline: deadlineIn(5_000) }
    const { id } = await cloud.neutron.networks.create({ name: `network-${count}` }, limits)
    await cloud.neutron.subnets.create({ network_id: id, cidr: `10.80.${count}.0/24`, ip_version: 4 }, limits)
    return id
  }
  const marked = () => list(made.simulator.state, 'ports').filter(port => port.name.startsWith('mooring-'))
  const macOf = (outcome: Outcome): string => resultOf(outcome).interfaces[0].mac
  const ping = (pod: Netns) => assert.match(pod.run('ping', '-qc1', '-W5', '10.10.10.1'), /1 received/)
  const isHome = (mac: string) => made.node.ip('-o link').includes(mac)
  /** MACs of the NICs that the journal has in a state. */
  function journalled(state: string): string[] {
    using db = new DatabaseSync(join(made.node.dataDir, 'journal.db'), { readOnly: true, timeout: 5_000 })
    const rows = db.prepare('SELECT mac FROM object WHERE state = ?').all(state) as { mac: string }[]
    return rows.map(({ mac }) => mac)
  }
  const reserved = () => eventually('a NIC is in reserve', () => journalled('free').length > 0)

  test('comes from the reserve while no call to the cloud gets through, passes packets, and is the next pod’s', async () => {
    resultOf(await status())
    await reserved()
    made.simulator.inject({ act: 'cut', times: 0 })
    const pods = [makeNetns('pod'), makeNetns('pod')] as const
    const first = attachment(pods[0])
    const mac = macOf(await made.node.call('ADD', first, config()))
    ping(pods[0])
    assert.equal(isHome(mac), false)
    await made.heal()
    resultOf(await made.node.call('DEL', first, config()))
    assert.ok(isHome(mac))
    await eventually('it waits for the next', () => journalled('free').includes(mac))
    const macs = new Set<string>()
    for (const pod of pods) macs.add(macOf(await made.node.call('ADD', attachment(pod), config())))
    assert.ok(macs.has(mac), 'reused')
    for (const pod of pods) ping(pod)
    await reserved()
  })

  test('whose pod’s namespace is gone comes back, and is the next pod’s', async () => {
    const pod = makeNetns('pod')
    const it = attachment(pod)
    const mac = macOf(await made.node.call('ADD', it, config()))
    pod.remove()
    resultOf(await made.node.call('DEL', it, config()))
    assert.ok(isHome(mac))
    await eventually('it waits for the next', () => journalled('free').includes(mac))
  })

  /** Moments of an attachment, as the cloud sees it. */
  const moments = {
    'when its port is made': (ports: Port[]) => ports.some(port => port.device_id === ''),
    'while Nova attaches it': (ports: Port[]) => ports.some(port => port.device_id !== ''),
    'when Nova has answered': () => made.simulator.requests('POST', 'os-interface$').length > 0,
  }
  for (const [moment, isReached] of Object.entries(moments))
    test(`is not lost when the agent is killed ${moment}`, async () => {
      const { simulator, node } = made
      simulator.inject({ act: 'delay', latencyMs: 200, method: 'POST', path: 'os-interface' })
      simulator.settings.latency = { ...simulator.settings.latency, attachMs: 200 }
      const before = new Set(marked().map(port => port.id))
      const ours = () => marked().filter(port => !before.has(port.id))
      // Of a network for which there is no NIC yet.
      const own = config({ networks: [await makeNetwork()], reserve: 0 })
      simulator.forgetRequests()
      const it = attachment(makeNetns('pod'))
      const calling = node.call('ADD', it, own)
      await eventually(moment, () => isReached(ours()))
      await agent.kill('SIGKILL')
      await calling
      agent = await node.startAgent()
      resultOf(await node.call('DEL', it, own))
      const mac = macOf(await node.call('ADD', it, own))
      // One that is on its way out may still be there.
      const isSettled = (port: Port) =>
        port.device_id === server().id && [...journalled('free'), mac].includes(port.mac_address)
      await eventually('what is left is a NIC that a pod has, or the next will have', () => ours().every(isSettled))
      for (const port of ours()) assert.equal(isHome(port.mac_address), port.mac_address !== mac)
      resultOf(await node.call('DEL', it, own))
    })
})
