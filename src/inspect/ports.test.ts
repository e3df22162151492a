// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Interface, Port } from '#openstack'
import type { CloudPorts } from './cloud-ports.ts'
import { hasPortFaults, joinPorts } from './ports.ts'

const address = (ip_address: string) => ({ subnet_id: 's1', ip_address })
const port = (more: Partial<Port>): Port => ({
  ...{ id: 'p1', name: '', network_id: 'n1', mac_address: 'fa:16:3e:00:00:01', status: 'ACTIVE' },
  ...{ device_id: 'server-1', device_owner: 'compute:nova', fixed_ips: [address('10.0.0.9'), address('10.0.0.10')] },
  ...more,
})
const nic = (more: Partial<Interface>): Interface => ({
  ...{ port_id: 'p1', net_id: 'n1', mac_addr: 'FA:16:3E:00:00:01', port_state: 'ACTIVE' },
  fixed_ips: [address('10.0.0.10'), address('10.0.0.9')],
  ...more,
})
const facts = (ports: Port[], interfaces: Interface[]): CloudPorts => ({
  servers: [{ id: 'server-1', name: 'one', status: 'ACTIVE', interfaces, error: undefined }],
  ...{ cloud: 'c', ports, floatingIps: [], networks: [], primary: new Set(['10.0.0.9']), owners: [], notFound: [] },
})
const journal = { leases: [], knownPorts: [], pairs: new Map<string, string[]>() }
const join = (ports: Port[], interfaces: Interface[], withoutPrimary = false) =>
  joinPorts([facts(ports, interfaces)], journal, { ofThisNode: false, withoutPrimary, unseen: [] })

test('joinPorts() finds no fault where Nova and Neutron say the same in another order and case', () => {
  const report = join([port({})], [nic({})])
  assert.equal(hasPortFaults(report), false)
  assert.deepEqual(
    report.servers[0]!.ports[0]!.addresses.map(each => [each.address, each.use]),
    [
      ['10.0.0.9', 'primary'],
      ['10.0.0.10', 'unknown'],
    ],
  )
})

test('joinPorts() says what Nova and Neutron disagree about', () => {
  const faults = (ports: Port[], interfaces: Interface[]) => {
    const [server] = join(ports, interfaces).servers
    return [...server!.faults, ...server!.ports.flatMap(each => each.faults)]
  }
  assert.deepEqual(faults([port({})], []), [
    "Neutron says that it is server server-1's, and Nova does not list it there",
  ])
  assert.deepEqual(faults([port({ device_id: '' })], [nic({})]), [
    "Nova lists it with server server-1, and Neutron says that it is nobody's",
  ])
  assert.deepEqual(faults([port({ mac_address: 'fa:16:3e:00:00:02' })], [nic({ fixed_ips: [address('10.0.0.9')] })]), [
    'Nova shows 10.0.0.9, and Neutron 10.0.0.10 10.0.0.9',
    'Nova shows MAC FA:16:3E:00:00:01, and Neutron fa:16:3e:00:00:02',
  ])
  assert.deepEqual(faults([], [nic({})]), [
    'Nova shows port p1 (FA:16:3E:00:00:01, 10.0.0.10 10.0.0.9), and Neutron does not',
  ])
})

test('joinPorts() leaves a server without its own addresses, and without ports that have no others', () => {
  const bare = port({ id: 'p2', fixed_ips: [address('10.0.0.9')] })
  const [server] = join([port({}), bare], [nic({}), nic({ port_id: 'p2' })], true).servers
  assert.deepEqual(
    server!.ports.map(({ id, addresses }) => [id, addresses.map(each => each.address)]),
    [['p1', ['10.0.0.10']]],
  )
})
