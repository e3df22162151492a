// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tryParseMac } from '#base'
import type { At } from './interface.ts'
import { findUpstreamPair } from './upstream.ts'

const mac = '0a:58:0a:00:00:01'

const findWith = (kind: string | undefined) => {
  const interfaces = [
    { name: 'cni0', mac },
    { name: 'eth0', sandbox: '/run/netns/pod' },
  ]
  const world = { host: { describeLink: async () => ({ index: 3, owner: undefined, mac: tryParseMac(mac), kind }) } }
  return findUpstreamPair({ call: { ifName: 'eth0', config: {}, prevResult: { interfaces } }, world } as unknown as At)
}

test('findUpstreamPair: a link that a result tells by name and MAC is taken for the pair only if it is a veth', async () => {
  assert.deepEqual(await findWith('veth'), { hostLink: 'cni0', mac })
  assert.equal(await findWith('bridge'), undefined, 'a DEL would remove the bridge of all pods')
  assert.equal(await findWith(undefined), undefined, 'a DEL would try to remove a NIC')
})
