// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { linkNames } from './pair.ts'

const key = { network: 'cni0', containerId: 'c1', ifName: 'eth0', type: 'veth-route' }

test('linkNames() follows from network, container, interface and plugin alone', () => {
  assert.deepEqual(linkNames(key), linkNames({ ...key }))
  for (const change of [{ network: 'cni1' }, { containerId: 'c2' }, { ifName: 'net1' }, { type: 'ptp' }]) {
    assert.notEqual(linkNames({ ...key, ...change }).hostLinks[0], linkNames(key).hostLinks[0])
    assert.notDeepEqual(linkNames({ ...key, ...change }).podMac, linkNames(key).podMac)
  }
})

test('PTP-10 linkNames() fit a link and differ for a thousand containers', () => {
  const names = Array.from({ length: 1000 }, (_, index) => linkNames({ ...key, containerId: `${index}` }))
  for (const name of names.flatMap(each => each.hostLinks)) assert.match(name, /^veth[0-9a-f]{8}$/)
  assert.equal(new Set(names.map(each => each.hostLinks[0])).size, 1000)
})

test("linkNames() keep the owner within the kernel's 255 bytes", () => {
  const { owner } = linkNames({ ...key, containerId: 'a'.repeat(300) })
  assert.ok(Buffer.byteLength(owner) < 256)
  assert.notEqual(owner, linkNames({ ...key, containerId: `${'a'.repeat(299)}b` }).owner)
  assert.equal(linkNames(key).owner, 'mooring veth-route cni0 c1 eth0')
})
