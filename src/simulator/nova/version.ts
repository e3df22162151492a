// SPDX-License-Identifier: Apache-2.0
import type { Answer, Call, Handler, RouteTable } from '../call.ts'
import { Fault } from '../fault.ts'

const MINOR_MAX = 93

/** The minor number of the microversion that the request asks for: 1 if it asks for none. */
export function minorVersion(call: Call): number {
  const modern = call.headers['openstack-api-version']
  const legacy = call.headers['x-openstack-nova-api-version']
  const text = typeof modern === 'string' ? /^compute\s+(.*)$/.exec(modern)?.[1] : legacy
  if (typeof text !== 'string') return 1
  if (text === 'latest') return MINOR_MAX
  const match = /^(\d+)\.(\d+)$/.exec(text)
  if (match === null) {
    throw new Fault(
      400,
      'badRequest',
      `API Version String ${text} is of invalid format. Must be of format MajorNum.MinorNum.`,
    )
  }
  const minor = Number(match[2])
  if (match[1] !== '2' || minor < 1 || minor > MINOR_MAX) {
    throw new Fault(
      406,
      'computeFault',
      `Version ${text} is not supported by the API. Minimum is 2.1 and maximum is 2.${MINOR_MAX}.`,
    )
  }
  return minor
}

function versioned(handler: Handler): Handler {
  return async (call: Call): Promise<Answer> => {
    const minor = minorVersion(call)
    const answer = await handler(call)
    const headers = {
      'openstack-api-version': `compute 2.${minor}`,
      'x-openstack-nova-api-version': `2.${minor}`,
      vary: 'OpenStack-API-Version, X-OpenStack-Nova-API-Version',
    }
    return { ...answer, headers: { ...headers, ...answer.headers } }
  }
}

/** The routes, each with its microversion checked and named in the answer. */
export const withVersions = (routes: RouteTable): RouteTable =>
  routes.map(([method, path, handler]) => [method, path, versioned(handler)])

/** `GET /v2.1`: what the versions are. */
export function showVersion(call: Call): Answer {
  const links = [{ rel: 'self', href: `${call.origin}/v2.1/` }]
  const version = { id: 'v2.1', status: 'CURRENT', version: `2.${MINOR_MAX}`, min_version: '2.1', links }
  return { status: 200, body: call.path.length === 0 ? { versions: [version] } : { version } }
}
