// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CloudSession } from '#openstack'
import { findTopology } from './topology.ts'

test('findTopology(): a server whose name would lead out of the demo’s directory is none for it', async () => {
  const servers = ['../one', '..'].map(name => ({ id: name, name, status: 'ACTIVE', metadata: {} }))
  const session = {
    cloud: { name: 'c' },
    nova: { servers: { list: async () => servers } },
  } as unknown as CloudSession
  const options = { netnsOf: () => '/proc/self/ns/net', outsideNetns: '/proc/self/ns/net' }
  await using owned = new AsyncDisposableStack()
  await assert.rejects(findTopology(session, options, owned), /Cannot find two servers .*: 0 found/)
})
