// SPDX-License-Identifier: Apache-2.0

// Goal: the network lists of the documents that Mooring implements work as they are printed there, called by hand with
// cnitool in a server of the simulated OpenStack; only addresses, ids, names and secrets are replaced. Needs root.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { deadlineIn } from '#base'
import { cloudFromConf, openCloud } from '#openstack'
import { type CloudNode, makeCloudNode } from './crash/cloud.ts'
import {
  cniBin,
  eventually,
  folder,
  makeNetns,
  type Netns,
  type RunningAgent,
  root,
  run,
  skip,
  start,
} from './nodelab.ts'

const limits = () => ({ deadline: deadlineIn(10_000) })

/** Some kernels have no ipvlan; the same file runs under lab/vmlab, whose kernel has. */
const ipvlanProbe = 'ip link add p0 type veth && ip link add link p0 name i0 type ipvlan'
const withoutIpvlan =
  skip || (spawnSync('unshare', ['--net', 'sh', '-c', ipvlanProbe]).status === 0 ? false : 'this kernel has no ipvlan')

describe('network lists as printed', { skip }, () => {
  let made: CloudNode
  let agent: RunningAgent
  const confDirectory = skip ? '' : folder('net.d')
  const varLib = skip ? '' : folder('var-lib')

  before(async () => {
    made = await makeCloudNode('agent')
    agent = await made.node.startAgent()
  })
  after(async () => {
    await agent[Symbol.asyncDispose]()
    await made[Symbol.asyncDispose]()
  })

  /** Calls cnitool on the node, as the documents do; the cloud answers from this process. @returns what it prints */
  async function cnitool(verb: string, network: string, netns: string): Promise<string> {
    const { node } = made
    // What it keeps of results is not this machine's.
    const own = ['/usr/bin/unshare', '--mount', 'sh', '-c', `mount --bind ${varLib} /var/lib && exec "$@"`, 'sh']
    const command = [
      '/usr/bin/nsenter',
      `--net=${node.path}`,
      ...own,
      join(root, 'mooring'),
      'cni',
      verb,
      network,
      netns,
    ]
    const paths = { PATH: process.env['PATH'] ?? '', CNI_PATH: cniBin(), NETCONFPATH: confDirectory }
    const { code, stdout, stderr } = await start(command, { env: { ...paths, ...node.env } }).outcome
    assert.equal(code, 0, `${verb} ${network}: ${stdout}${stderr}`)
    return stdout
  }

  const write = (name: string, content: object) => writeFileSync(join(confDirectory, name), JSON.stringify(content))
  /** Without the blanks at the ends of lines. */
  const lines = (text: string) =>
    text
      .split('\n')
      .map(line => line.trim())
      .filter(line => line !== '')
  const vethHost = {
    type: 'veth-host',
    serviceCidr: '10.96.0.0/12',
    hostInterface: 'eth0',
    containerInterface: 'veth0',
    ipMasq: true,
  }

  /** Adds the network to a new pod, looks at both sides as the documents do, sends packets, deletes, and looks again. */
  async function live(first: object): Promise<void> {
    const { node } = made
    write('10-cnichain.conflist', { name: 'cni0', cniVersion: '0.3.1', plugins: [first, vethHost] })
    const pod = makeNetns('test')
    const result = JSON.parse(await cnitool('add', 'cni0', pod.path))
    const [address] = result.ips[0].address.split('/')
    const host = result.interfaces.find(({ name }: { name: string }) => /^veth[0-9a-f]{8}$/.test(name)).name
    const [nodeAddress] = JSON.parse(node.ip('-j -4 addr show eth0'))[0].addr_info
    const routes = lines(pod.ip('route'))
    assert.ok(
      routes.some(line => /^default via 10\.10\.10\.1 dev eth0/.test(line)),
      routes.join('\n'),
    )
    assert.ok(routes.includes(`${nodeAddress.local} dev veth0 scope link`), routes.join('\n'))
    assert.ok(routes.includes(`10.96.0.0/12 via ${nodeAddress.local} dev veth0`), routes.join('\n'))
    assert.match(node.ip(`route show ${address}`), new RegExp(`^${address} dev ${host} `))
    assert.match(node.ip('rule'), new RegExp(`^1024:\\s+from all iif ${host} lookup 256`, 'm'))
    assert.match(node.ip('route show table 256'), new RegExp(`^default via ${address} dev ${host}`))
    assertReaches(pod, '10.10.10.1')
    assertReaches(pod, nodeAddress.local)
    assert.match(node.run('ping', '-qc1', '-W5', address), /1 received/)
    await cnitool('del', 'cni0', pod.path)
    pod.remove()
    // The table of the firewall and the settings stay; nothing that tells of this pod does, in the cloud neither.
    // An address is a whole word: 10.10.10.4 does not tell of 10.10.10.42.
    const ofPod = new RegExp(`${host}|(?<![\\d.])${address.replaceAll('.', '\\.')}(?![\\d.])|^attachment`)
    const told = () => [...node.state(), ...made.fixedIps()].filter(line => ofPod.test(line))
    await eventually('nothing tells of the pod any more', () => told().length === 0).catch(() => {})
    assert.deepEqual(told(), [], 'something still tells of the pod')
  }

  const assertReaches = (pod: Netns, address: string) =>
    assert.match(run('ip', ['netns', 'exec', pod.name, 'ping', '-qc1', '-W5', address]), /1 received/)

  test('host-device, tcnp-ipam in mode eni, veth-host: to the letter', async () => {
    const { simulator } = made
    const { username, password, project } = simulator.accounts.demo
    await live({
      type: 'host-device',
      ipam: {
        type: 'tcnp-ipam',
        openstackConf: { username, password, project, domain: 'default', authUrl: simulator.authUrl },
        neutronConf: { networks: [simulator.demo().network_id], mode: 'eni' },
        routes: [{ dst: '0.0.0.0/0' }],
      },
    })
  })

  test('host-device, tcnp-ipam, veth-host: a NIC of the server, and a second one for services', async t => {
    const { node, simulator } = made
    const { username, password, project } = simulator.accounts.demo
    const conf = { username, password, project, domain: 'default', authUrl: simulator.authUrl }
    const cloud = openCloud(cloudFromConf(conf))
    t.after(() => cloud.close())
    const server = simulator.demo().servers['worker-1']!.id
    const nic = await cloud.nova.interfaces.attach(server, { net_id: simulator.demo().network_id }, limits())
    await eventually('the NIC is in the server', () => node.ip('-o link').includes(nic.mac_addr))
    const all: { address: string; ifname: string }[] = JSON.parse(node.ip('-j link'))
    const device = all.find(each => each.address === nic.mac_addr)!.ifname
    await live({ type: 'host-device', device, ...made.options({}, { hostPort: nic.port_id }).more })
  })

  test('ipvlan, tcnp-ipam, veth-host: a link on the NIC of the node, and a second one for services', {
    skip: withoutIpvlan,
  }, async () => {
    await live({ type: 'ipvlan', master: 'eth0', ...made.options().more })
  })

  test('macvlan with a range of addresses, as a NetworkAttachmentDefinition holds it', async () => {
    const { node } = made
    // Upstream's whereabouts needs a cluster; the range is the same, from this node alone.
    const ranges = [[{ subnet: '192.168.60.0/24', rangeStart: '192.168.60.20', rangeEnd: '192.168.60.50' }]]
    node.ip('link add eth9 type veth peer name peer9')
    write('20-macvlan.conf', {
      cniVersion: '0.3.1',
      name: 'macvlan-conf-1',
      type: 'macvlan',
      master: 'eth9',
      mode: 'bridge',
      ipam: { type: 'host-local', dataDir: node.leases, ranges },
    })
    const pod = makeNetns('test')
    const result = JSON.parse(await cnitool('add', 'macvlan-conf-1', pod.path))
    assert.deepEqual(
      [result.cniVersion, result.ips.map((ip: { address: string }) => ip.address)],
      ['0.3.1', ['192.168.60.20/24']],
    )
    assert.match(pod.ip('-d link show eth0'), /macvlan mode bridge/)
    await cnitool('del', 'macvlan-conf-1', pod.path)
    assert.equal(pod.ip('-o link').includes('eth0'), false)
    node.ip('link del eth9')
  })
})
