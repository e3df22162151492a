// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp, parsePrefix } from '#base'
import { type Request, walk } from '#netlink'
import { AF_INET, AF_INET6, scopes } from './address.ts'
import {
  addRoute,
  decodeRoute,
  deleteRoute,
  describeRoute,
  dumpRoutes,
  lookupRoute,
  protocols,
  type Route,
} from './route.ts'

// Bytes captured from ip of iproute2 6.1.0 (strace of its sendmsg) and from Linux 6.18's answers to it, without the
// netlink header, one attribute per line, indented where it is within another. ip makes routes of protocol "boot".
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
/** Header, and attributes in any order: `ip` has an order of its own. */
const partsOf = (body: Uint8Array) => [
  body.subarray(0, 12).toHex(),
  ...Array.from(walk(body.subarray(12)), ([type, payload]) => `${type} ${payload.toHex()}`).sort(),
]

function assertRequest(request: Request, type: number, flags: number, body: Uint8Array): void {
  // encodeBatch adds NLM_F_REQUEST.
  assert.deepEqual([request.type, request.flags | 1, partsOf(request.body)], [type, flags, partsOf(body)])
}

const viaRouter: Route = {
  family: AF_INET,
  destination: parsePrefix('10.9.0.0/16'),
  gateway: parseIp('10.0.0.1'),
  outInterface: 9,
  protocol: protocols.boot,
}

test('addRoute: writes gateway and metrics as ip does', () => {
  // ip route add 10.9.0.0/16 via 10.0.0.1 dev v1 mtu 1400 advmss 1300
  const bytes = golden(
    '02100000fe03000100000000', // rtmsg: AF_INET, /16, table main, boot, universe, unicast
    '080001000a090000', // RTA_DST
    '080005000a000001', // RTA_GATEWAY
    '0800040009000000', // RTA_OIF
    '14000800', // RTA_METRICS
    '0800020078050000', //   RTAX_MTU
    '0800080014050000', //   RTAX_ADVMSS
  )
  assertRequest(addRoute({ ...viaRouter, mtu: 1400, advmss: 1300 }), 24, 0x605, bytes)
})

test('addRoute: writes a table beyond 255 as an attribute, and the link scope of a route without gateway, as ip does', () => {
  // ip route add 10.0.0.9/32 dev v1 table 1001 metric 7
  const bytes = golden(
    '022000000003fd0100000000', // rtmsg: AF_INET, /32, table unspec, boot, link, unicast
    '080001000a000009', // RTA_DST
    '08000f00e9030000', // RTA_TABLE
    '0800060007000000', // RTA_PRIORITY
    '0800040009000000', // RTA_OIF
  )
  const { gateway: _, ...onLink } = viaRouter
  const route = { ...onLink, destination: parsePrefix('10.0.0.9/32'), table: 1001, priority: 7 }
  assertRequest(addRoute(route), 24, 0x605, bytes)
})

test('addRoute: writes source, onlink and a small table as ip does', () => {
  // ip route add default via 169.254.1.1 dev v1 onlink src 10.0.0.5 table 5
  const bytes = golden(
    '020000000503000104000000', // rtmsg: AF_INET, table 5, boot, universe, unicast, RTNH_F_ONLINK
    '08000500a9fe0101', // RTA_GATEWAY
    '080007000a000005', // RTA_PREFSRC
    '0800040009000000', // RTA_OIF
  )
  const { destination: _, ...toAll } = viaRouter
  const gateway = parseIp('169.254.1.1')
  const route = { ...toAll, gateway, onlink: true, preferredSource: parseIp('10.0.0.5'), table: 5 }
  assertRequest(addRoute(route), 24, 0x605, bytes)
})

test('addRoute: writes a host route of global scope and a protocol of its own as ip does', () => {
  // ip route add 10.0.0.10/32 dev v1 scope global proto 98
  const bytes = golden(
    '02200000fe62000100000000', // rtmsg: AF_INET, /32, table main, protocol 98, universe, unicast
    '080001000a00000a', // RTA_DST
    '0800040009000000', // RTA_OIF
  )
  const destination = parsePrefix('10.0.0.10/32')
  const route = { family: AF_INET, destination, outInterface: 9, scope: scopes.universe }
  assertRequest(addRoute(route), 24, 0x605, bytes)
  assert.equal(protocols.mooring, 98)
})

test('addRoute: writes IPv6 as ip does, but for the destination ::/0 of a default route', () => {
  // ip -6 route add default via fe80::1 dev v1
  const toAll = golden(
    '0a000000fe03000100000000', // rtmsg: AF_INET6, table main, boot, universe, unicast
    '14000500fe800000000000000000000000000001', // RTA_GATEWAY (ip: RTA_DST of 16 zeros before it)
    '0800040009000000', // RTA_OIF
  )
  const base = { family: AF_INET6, outInterface: 9, protocol: protocols.boot }
  assertRequest(addRoute({ ...base, gateway: parseIp('fe80::1') }), 24, 0x605, toAll)
  // ip -6 route add fd00::9/128 dev v1 metric 5 table 2000
  const toHost = golden(
    '0a8000000003000100000000', // rtmsg: AF_INET6, /128, table unspec, boot, universe, unicast
    '14000100fd000000000000000000000000000009', // RTA_DST
    '0800060005000000', // RTA_PRIORITY
    '08000f00d0070000', // RTA_TABLE
    '0800040009000000', // RTA_OIF
  )
  const destination = parsePrefix('fd00::9/128')
  const route = { ...base, destination, priority: 5, table: 2000, scope: scopes.universe }
  assertRequest(addRoute(route), 24, 0x605, toHost)
})

test('addRoute: asks to append and to replace as ip does', () => {
  // ip route append 10.9.0.0/16 …; ip route replace 10.9.0.0/16 …
  assert.equal(addRoute(viaRouter, 'append').flags | 1, 0xc05)
  assert.equal(addRoute(viaRouter, 'replace').flags | 1, 0x505)
})

test('deleteRoute: asks for any scope as ip does, and for the protocol only where one is given', () => {
  // ip route del 10.0.0.10/32 dev v1
  const bytes = golden(
    '02200000fe00ff0100000000', // rtmsg: AF_INET, /32, table main, any protocol, nowhere, unicast (ip: any type)
    '080001000a00000a', // RTA_DST
    '0800040009000000', // RTA_OIF
  )
  const destination = parsePrefix('10.0.0.10/32')
  assertRequest(deleteRoute({ family: AF_INET, destination, outInterface: 9, protocol: 0 }), 25, 0x5, bytes)
})

test('dumpRoutes: filters by table as ip does', () => {
  // ip route show table 1001
  const bytes = golden(
    '020000000000000000000000', // rtmsg: AF_INET
    '08000f00e9030000', // RTA_TABLE
  )
  assertRequest(dumpRoutes(AF_INET, { table: 1001 }), 26, 0x301, bytes)
})

test('lookupRoute: asks for the entry of the forwarding table as ip does', () => {
  // ip route get fibmatch 10.9.0.1
  const bytes = golden(
    '022000000000000000200000', // rtmsg: AF_INET, /32, RTM_F_FIB_MATCH (ip: RTM_F_LOOKUP_TABLE too)
    '080001000a090001', // RTA_DST
  )
  assertRequest(lookupRoute(parseIp('10.9.0.1')), 26, 0x1, bytes)
})

test('decodeRoute: reads a route of a table beyond 255', () => {
  const body = golden(
    '02200000fc03fd0110000000', // rtmsg: table "compat"
    '08000f00e9030000', // RTA_TABLE
    '080001000a000009', // RTA_DST
    '0800060007000000', // RTA_PRIORITY
    '0800040009000000', // RTA_OIF
  )
  assert.deepEqual(decodeRoute({ type: 24, flags: 0x22, seq: 1, body }), {
    family: AF_INET,
    destination: parsePrefix('10.0.0.9/32'),
    outInterface: 9,
    priority: 7,
    table: 1001,
    scope: scopes.link,
    protocol: protocols.boot,
    type: 1,
  })
})

test('decodeRoute: reads a default route of IPv6 and leaves its destination out', () => {
  const body = golden(
    '0a000000fe03000110000000', // rtmsg
    '08000f00fe000000', // RTA_TABLE
    '0800060000040000', // RTA_PRIORITY
    '14000500fe800000000000000000000000000001', // RTA_GATEWAY
    '0800040009000000', // RTA_OIF
    '24000c000000000000000000000000000000000000000000000000000000000000000000', // RTA_CACHEINFO
    '0500140000000000', // RTA_PREF
  )
  const route = decodeRoute({ type: 24, flags: 0x22, seq: 1, body })
  assert.equal(route.destination, undefined)
  assert.deepEqual(route.gateway, parseIp('fe80::1'))
  assert.deepEqual([route.table, route.priority], [254, 1024])
})

test('decodeRoute: reads the ways of a route that has several', () => {
  // ip -6 route append fd09::/64 via fd00::3 dev v1, after one via fd00::2
  const body = golden(
    '0a400000fe03000100000000', // rtmsg
    '08000f00fe000000', // RTA_TABLE
    '14000100fd090000000000000000000000000000', // RTA_DST
    '0800060000040000', // RTA_PRIORITY
    '3c000900', // RTA_MULTIPATH
    '1c00000003000000', //   rtnexthop: 28 bytes, link 3
    '14000500fd000000000000000000000000000002', //     RTA_GATEWAY
    '1c00000003000000', //   rtnexthop
    '14000500fd000000000000000000000000000003', //     RTA_GATEWAY
    '24000c000000000000000000000000000000000000000000000000000000000000000000', // RTA_CACHEINFO
    '0500140000000000', // RTA_PREF
  )
  const route = decodeRoute({ type: 24, flags: 0x22, seq: 1, body })
  assert.deepEqual(route.destination, parsePrefix('fd09::/64'))
  assert.deepEqual(route.nextHops, [
    { outInterface: 3, gateway: parseIp('fd00::2') },
    { outInterface: 3, gateway: parseIp('fd00::3') },
  ])
})

test('decodeRoute: tells a route that expires', () => {
  // ip -6 route add 2001:db8::/32 via fd00::1 dev v1 expires 600
  const body = golden(
    '0a200000fe03000100000000', // rtmsg
    '08000f00fe000000', // RTA_TABLE
    '1400010020010db8000000000000000000000000', // RTA_DST
    '0800060000040000', // RTA_PRIORITY
    '14000500fd000000000000000000000000000001', // RTA_GATEWAY
    '0800040009000000', // RTA_OIF
    '24000c0000000000000000002aea00000000000000000000000000000000000000000000', // RTA_CACHEINFO
    '0500140000000000', // RTA_PREF
  )
  assert.equal(decodeRoute({ type: 24, flags: 0x22, seq: 1, body }).expires, true)
})

test('decodeRoute: tells a gateway of the other family from none', () => {
  // ip route add 10.9.0.0/16 via inet6 fe80::1 dev v1
  const body = golden(
    '02100000fe03000100000000', // rtmsg
    '08000f00fe000000', // RTA_TABLE
    '080001000a090000', // RTA_DST
    '160012000a00fe8000000000000000000000000000010000', // RTA_VIA
    '0800040009000000', // RTA_OIF
  )
  const { gateway, isVia } = decodeRoute({ type: 24, flags: 0x22, seq: 1, body })
  assert.deepEqual([gateway, isVia], [undefined, true])
})

test('decodeRoute: reads back what addRoute wrote, metrics too', () => {
  const route = { ...viaRouter, mtu: 1400, advmss: 1300, priority: 3, preferredSource: parseIp('10.0.0.5') }
  const { body } = addRoute(route)
  assert.deepEqual(decodeRoute({ type: 24, flags: 0, seq: 1, body }), { ...route, table: 254, scope: 0, type: 1 })
})

test('describeRoute: says destination, gateway and link', () => {
  assert.equal(describeRoute(viaRouter), '10.9.0.0/16 via 10.0.0.1 dev 9')
  assert.equal(describeRoute({ family: AF_INET }), 'default')
})
