// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp, parsePrefix } from '#base'
import { describeOwner, hostPortsOf, ownerOf, tracesOf } from './traces.ts'

test('tracesOf, hostPortsOf: what DEL needs survives the journal', () => {
  const ports = {
    owner: 'podnet c1 eth0',
    ports: [
      { protocol: 6, hostPort: 80, pod: parseIp('10.0.0.1'), podPort: 8080 },
      { protocol: 17, hostPort: 53, hostIp: parseIp('fd00::8'), pod: parseIp('fd00::1'), podPort: 5353 },
    ],
    masquerade: { bit: 13, all: false, near: [parsePrefix('10.0.0.1/24')] },
    conditions: { v4: [{ end: 'source', negated: true, network: parsePrefix('10.0.0.0/8') } as const], v6: [] },
  }
  assert.deepEqual(hostPortsOf(JSON.parse(JSON.stringify(tracesOf(ports)))), ports)
  assert.equal(hostPortsOf({ owner: 'podnet c1 eth0' }), undefined)
})

test('ownerOf: readable, or a hash where nft would not read it', () => {
  const key = { network: 'podnet', containerId: 'c1', ifName: 'eth0', type: 'portmap' }
  assert.equal(ownerOf(key), 'podnet c1 eth0')
  assert.equal(describeOwner(ownerOf(key)), 'container c1 (network podnet, interface eth0)')
  const long = ownerOf({ ...key, network: 'n'.repeat(200) })
  assert.match(long, /^[0-9a-f]{64}$/)
  assert.equal(describeOwner(long), `the attachment "${long}"`)
})
