// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { byReach, isV6, restoreAddress, restoreRoute, saveAddress, saveRoute } from './saved.ts'

// Answers of Linux 6.18 to `ip addr show` and `ip route show`, without the netlink header, one attribute per line.
const golden = (...lines: string[]) => ({ type: 0, flags: 0, seq: 1, body: Uint8Array.fromHex(lines.join('')) })

// ip addr add 10.0.0.5/24 brd + dev v1 valid_lft 100 preferred_lft 50
const address = (valid: string, preferred: string) =>
  golden(
    '0218000003000000', // ifaddrmsg: AF_INET, /24, link 3
    '080001000a000005', // IFA_ADDRESS
    '080002000a000005', // IFA_LOCAL
    '080004000a0000ff', // IFA_BROADCAST
    '0700030076310000', // IFA_LABEL v1
    '0800080000000000', // IFA_FLAGS
    `14000600${preferred}${valid}8a0f00008a0f0000`, // IFA_CACHEINFO
  )

test('restoreAddress() gives back everything, for the new number of the link and for the rest of its life', () => {
  const saved = saveAddress(address('64000000', '32000000'))!
  assert.equal(saved.text, '10.0.0.5/24')
  const request = restoreAddress(saved, 9, 60)!
  const want = address('28000000', '00000000').body
  want[4] = 9
  assert.deepEqual([request.type, request.flags, request.body.toHex()], [20, 0x404, want.toHex()])
  assert.equal(restoreAddress(saved, 9, 100), undefined)
})

test('restoreAddress() knows an address that lives for ever', () => {
  const saved = saveAddress(address('ffffffff', 'ffffffff'))!
  const want = address('ffffffff', 'ffffffff').body
  assert.deepEqual(restoreAddress(saved, 3, 1e6)!.body.toHex(), want.toHex())
})

test('saveAddress() leaves what a router advertised', () => {
  const advertised = golden('0a40000003000000', '14000100fd000000000000000000000000000005', '0800080000010000')
  assert.equal(saveAddress(advertised), undefined)
})

// ip route add default via 10.0.0.1 dev v1 metric 100 onlink, in the dump with a nexthop object
const route = (link: string, ...more: string[]) =>
  golden(
    '02000000fe03000100000000', // rtmsg: AF_INET, main, boot, universe, unicast
    '08000f00fe000000', // RTA_TABLE
    '0800060064000000', // RTA_PRIORITY
    '080005000a000001', // RTA_GATEWAY
    `08000400${link}`, // RTA_OIF
    ...more,
  )

test('restoreRoute() leaves out what the kernel tells but does not take', () => {
  const told = golden(
    '02000000fe03000115000000', // rtmsg: AF_INET, main, boot, universe, unicast, dead | onlink | linkdown
    '08000f00fe000000', // RTA_TABLE
    '0800060064000000', // RTA_PRIORITY
    '080005000a000001', // RTA_GATEWAY
    '0800040003000000', // RTA_OIF
    '08001e0007000000', // RTA_NH_ID
  )
  const saved = saveRoute(told)!
  assert.equal(saved.text, 'default via 10.0.0.1 metric 100')
  const { type, flags, body } = restoreRoute(saved, 9)
  const want = route('09000000').body
  want[8] = 4 // RTNH_F_ONLINK
  assert.deepEqual([type, flags, body.toHex()], [24, 0x404, want.toHex()])
})

test('saveRoute() leaves what the kernel makes by itself, and routes over several links', () => {
  const told = route('03000000').body
  const withProtocol = (protocol: number) => ({ ...golden(), body: told.with(5, protocol) })
  const withTable = (table: number) => {
    const body = told.slice()
    body[16] = table
    return { ...golden(), body }
  }
  assert.equal(saveRoute(withProtocol(9)), undefined) // a router's
  assert.equal(saveRoute(withTable(255)), undefined) // local
  assert.equal(saveRoute(route('03000000', '14000900080000000300000008000500', '0a000001')), undefined)
  assert.notEqual(saveRoute(withProtocol(2)), undefined)
})

test('byReach() has the route to a gateway before those that go through it', () => {
  const saved = ['default via 10.0.0.1', '10.0.0.1/32', '10.0.0.0/24'].map(text => ({ text, message: '02' }))
  assert.deepEqual(
    byReach(saved).map(({ text }) => text),
    ['10.0.0.1/32', '10.0.0.0/24', 'default via 10.0.0.1'],
  )
  assert.deepEqual([isV6({ text: '', message: '0a40' }), isV6({ text: '', message: '0218' })], [true, false])
})
