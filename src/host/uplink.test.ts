// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Prefix, parseIp, parsePrefix } from '#base'
import { concat, type Message, type Reply, type Request, type Transport } from '#netlink'
import { AF_INET, AF_INET6, addRoute, linkAttributes, linkHeader, type Route } from '#rtnetlink'
import { findUplink } from './uplink.ts'

const messageOf = (type: number, body: Uint8Array): Message => ({ type, flags: 0, seq: 1, body })
const routeTo = (family: number, outInterface: number, more: Partial<Route> = {}): Route => ({
  family,
  outInterface,
  gateway: parseIp(family === AF_INET ? '10.0.0.1' : 'fe80::1'),
  ...more,
})

/** A node with NICs eth0 (2) and eth1 (3), and these routes; a lookup finds the first that fits. */
function nodeWith(...routes: Route[]): Transport {
  const names = new Map([
    [2, 'eth0'],
    [3, 'eth1'],
  ])
  const fits = (destination: Prefix | undefined, text: string) =>
    destination === undefined || text.endsWith(destination.length === 24 ? '192.0.2.1' : 'none')
  const answer = ({ about, body }: Request): Message[] => {
    const family = body[0]!
    const ofFamily = routes.filter(route => route.family === family)
    if (about.startsWith('find link')) {
      const found = [...names].find(([index, name]) => about === `find link ${index}` || about === `find link ${name}`)
      if (found === undefined) return []
      const [index, ifname] = found
      return [messageOf(16, concat([linkHeader.encode({ index }), linkAttributes.encode({ ifname, mtu: 1442 })]))]
    }
    const chosen = about.startsWith('look up')
      ? ofFamily.filter(each => fits(each.destination, about)).slice(0, 1)
      : ofFamily
    return chosen.map(route => messageOf(24, addRoute(route).body))
  }
  return {
    execute: (requests): Reply[] => requests.map(request => ({ messages: answer(request), tolerated: undefined })),
  }
}

test('findUplink: is the NIC of the default route', () => {
  const uplink = findUplink(nodeWith(routeTo(AF_INET, 3)))
  assert.deepEqual(uplink, { index: 3, name: 'eth1', mac: new Uint8Array(6), mtuBytes: 1442 })
})

test("findUplink: is that of IPv6's default route where IPv4 has none", () => {
  assert.equal(findUplink(nodeWith(routeTo(AF_INET6, 2)))?.name, 'eth0')
})

test('findUplink: is that of the default route with the least metric where something else matched the probe', () => {
  const documentation = routeTo(AF_INET, 2, { destination: parsePrefix('192.0.2.0/24') })
  const node = nodeWith(documentation, routeTo(AF_INET, 2, { priority: 200 }), routeTo(AF_INET, 3, { priority: 100 }))
  assert.equal(findUplink(node)?.name, 'eth1')
})

test('findUplink: is the NIC that was named, whatever the routes say', () => {
  assert.equal(findUplink(nodeWith(routeTo(AF_INET, 3)), 'eth0')?.name, 'eth0')
})

test('findUplink: undefined without a default route, or without a NIC of that name', () => {
  assert.equal(findUplink(nodeWith()), undefined)
  assert.equal(findUplink(nodeWith(routeTo(AF_INET, 3)), 'eth7'), undefined)
})
