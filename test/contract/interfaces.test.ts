// SPDX-License-Identifier: Apache-2.0

/** 3(e) quotas, 3(f) deleting and attaching. */
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
  novaRefused,
  type Reply,
  refused,
  type World,
} from './world.ts'

let world: World
let server: Json
let own: Json
before(async () => {
  world = await makeWorld()
  own = await makePort('server')
  const wanted = {
    name: 'contract-1',
    flavorRef: world.flavorId,
    imageRef: '',
    networks: [{ port: own.id }],
    block_device_mapping_v2: [{ boot_index: 0, source_type: 'blank', destination_type: 'local', volume_size: 1 }],
  }
  server = await created(world.member.nova('POST', '/servers', { server: wanted }), 'server')
  const status = async (): Promise<string> =>
    (await world.member.nova('GET', `/servers/${server.id}`)).body.server.status
  await eventually(async () => (await status()) === 'ACTIVE', 60_000)
})
after(() => world.close())

const makePort = (name: string, networkId = world.networkId): Promise<Json> =>
  created(world.member.neutron('POST', '/ports', { port: { network_id: networkId, name } }), 'port')
const getPort = async (id: string): Promise<Json> => (await world.member.neutron('GET', `/ports/${id}`)).body.port
const attach = (wanted: unknown, id = server.id): Promise<Reply> =>
  world.member.nova('POST', `/servers/${id}/os-interface`, { interfaceAttachment: wanted })
const detach = (port: string): Promise<Reply> =>
  world.member.nova('DELETE', `/servers/${server.id}/os-interface/${port}`)
const attached = async (): Promise<string[]> =>
  (await world.member.nova('GET', `/servers/${server.id}/os-interface`)).body.interfaceAttachments.map(
    (entry: Json) => entry.port_id,
  )
const setQuota = (quota: object): Promise<Reply> =>
  world.admin.neutron('PUT', `/quotas/${world.member.projectId}`, { quota })
const noQuota = (): Promise<Reply> => world.admin.neutron('DELETE', `/quotas/${world.member.projectId}`)

describe('3(e) quotas', () => {
  const overQuota = (reply: Reply, resource: string): void =>
    refused(reply, 409, 'OverQuota', `Quota exceeded for resources: ['${resource}'].`)

  test('3(e) ports over the quota: POST and bulk 409 OverQuota with nothing left behind, attach with net_id 403', async () => {
    const details = await world.member.neutron('GET', `/quotas/${world.member.projectId}/details.json`)
    const { used } = details.body.quota.port
    await setQuota({ port: used + 1 })
    try {
      const one = { network_id: world.networkId }
      overQuota(await world.member.neutron('POST', '/ports', { ports: [one, one, one] }), 'port')
      const after = await world.member.neutron('GET', `/quotas/${world.member.projectId}/details.json`)
      assert.equal(after.body.quota.port.used, used)
      await setQuota({ port: used })
      overQuota(await world.member.neutron('POST', '/ports', { port: one }), 'port')
      novaRefused(await attach({ net_id: world.networkId }), 403, 'forbidden', 'Maximum number of ports exceeded')
    } finally {
      await noQuota()
    }
  })

  test('3(e) floating IPs over the quota -> 409 OverQuota', async () => {
    await setQuota({ floatingip: 0 })
    try {
      const floatingip = { floating_network_id: world.externalNetworkId }
      overQuota(await world.member.neutron('POST', '/floatingips', { floatingip }), 'floatingip')
    } finally {
      await noQuota()
    }
  })

  test('3(e) a member may not set its quota -> 403 PolicyNotAuthorized', async () => {
    const reply = await world.member.neutron('PUT', `/quotas/${world.member.projectId}`, { quota: { port: 7 } })
    refused(reply, 403, 'PolicyNotAuthorized', 'rule:update_quota is disallowed by policy')
  })

  test('3(e) a member reads its quota and its details; there is none for addresses', async () => {
    const plain = (await world.member.neutron('GET', `/quotas/${world.member.projectId}`)).body.quota
    assert.equal(plain.port, 500)
    assert.deepEqual(
      Object.keys(plain).filter(name => /ip_address|fixed/.test(name)),
      [],
    )
    const details = (await world.member.neutron('GET', `/quotas/${world.member.projectId}/details.json`)).body.quota
    assert.equal(details.port.limit, 500)
    assert.equal(details.port.reserved, 0)
    assert.ok(details.port.used > 0)
  })
})

describe('3(f) deleting and attaching', () => {
  for (const [name, id] of [
    ['a port that does not exist', nobody],
    ['the id banana', 'banana'],
  ]) {
    test(`3(f) DELETE, GET, PUT of ${name} -> 404 PortNotFound`, async () => {
      const message = `Port ${id} could not be found.`
      refused(await world.member.neutron('DELETE', `/ports/${id}`), 404, 'PortNotFound', message)
      refused(await world.member.neutron('GET', `/ports/${id}`), 404, 'PortNotFound', message)
      refused(await world.member.neutron('PUT', `/ports/${id}`, { port: { name: 'x' } }), 404, 'PortNotFound', message)
    })
  }

  test('3(f) DELETE a router interface port -> 409 ServicePortInUse', async () => {
    const { ports } = (await world.member.neutron('GET', `/ports?device_id=${world.routerId}`)).body
    refused(
      await world.member.neutron('DELETE', `/ports/${ports[0].id}`),
      409,
      'ServicePortInUse',
      `Port ${ports[0].id} cannot be deleted directly via the port API: has device owner network:router_interface.`,
    )
  })

  test('3(f) DELETE network in use -> 409 NetworkInUse with the ports; subnet -> 409 SubnetInUse', async () => {
    const network = await world.member.neutron('DELETE', `/networks/${world.networkId}`)
    refused(
      network,
      409,
      'NetworkInUse',
      /There are one or more ports still in use on the network, id for these ports is: /,
    )
    assert.ok(network.body.NeutronError.message.includes(own.id))
    refused(
      await world.member.neutron('DELETE', `/subnets/${world.subnetId}`),
      409,
      'SubnetInUse',
      `Unable to complete operation on subnet ${world.subnetId}: One or more ports have an IP allocation from this subnet.`,
    )
  })

  test('3(f) attach by port_id: answer, device_owner; again -> 409; detach -> 202 and the port stays, freed', async () => {
    const port = await makePort('attach')
    const reply = await attach({ port_id: port.id })
    assert.equal(reply.status, 200, reply.text)
    const { port_state: state, ...answer } = reply.body.interfaceAttachment
    assert.ok(['ACTIVE', 'DOWN'].includes(state))
    assert.deepEqual(answer, {
      net_id: world.networkId,
      port_id: port.id,
      mac_addr: port.mac_address,
      fixed_ips: port.fixed_ips,
    })
    const now = await getPort(port.id)
    assert.equal(now.device_owner, 'compute:nova')
    assert.equal(now.device_id, server.id)
    assert.ok(now.revision_number > port.revision_number, 'attaching bumps the revision')
    await eventually(async () => (await getPort(port.id)).status === 'ACTIVE')
    novaRefused(await attach({ port_id: port.id }), 409, 'conflictingRequest', `Port ${port.id} is still in use.`)
    const gone = await detach(port.id)
    assert.equal(gone.status, 202)
    assert.equal(gone.text, '')
    await eventually(async () => (await getPort(port.id)).device_id === '')
    const free = await getPort(port.id)
    assert.deepEqual([free.device_owner, free.status], ['', 'DOWN'])
  })

  test('3(f) attach by net_id: Nova makes the port, and detaching deletes it', async () => {
    const reply = await attach({ net_id: world.networkId })
    assert.equal(reply.status, 200, reply.text)
    const id = reply.body.interfaceAttachment.port_id
    const shown = await world.member.nova('GET', `/servers/${server.id}/os-interface/${id}`)
    assert.equal(shown.body.interfaceAttachment.port_id, id)
    assert.equal((await detach(id)).status, 202)
    await eventually(async () => (await world.member.neutron('GET', `/ports/${id}`)).status === 404)
    assert.equal((await world.member.nova('GET', `/servers/${server.id}/os-interface/${id}`)).status, 404)
  })

  test('3(f) attach unknown port, unknown server -> 404 itemNotFound', async () => {
    novaRefused(await attach({ port_id: nobody }), 404, 'itemNotFound', `Port id ${nobody} could not be found.`)
    const message = `Instance ${nobody} could not be found.`
    novaRefused(await attach({ port_id: own.id }, nobody), 404, 'itemNotFound', message)
  })

  test('3(f) attach unknown network -> 500 computeFault', async () => {
    novaRefused(await attach({ net_id: nobody }), 500, 'computeFault', /Unexpected API Error[\s\S]*RemoteError/)
  })

  test('3(f) attach with an unknown key -> 400 badRequest', async () => {
    novaRefused(await attach({ banana: 1 }), 400, 'badRequest', /Additional properties are not allowed \('banana'/)
  })

  test('3(f) detach a port that is gone, or was never attached -> 202, empty body', async () => {
    for (const id of [nobody, (await makePort('loose')).id]) {
      const reply = await detach(id)
      assert.equal(reply.status, 202)
      assert.equal(reply.text, '')
    }
  })

  test('3(f) DELETE a port that is attached -> 204, and os-interface no longer lists it at the first look', async () => {
    const port = await makePort('doomed')
    assert.equal((await attach({ port_id: port.id })).status, 200)
    assert.ok((await attached()).includes(port.id))
    assert.equal((await world.member.neutron('DELETE', `/ports/${port.id}`)).status, 204)
    assert.ok(!(await attached()).includes(port.id))
  })

  test('3(f) os-interface/<port> of a port that is not attached -> 404 itemNotFound', async () => {
    const port = await makePort('elsewhere')
    novaRefused(
      await world.member.nova('GET', `/servers/${server.id}/os-interface/${port.id}`),
      404,
      'itemNotFound',
      `Instance ${server.id} does not have a port with id ${port.id}`,
    )
  })

  test('3(g) through Nova, no addresses left -> 400 badRequest', async () => {
    const small = await makeNetwork(world.member, 'full', '10.10.40.0/30')
    await created(world.member.neutron('POST', '/ports', { port: { network_id: small.networkId } }), 'port')
    const message = `No fixed IP addresses available for network: ${small.networkId}`
    novaRefused(await attach({ net_id: small.networkId }), 400, 'badRequest', message)
  })

  test('3(f) a server shows its addresses by network, and knows the NIC it was made with', async () => {
    const { addresses } = (await world.member.nova('GET', `/servers/${server.id}`)).body.server
    const [first] = own.fixed_ips
    const entry = addresses.workers.find((address: Json) => address.addr === first.ip_address)
    assert.equal(entry['OS-EXT-IPS-MAC:mac_addr'], own.mac_address)
    assert.deepEqual(ip(first.ip_address), ip(entry.addr))
  })

  test('3(f) delete the server: pre-created ports stay and are freed', async () => {
    assert.equal((await world.member.nova('DELETE', `/servers/${server.id}`)).status, 204)
    await eventually(async () => (await world.member.nova('GET', `/servers/${server.id}`)).status === 404, 30_000)
    await eventually(async () => (await getPort(own.id)).device_id === '')
    assert.equal((await getPort(own.id)).device_owner, '')
  })
})
