// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadlineIn } from '#base'
import type { Port, PortFilter } from '#openstack'
import { createNames, type NamesNeutron, pickAddresses } from './names.ts'

const limits = { deadline: deadlineIn(60_000) }
const port = { network_id: 'net', fixed_ips: [{ subnet_id: 's', ip_address: '10.0.0.5' }] } as unknown as Port

/** A subnet 10.0.0.4 to .11 whose gateway is .4, and in which others have some. */
function neutronWith(taken: readonly string[], more: object = {}): NamesNeutron & { asked: PortFilter[] } {
  const asked: PortFilter[] = []
  const pools = [
    { start: '10.0.0.4', end: '10.0.0.7' },
    { start: '10.0.0.8', end: '10.0.0.11' },
  ]
  const subnet = { id: 's', network_id: 'net', cidr: '10.0.0.0/24', ip_version: 4, name: '', gateway_ip: '10.0.0.4' }
  return {
    asked,
    subnets: { get: async () => ({ ...subnet, allocation_pools: pools, ...more }) as never },
    ports: {
      list: async filter => {
        asked.push(filter)
        return [{ fixed_ips: taken.map(ip_address => ({ subnet_id: 's', ip_address })) } as unknown as Port]
      },
    },
  }
}

const wanted = (count: number, avoid: readonly string[] = []) => ({
  ...{ subnetId: 's', count },
  avoid: (address: string) => avoid.includes(address),
})

test('choose() gives what nobody has: neither the port, the gateway, another port, nor what is to be avoided', async () => {
  const neutron = neutronWith(['10.0.0.6', '10.0.0.9'])
  const found = await createNames().choose(neutron, port, wanted(3, ['10.0.0.11']), limits)
  assert.deepEqual(found!.toSorted(), ['10.0.0.10', '10.0.0.7', '10.0.0.8'])
})

test('choose() leaves it to Neutron where too few are free, it makes the addresses itself, or takes no names', async () => {
  assert.equal(await createNames().choose(neutronWith(['10.0.0.6']), port, wanted(6), limits), undefined)
  const slaac = neutronWith([], { ipv6_address_mode: 'slaac' })
  assert.equal(await createNames().choose(slaac, port, wanted(1), limits), undefined)
  const names = createNames()
  names.refuse('s')
  assert.equal(await names.choose(neutronWith([]), port, wanted(1), limits), undefined)
})

test('choose() asks about its candidates where they are few, and lists the subnet where they are many', async () => {
  const wide = { allocation_pools: [{ start: '10.0.0.1', end: '10.0.255.254' }] }
  const [few, many] = [neutronWith([], wide), neutronWith([], wide)]
  await createNames().choose(few, port, wanted(2), limits)
  assert.equal((few.asked[0]!.ip_address as string[]).length, 12)
  assert.equal((await createNames().choose(many, port, wanted(64), limits))!.length, 64)
  assert.deepEqual(many.asked, [{ network_id: 'net', subnet_id: 's' }])
})

test('pickAddresses() finds different ones in ranges of any size', () => {
  const huge = [{ start: '2001:db8::10', end: '2001:db8::ffff:ffff:ffff:ffff' }]
  const found = pickAddresses(huge, 40, () => true)
  assert.equal(new Set(found).size, 40)
  for (const each of found) assert.match(each, /^2001:db8::/)
  assert.deepEqual(pickAddresses([{ start: '10.0.0.1', end: '10.0.0.2' }], 40, () => true).sort(), [
    '10.0.0.1',
    '10.0.0.2',
  ])
  assert.deepEqual(
    pickAddresses([], 40, () => true),
    [],
  )
})
