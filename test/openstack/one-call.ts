// SPDX-License-Identifier: Apache-2.0

// One call in a process of its own, as a plugin without agent makes it: node one-call.ts URL TOKEN-CACHE

import { withFileLock } from '#allocator'
import { deadlineIn } from '#base'
import { cloudFromConf, openCloud } from '#openstack'

const [authUrl, tokenCache] = process.argv.slice(2) as [string, string]
const session = openCloud(cloudFromConf({ username: 'u', password: 'password', project: 'p', authUrl }), {
  tokenCache,
  withLock: async (body, limits) => (await withFileLock(`${tokenCache}.lock`, body, limits))!,
})
await session.neutron.ports.get('p1', { deadline: deadlineIn(60_000) })
await session.close()
