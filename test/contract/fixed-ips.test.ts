// SPDX-License-Identifier: Apache-2.0

/** 3(a) fixed_ips, 3(d) addresses per port, 3(g) no addresses left. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import {
  created,
  ip,
  ipsOf,
  type Json,
  makeNetwork,
  makeWorld,
  nobody,
  type Reply,
  refused,
  type World,
} from './world.ts'

describe('3(a) fixed_ips', () => {
  let world: World
  let port: Json
  let other: Json
  before(async () => {
    world = await makeWorld()
    const make = (fixed: unknown[]): Promise<Json> =>
      created(
        world.member.neutron('POST', '/ports', { port: { network_id: world.networkId, fixed_ips: fixed } }),
        'port',
      )
    port = await make([ip('10.10.10.50')])
    other = await make([ip('10.10.10.11')])
  })
  after(() => world.close())

  const put = (fixed: unknown): Promise<Reply> =>
    world.member.neutron('PUT', `/ports/${port.id}`, { port: { fixed_ips: fixed } })
  const held = async (): Promise<string[]> => ipsOf((await world.member.neutron('GET', `/ports/${port.id}`)).body.port)

  test('3(a) request order is not kept: answers are sorted by the address as a string', async () => {
    const subnet = { subnet_id: world.subnetId }
    const reply = await put([...['.50', '.99', '.7', '.60'].map(end => ip(`10.10.10${end}`)), subnet, subnet, subnet])
    assert.equal(reply.status, 200, reply.text)
    const ips = ipsOf(reply.body.port)
    assert.equal(ips.length, 7)
    assert.deepEqual(ips, ips.toSorted())
    for (const address of ['10.10.10.50', '10.10.10.99', '10.10.10.7', '10.10.10.60']) assert.ok(ips.includes(address))
    assert.deepEqual(await held(), ips)
    const listed = await world.member.neutron('GET', `/ports?id=${port.id}`)
    assert.deepEqual(ipsOf(listed.body.ports[0]), ips)
  })

  test('3(a) an entry with a subnet alone reuses addresses that the port has, and the rest is dropped', async () => {
    const before = await held()
    const subnet = { subnet_id: world.subnetId }
    const reply = await put([subnet, subnet])
    assert.equal(reply.status, 200, reply.text)
    assert.deepEqual(ipsOf(reply.body.port), before.slice(-2))
  })

  test('3(a) the list is a full replacement, with one new automatic address', async () => {
    await put([ip('10.10.10.50')])
    const reply = await put([ip('10.10.10.50'), ip('10.10.10.51'), { subnet_id: world.subnetId }])
    const ips = ipsOf(reply.body.port)
    assert.equal(ips.length, 3)
    assert.ok(ips.includes('10.10.10.50') && ips.includes('10.10.10.51'))
    assert.deepEqual(ipsOf((await put([ip('10.10.10.51')])).body.port), ['10.10.10.51'])
  })

  test('3(a) automatic addresses are scattered, not the lowest free ones', async () => {
    const subnet = { subnet_id: world.subnetId }
    const ips = ipsOf((await put([ip('10.10.10.51'), ...Array(8).fill(subnet)])).body.port)
    const numbers = ips.map(text => Number(text.split('.')[3])).filter(number => number !== 51)
    assert.ok(Math.max(...numbers) > 12, `addresses ${numbers}`)
    await put([ip('10.10.10.51')])
  })

  test('3(a) an empty list -> 200, port without address', async () => {
    const reply = await put([])
    assert.equal(reply.status, 200)
    assert.deepEqual(reply.body.port.fixed_ips, [])
  })

  const rows: [string, () => unknown, number, string, RegExp][] = [
    [
      'same address twice',
      () => [ip('10.10.10.50'), ip('10.10.10.50')],
      400,
      'HTTPBadRequest',
      /^Invalid input for fixed_ips\. Reason: Duplicate IP address '10\.10\.10\.50'\.$/,
    ],
    [
      'address of another port',
      () => [ip(ipsOf(other)[0] ?? '')],
      409,
      'IpAddressAlreadyAllocated',
      /^IP address 10\.10\.10\.11 already allocated in subnet [0-9a-f-]{36}$/,
    ],
    [
      "the gateway's address",
      () => [ip('10.10.10.1')],
      409,
      'IpAddressAlreadyAllocated',
      /^IP address 10\.10\.10\.1 already allocated/,
    ],
    [
      'outside every subnet',
      () => [ip('192.0.2.5')],
      400,
      'InvalidIpForNetwork',
      /^IP address 192\.0\.2\.5 is not a valid IP for any of the subnets on the specified network\.$/,
    ],
    [
      'outside the given subnet',
      () => [{ subnet_id: world.subnetId, ip_address: '192.0.2.5' }],
      400,
      'InvalidIpForSubnet',
      /^IP address 192\.0\.2\.5 is not a valid IP for the specified subnet\.$/,
    ],
    [
      'broadcast address of the given subnet',
      () => [{ subnet_id: world.subnetId, ip_address: '10.10.10.255' }],
      400,
      'InvalidIpForSubnet',
      /10\.10\.10\.255/,
    ],
    ['unknown subnet', () => [{ subnet_id: nobody }], 404, 'SubnetNotFound', /^Subnet .* could not be found\.$/],
    [
      'subnet that is no UUID',
      () => [{ subnet_id: 'banana' }],
      400,
      'HTTPBadRequest',
      /'banana' is not a valid UUID\.$/,
    ],
    [
      '10.10.10.300',
      () => [ip('10.10.10.300')],
      400,
      'HTTPBadRequest',
      /'10\.10\.10\.300' is not a valid IP address\.$/,
    ],
  ]
  for (const [name, fixed, status, type, message] of rows) {
    test(`3(a) ${name} -> ${status} ${type}`, async () => refused(await put(fixed()), status, type, message))
  }

  test('3(d) no limit of addresses per port: 40 on one port', async () => {
    const many = Array.from({ length: 40 }, (_, index) => ip(`10.10.10.${150 + index}`))
    const reply = await put(many)
    assert.equal(reply.status, 200, reply.text)
    assert.equal(reply.body.port.fixed_ips.length, 40)
    await put([])
  })

  const message = (id: string): string => `No more IP addresses available on network ${id}.`

  test('3(g) create, update and a named subnet that is full -> 409 IpAddressGenerationFailure, nothing allocated', async () => {
    const { neutron } = world.member
    const small = await makeNetwork(world.member, 'small', '10.10.30.0/29')
    const holder = await created(neutron('POST', '/ports', { port: { network_id: small.networkId } }), 'port')
    const six = Array(6).fill({ subnet_id: small.subnetId })
    const update = await neutron('PUT', `/ports/${holder.id}`, { port: { fixed_ips: six } })
    refused(update, 409, 'IpAddressGenerationFailure', message(small.networkId))
    const five = Array(5).fill({ subnet_id: small.subnetId })
    const create = await neutron('POST', '/ports', { port: { network_id: small.networkId, fixed_ips: five } })
    refused(create, 409, 'IpAddressGenerationFailure', message(small.networkId))
    const filled = await neutron('PUT', `/ports/${holder.id}`, { port: { fixed_ips: five } })
    assert.equal(filled.status, 200, `all five were still free: ${filled.text}`)
    const one = await neutron('POST', '/ports', { port: { network_id: small.networkId } })
    refused(one, 409, 'IpAddressGenerationFailure', message(small.networkId))
  })

  test('3(g) bulk creation is all or nothing, but what it took before it failed stays reserved', async () => {
    const { neutron } = world.member
    const small = await makeNetwork(world.member, 'bulk', '10.10.31.0/29')
    const bulk = await neutron('POST', '/ports', { ports: Array(6).fill({ network_id: small.networkId }) })
    refused(bulk, 409, 'IpAddressGenerationFailure', message(small.networkId))
    const left = await neutron('GET', `/ports?network_id=${small.networkId}`)
    assert.deepEqual(left.body.ports, [])
    const one = await neutron('POST', '/ports', { port: { network_id: small.networkId } })
    refused(one, 409, 'IpAddressGenerationFailure')
    const named = { network_id: small.networkId, fixed_ips: [ip('10.10.31.4')] }
    refused(await neutron('POST', '/ports', { port: named }), 409, 'IpAddressAlreadyAllocated')
  })

  test('beyond 3(g): several ports at once on a network with SLAAC need MACs of the caller, one port does not', async () => {
    const { neutron } = world.member
    const both = await makeNetwork(world.member, 'both', '10.10.32.0/29')
    const modes = { ipv6_address_mode: 'slaac', ipv6_ra_mode: 'slaac' }
    const wanted = { network_id: both.networkId, ip_version: 6, cidr: 'fd00:32::/64', ...modes }
    await created(neutron('POST', '/subnets', { subnet: wanted }), 'subnet')
    const { networkId: network_id, subnetId: subnet_id } = both
    const fixed_ips = [{ subnet_id }]
    for (const each of [{ network_id }, { network_id, fixed_ips }])
      refused(await neutron('POST', '/ports', { ports: [each] }), 500, 'HTTPInternalServerError')
    const port = { network_id, fixed_ips, mac_address: 'fa:16:3e:01:02:03' }
    const [several] = await created(neutron('POST', '/ports', { ports: [port] }), 'ports')
    const one = await created(neutron('POST', '/ports', { port: { network_id, fixed_ips } }), 'port')
    for (const { fixed_ips: got } of [several, one]) assert.equal(got.length, 2, 'that of SLAAC comes unasked')
    assert.equal(several.fixed_ips[1].ip_address, 'fd00:32::f816:3eff:fe01:203')
  })

  test('beyond 3(n): ports that are made several at once keep their tags where an extension says so, the POST of one loses them', async () => {
    const { neutron } = world.member
    const aliases = (await neutron('GET', '/extensions')).body.extensions.map((each: Json) => each.alias)
    const tags = ['mooring', 'mooring:node=worker-1']
    // A service plugin of its own, which the lab does not load and the simulator has.
    const kept = aliases.includes('tag-ports-during-bulk-creation') ? tags : []
    const marks = { device_owner: 'mooring:separate', device_id: 'worker-1', description: 'mooring node=worker-1' }
    const wanted = { network_id: world.networkId, ...marks, tags }
    const bulk = await neutron('POST', '/ports', { ports: [wanted, { ...wanted, name: 'second' }] })
    assert.equal(bulk.status, 201, bulk.text)
    const one = await created(neutron('POST', '/ports', { port: wanted }), 'port')
    try {
      const ids = bulk.body.ports.map((each: Json) => each.id)
      const query = '/ports?device_owner=mooring%3Aseparate&device_id=worker-1'
      const found = (await neutron('GET', query)).body.ports
      const tagsOf = (id: string) => [...found.find((each: Json) => each.id === id).tags].sort()
      assert.deepEqual(tagsOf(ids[0]), kept)
      assert.deepEqual(tagsOf(ids[1]), kept)
      assert.deepEqual(tagsOf(one.id), [])
      const tagged = (await neutron('GET', `${query}&tags=mooring`)).body.ports.map((each: Json) => each.id)
      assert.deepEqual(tagged.sort(), kept.length === 0 ? [] : [...ids].sort())
    } finally {
      for (const { id } of [...bulk.body.ports, one]) await neutron('DELETE', `/ports/${id}`)
    }
  })

  test('3(g) network-ip-availabilities are for administrators: 404 for a member', async () => {
    const path = `/network-ip-availabilities/${world.networkId}`
    refused(await world.member.neutron('GET', path), 404, 'HTTPNotFound')
    const full = await world.admin.neutron('GET', path)
    assert.equal(full.body.network_ip_availability.total_ips, 55) // those of the pools
    assert.equal(typeof full.body.network_ip_availability.used_ips, 'number')
  })

  test('beyond 3(a): on a shared network a member may not name addresses, and may not PUT fixed_ips at all', async () => {
    const { neutron } = world.member
    const wanted = { name: `${world.project}-shared`, shared: true }
    const network = await created(world.admin.neutron('POST', '/networks', { network: wanted }), 'network')
    try {
      const subnet = { network_id: network.id, ip_version: 4, cidr: '10.44.0.0/24', enable_dhcp: false }
      await created(world.admin.neutron('POST', '/subnets', { subnet }), 'subnet')
      const make = (values: object): Promise<Reply> =>
        neutron('POST', '/ports', { port: { network_id: network.id, ...values } })
      const plain = await created(make({}), 'port')
      refused(
        await make({ fixed_ips: [ip('10.44.0.9')] }),
        403,
        'PolicyNotAuthorized',
        '(rule:create_port and (rule:create_port:fixed_ips and (rule:create_port:fixed_ips:ip_address))) is disallowed by policy',
      )
      refused(
        await neutron('PUT', `/ports/${plain.id}`, { port: { fixed_ips: plain.fixed_ips } }),
        403,
        'PolicyNotAuthorized',
        '(rule:update_port and (rule:update_port:fixed_ips and (rule:update_port:fixed_ips:subnet_id and rule:update_port:fixed_ips:ip_address))) is disallowed by policy',
      )
      refused(
        await neutron('PUT', `/ports/${plain.id}`, { port: { allowed_address_pairs: [ip('10.9.9.9')] } }),
        403,
        'PolicyNotAuthorized',
      )
      await neutron('DELETE', `/ports/${plain.id}`)
    } finally {
      await world.admin.neutron('DELETE', `/networks/${network.id}`)
    }
  })
})
