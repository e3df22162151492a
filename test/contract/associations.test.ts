// SPDX-License-Identifier: Apache-2.0

/** 3(i) allowed_address_pairs, 3(j) trunks, 3(k) floating IPs: what hangs on a port. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import {
  created,
  eventually,
  ip,
  type Json,
  makeNetwork,
  makeWorld,
  nobody,
  type Reply,
  refused,
  type World,
} from './world.ts'

let world: World
before(async () => {
  world = await makeWorld()
})
after(() => world.close())

const makePort = (values: object = {}): Promise<Json> =>
  created(world.member.neutron('POST', '/ports', { port: { network_id: world.networkId, ...values } }), 'port')
const put = (id: string, values: object): Promise<Reply> =>
  world.member.neutron('PUT', `/ports/${id}`, { port: values })

describe('3(i) allowed_address_pairs', () => {
  let port: Json
  before(async () => {
    port = await makePort({ fixed_ips: [ip('10.10.10.50')] })
  })
  const pairs = (list: unknown[]): Promise<Reply> => put(port.id, { allowed_address_pairs: list })

  test('3(i) addresses and CIDRs, MAC defaults to the port, full replacement, sorted otherwise than sent', async () => {
    const foreign = { ip_address: '10.9.9.8', mac_address: 'ff:16:3e:aa:aa:aa' }
    const reply = await pairs([ip('10.9.9.9'), foreign, ip('10.100.0.0/16')])
    assert.equal(reply.status, 200, reply.text)
    const mac = port.mac_address
    assert.deepEqual(reply.body.port.allowed_address_pairs, [
      { mac_address: mac, ip_address: '10.100.0.0/16' },
      { mac_address: mac, ip_address: '10.9.9.9' },
      foreign,
    ])
    assert.deepEqual((await pairs([ip('10.9.9.7')])).body.port.allowed_address_pairs, [
      { mac_address: mac, ip_address: '10.9.9.7' },
    ])
  })

  test('3(i) same pair twice -> 400 DuplicateAddressPairInRequest', async () => {
    refused(
      await pairs([ip('10.9.9.9'), ip('10.9.9.9')]),
      400,
      'DuplicateAddressPairInRequest',
      'Request contains duplicate address pair: mac_address None ip_address 10.9.9.9.',
    )
  })

  test('3(i) equal to an own fixed address -> 200', async () => {
    assert.equal((await pairs([ip('10.10.10.50')])).status, 200)
  })

  test('3(i) 11 pairs -> 400 AllowedAddressPairExhausted', async () => {
    refused(
      await pairs(Array.from({ length: 11 }, (_, index) => ip(`10.9.9.${index}`))),
      400,
      'AllowedAddressPairExhausted',
      'The number of allowed address pair exceeds the maximum 10.',
    )
  })

  test('3(i) 0.0.0.0/0 -> 200', async () => {
    assert.equal((await pairs([ip('0.0.0.0/0')])).status, 200)
  })

  test('3(i) port security disabled -> 409 AddressPairAndPortSecurityRequired', async () => {
    await pairs([])
    const open = await makePort({ port_security_enabled: false })
    refused(
      await put(open.id, { allowed_address_pairs: [ip('10.9.9.9')] }),
      409,
      'AddressPairAndPortSecurityRequired',
      'Port Security must be enabled in order to have allowed address pairs on a port.',
    )
  })

  test('3(i) port security off with security groups -> 409; with none in the same call -> 200', async () => {
    refused(
      await put(port.id, { port_security_enabled: false }),
      409,
      'PortSecurityPortHasSecurityGroup',
      /^Port has security group associated\./,
    )
    assert.equal((await put(port.id, { port_security_enabled: false, security_groups: [] })).status, 200)
  })
})

describe('3(j) trunks', () => {
  let trunk: Json
  let parent: Json
  let first: Json
  let second: Json
  const segment = (port: Json, id: number) => ({ port_id: port.id, segmentation_type: 'vlan', segmentation_id: id })
  before(async () => {
    ;[parent, first, second] = await Promise.all([makePort(), makePort(), makePort()])
  })
  const subports = (verb: string, list: unknown[]): Promise<Reply> =>
    world.member.neutron('PUT', `/trunks/${trunk.id}/${verb}`, { sub_ports: list })

  test('3(j) POST -> 201 with status DOWN', async () => {
    const wanted = { port_id: parent.id, sub_ports: [segment(first, 101)] }
    trunk = await created(world.member.neutron('POST', '/trunks', { trunk: wanted }), 'trunk')
    assert.equal(trunk.status, 'DOWN')
    assert.deepEqual(trunk.sub_ports, [segment(first, 101)])
  })

  test('3(j) add_subports -> 200, the trunk without a wrapper; get_subports -> 200', async () => {
    const reply = await subports('add_subports', [segment(second, 102)])
    assert.equal(reply.status, 200, reply.text)
    assert.equal(reply.body.id, trunk.id)
    assert.equal(reply.body.trunk, undefined)
    const listed = await world.member.neutron('GET', `/trunks/${trunk.id}/get_subports`)
    assert.deepEqual(listed.body, { sub_ports: [segment(first, 101), segment(second, 102)] })
  })

  test('3(j) segmentation id in use -> 409 DuplicateSubPort; port in a trunk -> 409 TrunkPortInUse', async () => {
    const third = await makePort()
    refused(
      await subports('add_subports', [segment(third, 102)]),
      409,
      'DuplicateSubPort',
      `segmentation_type vlan and segmentation_id 102 already in use on trunk ${trunk.id}.`,
    )
    refused(
      await subports('add_subports', [segment(second, 109)]),
      409,
      'TrunkPortInUse',
      `Port ${second.id} is in use by another trunk.`,
    )
  })

  test("3(j) DELETE of a subport's port -> 409 PortInUseAsSubPort; of the parent -> 409 PortInUseAsTrunkParent", async () => {
    refused(await world.member.neutron('DELETE', `/ports/${first.id}`), 409, 'PortInUseAsSubPort')
    refused(await world.member.neutron('DELETE', `/ports/${parent.id}`), 409, 'PortInUseAsTrunkParent')
  })

  test("3(j) the parent shows trunk_details with the subports' MACs; a subport has no device yet", async () => {
    const shown = (await world.member.neutron('GET', `/ports/${parent.id}`)).body.port
    assert.equal(shown.trunk_details.trunk_id, trunk.id)
    const macs = shown.trunk_details.sub_ports.map((sub: Json) => sub.mac_address)
    assert.deepEqual(new Set(macs), new Set([first.mac_address, second.mac_address]))
    const sub = (await world.member.neutron('GET', `/ports/${first.id}`)).body.port
    assert.deepEqual([sub.device_id, sub.device_owner], ['', ''])
  })

  test('3(j) removing one that is not there -> 404 SubPortNotFound; DELETE -> 204', async () => {
    assert.equal((await subports('remove_subports', [{ port_id: second.id }])).status, 200)
    refused(
      await subports('remove_subports', [{ port_id: second.id }]),
      404,
      'SubPortNotFound',
      `SubPort ${second.id} on trunk ${trunk.id} could not be found.`,
    )
    assert.equal((await world.member.neutron('DELETE', `/trunks/${trunk.id}`)).status, 204)
  })
})

describe('3(k) floating IPs', () => {
  let port: Json
  before(async () => {
    port = await makePort({ fixed_ips: [ip('10.10.10.60'), ip('10.10.10.61')] })
  })
  const post = (values: object): Promise<Reply> => {
    const floatingip = { floating_network_id: world.externalNetworkId, ...values }
    return world.member.neutron('POST', '/floatingips', { floatingip })
  }
  const get = async (id: string): Promise<Json> =>
    (await world.member.neutron('GET', `/floatingips/${id}`)).body.floatingip

  test('3(k) create and associate with a secondary address in one call -> 201; a second one for it -> 409', async () => {
    const made = await created(post({ port_id: port.id, fixed_ip_address: '10.10.10.61' }), 'floatingip')
    assert.equal(made.fixed_ip_address, '10.10.10.61')
    assert.equal(made.port_id, port.id)
    assert.equal(made.router_id, world.routerId)
    refused(
      await post({ port_id: port.id, fixed_ip_address: '10.10.10.61' }),
      409,
      'FloatingIPPortAlreadyAssociated',
      /using fixed IP 10\.10\.10\.61, as that fixed IP already has a floating IP on external network/,
    )
  })

  test('3(k) port_id alone, port has two addresses -> 400 BadRequest', async () => {
    refused(
      await post({ port_id: port.id }),
      400,
      'BadRequest',
      `Bad floatingip request: Port ${port.id} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a floating IP.`,
    )
  })

  test('3(k) an address the port does not have -> 400 BadRequest', async () => {
    refused(
      await post({ port_id: port.id, fixed_ip_address: '10.10.10.99' }),
      400,
      'BadRequest',
      `Bad floatingip request: Port ${port.id} does not have fixed ip 10.10.10.99.`,
    )
  })

  test('3(k) network without router to the external net -> 404 ExternalGatewayForFloatingIPNotFound', async () => {
    const lonely = await makeNetwork(world.member, 'lonely', '10.77.0.0/24')
    const inside = await makePort({ network_id: lonely.networkId })
    refused(
      await post({ port_id: inside.id }),
      404,
      'ExternalGatewayForFloatingIPNotFound',
      /is not reachable from subnet/,
    )
    refused(await post({ port_id: nobody }), 404, 'PortNotFound')
  })

  test('3(k) the fixed address is removed from the port: 200, and the floating IP stays associated with it', async () => {
    const made = await created(post({ port_id: port.id, fixed_ip_address: '10.10.10.60' }), 'floatingip')
    assert.equal((await put(port.id, { fixed_ips: [ip('10.10.10.61')] })).status, 200)
    const still = await get(made.id)
    assert.deepEqual([still.port_id, still.fixed_ip_address], [port.id, '10.10.10.60'])
    const away = await world.member.neutron('PUT', `/floatingips/${made.id}`, { floatingip: { port_id: null } })
    assert.equal(away.status, 200)
    assert.deepEqual([away.body.floatingip.port_id, away.body.floatingip.fixed_ip_address], [null, null])
  })

  test('3(k) the port is deleted: the floating IP is disassociated', async () => {
    const doomed = await makePort()
    const made = await created(post({ port_id: doomed.id }), 'floatingip')
    assert.equal(made.port_details.mac_address, doomed.mac_address)
    assert.equal((await world.member.neutron('DELETE', `/ports/${doomed.id}`)).status, 204)
    await eventually(async () => (await get(made.id)).port_id === null)
    const freed = await get(made.id)
    assert.deepEqual([freed.fixed_ip_address, freed.router_id], [null, null])
  })
})
