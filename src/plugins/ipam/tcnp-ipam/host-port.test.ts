// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadlineIn, parsePrefix, tryParseMac } from '#base'
import type { CniError } from '#cni'
import type { Neutron, Port, Subnet } from '#openstack'
import { findPlace, type HostInterface, resultIp } from './host-port.ts'

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
const conf = (more: object) => ({ networks: [], hostPort: undefined, ipVersions: undefined, ...more }) as never

const find = (facts: { ports?: Port[]; subnets?: Subnet[] }, more: object = {}, address = '10.0.0.11/24') =>
  findPlace(neutron({ ports: [port({})], subnets: [subnet({})], ...facts }), conf(more), uplink(address), limits)

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
  assert.deepEqual(place.subnets, [{ id: 's4', cidr: '10.0.0.0/24', gateway: '10.0.0.1', nameservers: [] }])
})

test('findPlace() ignores ports with the address and another MAC, and lists them when there is no other', async () => {
  const other = port({ id: 'p2', mac_address: 'fa:16:3e:00:00:02' })
  assert.equal((await find({ ports: [other, port({})] })).portId, 'p1')
  await refuses(find({ ports: [other] }), /no port has this address and MAC/, /p2/)
})

test('findPlace() refuses two ports that match, with both as candidates', () =>
  refuses(find({ ports: [port({}), port({ id: 'p2', network_id: 'n2' })] }), /2 ports match/, /p1.*p2/))

test('findPlace() refuses an interface that has link-local addresses only', () =>
  refuses(find({}, {}, '169.254.1.1/32'), /the interface has no address/))

test('findPlace() refuses a network without subnet by its name', () =>
  refuses(find({}, { networks: ['bare'] }), /network "bare" \(n2\): it has no subnet/))

test('findPlace() refuses a SLAAC subnet by name and says how to leave it out', async () => {
  const six = subnet({
    id: 's6',
    name: 'auto',
    cidr: '2001:db8::/64',
    ip_version: 6,
    gateway_ip: 'fe80::1',
    ipv6_address_mode: 'slaac',
  })
  const both = port({
    fixed_ips: [
      { subnet_id: 's4', ip_address: '10.0.0.11' },
      { subnet_id: 's6', ip_address: '2001:db8::f816:3eff:fe00:1' },
    ],
  })
  const facts = { ports: [both], subnets: [subnet({}), six] }
  await refuses(find(facts), /"auto".*slaac/, /ipVersions/)
  assert.equal((await find(facts, { ipVersions: [4] })).subnets.length, 1)
})

test('findPlace() chooses the subnet of the host interface where the port has several', async () => {
  const second = subnet({ id: 's4b', cidr: '10.1.0.0/24' })
  const ports = [
    port({
      fixed_ips: [
        { subnet_id: 's4b', ip_address: '10.1.0.5' },
        { subnet_id: 's4', ip_address: '10.0.0.11' },
      ],
    }),
  ]
  assert.equal((await find({ ports, subnets: [second, subnet({})] })).subnets[0]!.id, 's4')
})

test('findPlace() refuses an IP version that the port does not have', () =>
  refuses(find({}, { ipVersions: [6] }), /it has none of IPv6 itself/))

test('resultIp() has the subnet’s length, and no gateway where the subnet has none', () => {
  const place = { id: 's4', cidr: '10.0.0.0/20', gateway: undefined, nameservers: [] }
  assert.deepEqual(resultIp('10.0.0.19', place), { address: '10.0.0.19/20' })
})
