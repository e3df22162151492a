// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadlineIn, parsePrefix, tryParseMac } from '#base'
import type { CniError } from '#cni'
import type { Neutron, Port, Subnet } from '#openstack'
import { findPlace, type HostInterface } from './host-port.ts'

const MAC = 'fa:16:3e:00:00:01'
const uplink = (address: string): HostInterface => ({
  index: 2,
  name: 'eth0',
  mac: tryParseMac(MAC)!,
  mtuBytes: 1500,
  addresses: [parsePrefix(address), parsePrefix('fe80::1/64')],
})

const port = (more: Partial<Port>): Port => ({
  id: 'p1',
  name: 'vm',
  network_id: 'n1',
  mac_address: MAC.toUpperCase(),
  fixed_ips: [{ subnet_id: 's4', ip_address: '10.0.0.11' }],
  device_id: '',
  device_owner: '',
  status: 'ACTIVE',
  ...more,
})

const subnet = (more: Partial<Subnet>): Subnet => ({
  id: 's4',
  name: 'four',
  network_id: 'n1',
  cidr: '10.0.0.0/24',
  ip_version: 4,
  gateway_ip: '10.0.0.1',
  allocation_pools: [{ start: '10.0.0.2', end: '10.0.0.254' }],
  ...more,
})

function neutron({ ports, subnets }: { ports: Port[]; subnets: Subnet[] }): Neutron {
  return {
    ports: { list: async () => ports, get: async (id: string) => ports.find(each => each.id === id) },
    subnets: {
      list: async ({ network_id }: { network_id: string }) => subnets.filter(each => each.network_id === network_id),
    },
    networks: {
      list: async ({ name, id }: { name?: string[]; id?: string[] }) =>
        [
          { id: 'n1', name: 'tenant', subnets: ['s4'] },
          { id: 'n2', name: 'bare', subnets: [] },
        ].filter(each => name?.includes(each.name) || id?.includes(each.id)),
    },
  } as unknown as Neutron
}

const limits = { deadline: deadlineIn(60_000) }

const find = (
  facts: { ports?: Port[]; subnets?: Subnet[] },
  networks: readonly string[] = [],
  address = '10.0.0.11/24',
) => {
  const cloud = neutron({ ports: [port({})], subnets: [subnet({})], ...facts })
  return findPlace(cloud, undefined, { networks, key: 'neutronConf.networks' }, uplink(address), limits)
}

const refuses = (place: Promise<unknown>, message: RegExp, details = /^/) =>
  assert.rejects(place, (error: CniError) => {
    assert.equal(error.code, 7)
    assert.match(error.message, message)
    assert.match(error.details ?? '', details)
    return true
  })

test('findPlace() finds the port by address and MAC, whatever case the MAC is written in', async () => {
  const place = await find({})
  assert.equal(place.portId, 'p1')
  const { id, gateway, size, standing } = place.networkSubnets[0]!
  assert.deepEqual([id, gateway, size, standing], ['s4', '10.0.0.1', 253, 'host'])
})

test('findPlace() tells the NIC, and which of its addresses are of the network', async () => {
  assert.deepEqual((await find({})).nic, { mac: 'fa:16:3e:00:00:01', addresses: ['10.0.0.11'] })
  const subnets = [subnet({ cidr: '10.9.0.0/24' })]
  assert.equal((await find({ subnets })).nic, undefined)
})

test('findPlace() ignores ports with the address and another MAC, and lists them when there is no other', async () => {
  const other = port({ id: 'p2', mac_address: 'fa:16:3e:00:00:02' })
  assert.equal((await find({ ports: [other, port({})] })).portId, 'p1')
  await refuses(find({ ports: [other] }), /no port has this address and MAC/, /p2/)
})

test('findPlace() refuses two ports that match, with both as candidates', () =>
  refuses(find({ ports: [port({}), port({ id: 'p2', network_id: 'n2' })] }), /2 ports match/, /p1.*p2/))

test('findPlace() refuses an interface that has link-local addresses only', () =>
  refuses(find({}, [], '169.254.1.1/32'), /the interface has no address/))

test('findPlace() refuses a network without subnet by its name', () =>
  refuses(find({}, ['bare']), /network "bare" \(n2\): it has no subnet/))

test('findPlace() tells the subnet of the host interface from others of its port and of the network', async () => {
  const ports = [
    port({
      fixed_ips: [
        { subnet_id: 's4b', ip_address: '10.1.0.5' },
        { subnet_id: 's4', ip_address: '10.0.0.11' },
      ],
    }),
  ]
  const subnets = [subnet({ id: 's4b', cidr: '10.1.0.0/24' }), subnet({ id: 's4c', cidr: '10.2.0.0/24' }), subnet({})]
  assert.deepEqual(
    (await find({ ports, subnets })).networkSubnets.map(({ id, standing }) => [id, standing]),
    [
      ['s4b', 'port'],
      ['s4c', 'network'],
      ['s4', 'host'],
    ],
  )
})
