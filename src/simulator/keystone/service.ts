// SPDX-License-Identifier: Apache-2.0

/** Keystone v3, as far as clients of a cloud and the contract suite use it. */
import type { Call, RouteTable } from '../call.ts'
import { authenticate, catalogOf, revokeToken, showToken } from './auth.ts'
import { credentialRoutes } from './credential.ts'
import { projectRoutes } from './project.ts'

const version = (call: Call) => ({
  id: 'v3.14',
  status: 'stable',
  updated: '2020-04-07T00:00:00Z',
  links: [{ rel: 'self', href: `${call.origin}/v3/` }],
  'media-types': [{ base: 'application/json', type: 'application/vnd.openstack.identity-v3+json' }],
})

export const identityRoutes: RouteTable = [
  ['GET', '/', call => ({ status: 300, body: { versions: { values: [version(call)] } } })],
  ['GET', '/v3', call => ({ status: 200, body: { version: version(call) } })],
  ['POST', '/v3/auth/tokens', authenticate],
  ['GET', '/v3/auth/tokens', showToken],
  ['DELETE', '/v3/auth/tokens', revokeToken],
  ['GET', '/v3/auth/catalog', call => ({ status: 200, body: { catalog: catalogOf(call) } })],
  ...projectRoutes,
  ...credentialRoutes,
]

/** Versions and the request for a token need none. */
export const identityOpen = (method: string, path: readonly string[]): boolean =>
  path.length < 2 || (method === 'POST' && path.join('/') === 'v3/auth/tokens')
