// SPDX-License-Identifier: Apache-2.0

/**
 * What section 3 and the table of delays say of the wire: packets between network namespaces. Needs root and a data plane:
 * the simulator's own, or that of the lab (`lab/openstack up --dataplane`).
 */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { openStation, type Station } from './station.ts'
import { created, eventually, ip, isReal, type Json, makeWorld, type Reply, type World } from './world.ts'

const WIRE_DELAY_MS = 400
const WIRE_MS_MAX = 12_000
const prefix = `mrc${process.pid}`

const reason =
  process.getuid?.() !== 0
    ? 'needs root, for network namespaces'
    : isReal && !existsSync('/run/netns/oslab-ext')
      ? 'the cloud has no data plane here'
      : undefined

type Machine = { readonly id: string; readonly port: Json; readonly address: string; readonly station: Station }

describe('on the wire', { skip: reason ?? false }, () => {
  let world: World
  let one: Machine
  let two: Machine
  let outside: Station
  let router: Station
  before(async () => {
    world = await makeWorld({ dataplane: prefix, servers: 0, wireDelayMs: WIRE_DELAY_MS })
    const group = await created(
      world.member.neutron('POST', '/security-groups', { security_group: { name: 'open' } }),
      'security_group',
    )
    const rule = { security_group_id: group.id, direction: 'ingress', ethertype: 'IPv4' }
    await world.member.neutron('POST', '/security-group-rules', { security_group_rule: rule })
    ;[one, two] = await Promise.all([
      makeMachine('1', '10.10.10.11', group.id),
      makeMachine('2', '10.10.10.12', group.id),
    ])
    outside = await openStation(isReal ? 'oslab-ext' : `${prefix}-outside`)
    router = await openStation(isReal ? `qrouter-${world.routerId}` : `${prefix}-router-${world.routerId.slice(0, 8)}`)
    await eventually(async () => (await one.station.ask(two.address)) !== undefined, 30_000)
  })
  after(async () => {
    await Promise.all([one?.station, two?.station, outside, router].map(station => station?.close()))
    await world?.close()
  })

  async function makeMachine(number: string, address: string, group: string): Promise<Machine> {
    const { neutron, nova } = world.member
    const wanted = { network_id: world.networkId, fixed_ips: [ip(address)], security_groups: [group] }
    const port = await created(neutron('POST', '/ports', { port: wanted }), 'port')
    const name = `${world.project}-${number}`
    const disk = { boot_index: 0, source_type: 'blank', destination_type: 'local', volume_size: 1 }
    const body = {
      name,
      flavorRef: world.flavorId,
      imageRef: '',
      networks: [{ port: port.id }],
      block_device_mapping_v2: [disk],
    }
    const server = await created(nova('POST', '/servers', { server: body }), 'server')
    const status = async (): Promise<string> => (await nova('GET', `/servers/${server.id}`)).body.server.status
    await eventually(async () => (await status()) === 'ACTIVE', 60_000)
    const station = await openStation(isReal ? `vm-${name}` : `${prefix}-vm-${name}`)
    return { id: server.id, port, address, station }
  }

  const put = (machine: Machine, values: object): Promise<Reply> =>
    world.member.neutron('PUT', `/ports/${machine.port.id}`, { port: values })
  const routes = (verb: string, list: object[]): Promise<Reply> =>
    world.member.neutron('PUT', `/routers/${world.routerId}/${verb}`, { router: { routes: list } })
  /** Milliseconds until it is so. */
  const msUntil = async (isSo: () => Promise<boolean>): Promise<number> => {
    const startMs = performance.now()
    await eventually(isSo, WIRE_MS_MAX)
    return Math.round(performance.now() - startMs)
  }

  test('wire: VM to VM passes, and VM to outside with the address of the router', async () => {
    assert.equal(await one.station.ask(two.address), one.address)
    const { external_gateway_info: gateway } = (await world.member.neutron('GET', `/routers/${world.routerId}`)).body
      .router
    await eventually(async () => (await one.station.ask('203.0.113.1')) !== undefined, WIRE_MS_MAX)
    assert.equal(await one.station.ask('203.0.113.1'), gateway.external_fixed_ips[0].ip_address)
  })

  test('wire: a new fixed address may send only some time after the answer; a removed one is blocked', async t => {
    await one.station.addAddress('10.10.10.99/32')
    const passes = async (): Promise<boolean> => (await one.station.ask(two.address, '10.10.10.99')) !== undefined
    assert.equal(await passes(), false, 'a foreign source is dropped')
    assert.equal((await put(one, { fixed_ips: [ip(one.address), ip('10.10.10.99')] })).status, 200)
    assert.equal(await one.station.ask(two.address), one.address, 'the first address goes on')
    t.diagnostic(`may send after ${await msUntil(passes)} ms`)
    assert.equal((await put(one, { fixed_ips: [ip(one.address)] })).status, 200)
    t.diagnostic(`blocked after ${await msUntil(async () => !(await passes()))} ms`)
    await one.station.removeAddress('10.10.10.99/32')
  })

  test('wire: an extra route needs an address pair on the port of its next hop as well', async t => {
    await one.station.addAddress('10.201.1.5/32')
    const passes = async (): Promise<boolean> => (await two.station.ask('10.201.1.5')) !== undefined
    const isThere = async (): Promise<boolean> =>
      (await router.routes()).some(route => route.destination === '10.201.1.0/24' && route.nexthop === one.address)
    const route = { destination: '10.201.1.0/24', nexthop: one.address }
    assert.equal((await routes('add_extraroutes', [route])).status, 200)
    t.diagnostic(`route after ${await msUntil(isThere)} ms`)
    assert.equal(await passes(), false, 'the answer comes from an address that is not the port’s')
    assert.equal((await put(one, { allowed_address_pairs: [ip('10.201.1.0/24')] })).status, 200)
    t.diagnostic(`address pair after ${await msUntil(passes)} ms`)
    assert.equal((await put(one, { allowed_address_pairs: [] })).status, 200)
    await eventually(async () => !(await passes()), WIRE_MS_MAX)
    assert.equal((await routes('remove_extraroutes', [route])).status, 200)
    t.diagnostic(`route gone after ${await msUntil(async () => !(await isThere()))} ms`)
    await one.station.removeAddress('10.201.1.5/32')
  })

  test('wire: 3(c) a destination with host bits is never programmed', async () => {
    const odd = { destination: '10.202.5.7/24', nexthop: one.address }
    const even = { destination: '10.203.5.0/24', nexthop: one.address }
    await routes('add_extraroutes', [odd])
    await routes('add_extraroutes', [even])
    const has = async (start: string): Promise<boolean> =>
      (await router.routes()).some(route => route.destination.startsWith(start))
    await eventually(() => has('10.203.5.'), WIRE_MS_MAX)
    assert.equal(await has('10.202.5.'), false)
    await routes('remove_extraroutes', [odd, even])
  })

  test('wire: 3(k) a floating IP on a secondary address works both ways', async t => {
    await one.station.addAddress('10.10.10.98/32')
    assert.equal((await put(one, { fixed_ips: [ip(one.address), ip('10.10.10.98')] })).status, 200)
    const wanted = {
      floating_network_id: world.externalNetworkId,
      port_id: one.port.id,
      fixed_ip_address: '10.10.10.98',
    }
    const made = await created(world.member.neutron('POST', '/floatingips', { floatingip: wanted }), 'floatingip')
    const reaches = async (): Promise<boolean> => (await outside.ask(made.floating_ip_address)) !== undefined
    t.diagnostic(`reachable after ${await msUntil(reaches)} ms`)
    await eventually(async () => (await one.station.ask('203.0.113.1', '10.10.10.98')) === made.floating_ip_address)
    await eventually(
      async () => (await world.member.neutron('GET', `/floatingips/${made.id}`)).body.floatingip.status === 'ACTIVE',
      WIRE_MS_MAX,
    )
    assert.equal((await world.member.neutron('DELETE', `/floatingips/${made.id}`)).status, 204)
    t.diagnostic(`unreachable after ${await msUntil(async () => !(await reaches()))} ms`)
    await put(one, { fixed_ips: [ip(one.address)] })
    await one.station.removeAddress('10.10.10.98/32')
  })

  test('wire: 3(f) a hot-attached NIC is there when the answer comes; detached, or its port deleted, it is gone', async t => {
    const { neutron, nova } = world.member
    for (const way of ['detach', 'delete'] as const) {
      const port = await created(neutron('POST', '/ports', { port: { network_id: world.networkId } }), 'port')
      const has = async (): Promise<boolean> => (await two.station.links()).some(link => link.mac === port.mac_address)
      const path = `/servers/${two.id}/os-interface`
      const attached = await nova('POST', path, { interfaceAttachment: { port_id: port.id } })
      assert.equal(attached.status, 200, attached.text)
      assert.equal(await has(), true)
      await eventually(
        async () => (await neutron('GET', `/ports/${port.id}`)).body.port.status === 'ACTIVE',
        WIRE_MS_MAX,
      )
      if (way === 'detach') await nova('DELETE', `${path}/${port.id}`)
      else await neutron('DELETE', `/ports/${port.id}`)
      t.diagnostic(`${way}: device gone after ${await msUntil(async () => !(await has()))} ms`)
    }
  })
})
