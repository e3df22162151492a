// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CniError } from '#cni'
import type { Choice } from './choice.ts'
import { familiesOf, type PlaceSubnet, resultIp, subnetsOfPort } from './subnets.ts'

const subnet = (id: string, cidr: string, more: Partial<PlaceSubnet> = {}): PlaceSubnet => ({
  id,
  name: `name-${id}`,
  cidr,
  version: cidr.includes(':') ? 6 : 4,
  gateway: undefined,
  nameservers: [],
  isAutomatic: false,
  size: 10,
  standing: 'network',
  ...more,
})

const host = subnet('h4', '10.0.0.0/24', { standing: 'host' })
const second = subnet('s4', '10.1.0.0/24', { standing: 'port' })
const six = subnet('h6', 'fd00::/64', { standing: 'port' })
const all = [second, host, six, subnet('t4', '10.2.0.0/24')]

function families(choice: Partial<Pick<Choice, 'subnets' | 'addresses' | 'chosen'>> = {}, ipVersions?: number[]) {
  const whole = { subnets: [], addresses: [], chosen: {}, ...choice }
  return familiesOf({
    all,
    usual: subnetsOfPort(all),
    choice: whole,
    ipVersions,
    what: 'port p1',
    network: 'its network',
  })
}

const idsOf = (found: ReturnType<typeof families>) => found.map(each => each.subnets.map(({ id }) => id))

function refuses(run: () => unknown, message: RegExp, details = /^/): void {
  assert.throws(run, (error: CniError) => {
    assert.equal(error.code, 7)
    assert.match(error.message, message)
    assert.match(error.details ?? '', details)
    return true
  })
}

test('familiesOf() uses the node’s own subnets, one per IP version, where nobody names any', () => {
  assert.deepEqual(idsOf(families()), [['h4'], ['h6']])
  assert.deepEqual(idsOf(families({}, [6])), [['h6']])
})

test('familiesOf() takes subnets by id, name and CIDR, in the order they are named', () => {
  assert.deepEqual(idsOf(families({ subnets: ['10.2.0.5/24', 'name-h6', 'H4'] })), [['t4', 'h4'], ['h6']])
})

test('familiesOf() refuses a subnet that the network does not have, with those that it has', () =>
  refuses(
    () => families({ subnets: ['h4', 'x'] }),
    /^Cannot find subnet "x" of "neutronConf.subnets": its network does not have it$/,
    /10.0.0.0\/24 \("name-h4", h4\)/,
  ))

test('familiesOf() looks for a name on every network that is used, and leaves out one with none of them', () => {
  const [here, there] = [subnet('a', '10.8.0.0/24'), subnet('b', '10.9.0.0/24')]
  const choice = { subnets: ['a', 'b'], addresses: [], chosen: {} }
  const on = (all: PlaceSubnet[], elsewhere: PlaceSubnet[], subnets = choice.subnets) =>
    idsOf(
      familiesOf({ all, usual: all, choice: { ...choice, subnets }, ipVersions: undefined, what: 'net', elsewhere }),
    )
  assert.deepEqual([on([here], [there]), on([there], [here])], [[['a']], [['b']]])
  refuses(() => on([there], [here], ['a']), /^Cannot give addresses of net: it has no subnet of "neutronConf.subnets"$/)
})

test('familiesOf() passes over the operator’s subnets on a network that the pod chose', () => {
  const chosen = { networks: 'CNI_ARGS NEUTRON_NETWORK' }
  assert.deepEqual(idsOf(families({ subnets: ['x'], chosen })), [['h4'], ['h6']])
  const both = { ...chosen, subnets: 'args.cni.subnets' }
  refuses(() => families({ subnets: ['x'], chosen: both }), /"x" of "args.cni.subnets"/)
})

test('familiesOf() refuses an IP version that was asked for and is not there', () => {
  refuses(
    () => families({ subnets: ['h4'] }, [4, 6]),
    /^Cannot give IPv6 addresses of port p1: no subnet of "neutronConf.subnets" has them/,
  )
  const bare = { all: [host], usual: [host], choice: { subnets: [], addresses: [], chosen: {} }, what: 'port p1' }
  refuses(() => familiesOf({ ...bare, ipVersions: [6] }), /it has none of IPv6 itself/)
})

test('familiesOf() leaves a chosen address the one subnet that has it', () => {
  const found = families({ subnets: ['h4', 's4', 'h6'], addresses: ['10.1.0.9'] })
  assert.deepEqual(
    found.map(({ subnets, address }) => [subnets.map(({ id }) => id), address]),
    [
      [['s4'], '10.1.0.9'],
      [['h6'], undefined],
    ],
  )
  refuses(
    () => families({ addresses: ['10.1.0.9'], chosen: { addresses: 'runtimeConfig.ips' } }),
    /^Cannot give address 10.1.0.9 of "runtimeConfig.ips": it is in none of the subnets of port p1$/,
    /they are 10.0.0.0\/24/,
  )
})

test('resultIp() has the subnet’s length, and no gateway where the subnet has none', () => {
  assert.deepEqual(resultIp('10.0.0.19', { cidr: '10.0.0.0/20', gateway: undefined }), { address: '10.0.0.19/20' })
})
