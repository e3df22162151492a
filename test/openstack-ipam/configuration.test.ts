// SPDX-License-Identifier: Apache-2.0

// What a configuration of tcnp-ipam may say, and how it is refused. Needs no root.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { listAssignedAddresses } from '#allocator'
import type { Simulator } from '#simulator'
import { asAdmin, type IpamConfig, limits, neutronList, portOf, setUp, smallNetwork } from './cloud.ts'

test('keys may be written in any case', async t => {
  const { node, ipam } = await setUp(t)
  const upper = (value: unknown): unknown =>
    value !== null && typeof value === 'object' && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).map(([key, each]) => [key.toUpperCase(), upper(each)]))
      : value
  assert.equal((await node.call('ADD', 'c1', upper(ipam) as object)).exitCode, 0)
})

test('two ports that match are error 7 with both as candidates', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const { cloud } = await smallNetwork(t, simulator)
  const { mac, ips, id } = portOf(simulator)
  const network = await cloud.neutron.networks.create({ name: 'twin' }, limits())
  await cloud.neutron.subnets.create({ network_id: network.id, cidr: '10.10.10.0/24', ip_version: 4 }, limits())
  const twin = await cloud.neutron.ports.create(
    { network_id: network.id, mac_address: mac, fixed_ips: [{ ip_address: ips[0]! }] },
    limits(),
  )
  const reply = await node.call('ADD', 'c1', asAdmin(ipam, simulator, {}))
  assert.equal(reply.json.code, 7)
  assert.match(reply.json.msg!, /2 ports match/)
  for (const each of [id, twin.id]) assert.ok(reply.json.details!.includes(each))
  const named = asAdmin(ipam, simulator, { networks: [simulator.demo().network_id] })
  assert.equal((await node.call('ADD', 'c1', named)).exitCode, 0)
})

test('a network without subnet is error 7 that names it', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const { cloud } = await smallNetwork(t, simulator)
  await cloud.neutron.networks.create({ name: 'bare' }, limits())
  const reply = await node.call('ADD', 'c1', asAdmin(ipam, simulator, { networks: ['bare'] }))
  assert.equal(reply.json.code, 7)
  assert.match(reply.json.msg!, /network "bare" .* has no subnet/)
})

test('a network of the same name that has no subnet is in nobody’s way where the port says which is meant', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const { cloud } = await smallNetwork(t, simulator)
  await cloud.neutron.networks.create({ name: 'workers' }, limits())
  const reply = await node.call('ADD', 'c1', asAdmin(ipam, simulator, { networks: ['workers'] }))
  assert.equal(reply.exitCode, 0, reply.stdout)
  const separate = asAdmin(ipam, simulator, { mode: 'separate', networks: ['workers'] })
  const { json } = await node.call('ADD', 'c2', separate)
  assert.match(`${json.code} ${json.msg}`, /^7 Cannot choose network "workers" of .*: 2 have this name/)
})

type Bad = { title: string; code: number; says: RegExp; change(ipam: IpamConfig, simulator: Simulator): object }

const bad: Bad[] = [
  {
    title: 'unknown mode',
    code: 7,
    says: /"nixda".*"mix".*"eni"/,
    change: i => ({ ...i, neutronConf: { mode: 'nixda' } }),
  },
  {
    title: 'a key of neutronConf that nobody knows',
    code: 7,
    says: /"ipam.neutronConf" has the unknown key "securityGroup", known are .*\bsecurityGroups\b/,
    change: i => ({ ...i, neutronConf: { securityGroup: ['web'] } }),
  },
  {
    title: 'mode of the wrong type',
    code: 7,
    says: /neutronConf\.mode/,
    change: i => ({ ...i, neutronConf: { mode: 1 } }),
  },
  {
    title: 'networks of the wrong type',
    code: 7,
    says: /neutronConf\.networks/,
    change: i => ({ ...i, neutronConf: { networks: 'x' } }),
  },
  {
    title: 'relative data directory',
    code: 7,
    says: /neutronConf\.dataDir" is "locks", want an absolute path/,
    change: i => ({ ...i, neutronConf: { dataDir: 'locks' } }),
  },
  {
    title: 'unknown network',
    code: 7,
    says: /Cannot find network "nirgends"/,
    change: i => ({ ...i, neutronConf: { networks: ['nirgends'] } }),
  },
  {
    title: 'missing host interface',
    code: 7,
    says: /Cannot find host interface "eth9"/,
    change: i => ({ ...i, neutronConf: { hostInterface: 'eth9' } }),
  },
  {
    title: 'unknown host port',
    code: 7,
    says: /Cannot find port "p"/,
    change: i => ({ ...i, neutronConf: { hostPort: 'p' } }),
  },
  {
    title: 'host port on another network',
    code: 7,
    says: /Cannot find the Neutron port of host interface eth0/,
    change: (i, s) => ({ ...i, neutronConf: { networks: [s.demo().external_network_id] } }),
  },
  { title: 'wrong route', code: 7, says: /routes\[0\]\.dst/, change: i => ({ ...i, routes: [{ dst: 'x' }] }) },
  { title: 'missing resolvConf', code: 7, says: /resolvConf/, change: i => ({ ...i, resolvConf: '/nirgends' }) },
  { title: 'both cloud and openstackConf', code: 7, says: /both given/, change: i => ({ ...i, cloud: 'x' }) },
  {
    title: 'no password',
    code: 7,
    says: /"password" is missing/,
    change: i => ({ ...i, openstackConf: { ...i.openstackConf, password: undefined } }),
  },
  {
    title: 'no URL',
    code: 7,
    says: /authUrl/,
    change: i => ({ ...i, openstackConf: { ...i.openstackConf, authUrl: 'x' } }),
  },
  {
    title: 'wrong password',
    code: 101,
    says: /log in/,
    change: i => ({ ...i, openstackConf: { ...i.openstackConf, password: 'falsch-falsch' } }),
  },
  {
    title: 'unreachable URL',
    code: 11,
    says: /127\.0\.0\.1:1/,
    change: i => ({ ...i, openstackConf: { ...i.openstackConf, authUrl: 'http://127.0.0.1:1/v3' } }),
  },
]

for (const { title, code, says, change } of bad)
  test(`ADD with ${title} is one clear error ${code} and leaves nothing`, async t => {
    const { node, simulator, ipam } = await setUp(t)
    const before = neutronList(simulator)
    const reply = await node.call('ADD', 'c1', change(ipam, simulator), { timeoutMs: 3_000 })
    assert.equal(reply.exitCode, 1)
    assert.equal(reply.json.code, code, reply.stdout)
    assert.match(`${reply.json.msg} ${reply.json.details}`, says)
    assert.ok(!reply.stdout.includes(simulator.accounts.demo.password))
    assert.ok(!reply.stdout.includes('falsch-falsch'))
    assert.equal((await node.call('DEL', 'c1', change(ipam, simulator), { timeoutMs: 3_000 })).exitCode, 0)
    assert.deepEqual(neutronList(simulator), before)
    assert.deepEqual(listAssignedAddresses(node.world.journal), [])
  })
