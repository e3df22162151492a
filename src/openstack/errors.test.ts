// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { errorFromAnswer, errorFromWire, isMissing, retryAfterMs, type ServiceName } from './error.ts'
import type { ErrorKind } from './errors.ts'
import { WireError } from './wire.ts'

const context = (service: ServiceName) => ({
  service,
  action: 'do it',
  redact: (text: string) => text,
  uncertain: false,
})
const errorOf = (service: ServiceName, status: number, body: unknown, headers: Record<string, string> = {}) =>
  errorFromAnswer({ status, headers, body: typeof body === 'string' ? body : JSON.stringify(body) }, context(service))
const neutron = (type: string, message = 'text') => ({ NeutronError: { type, message, detail: '' } })

test('errorFromAnswer() classifies what Keystone, Neutron and Nova answer', () => {
  const cases: [ServiceName, number, unknown, string, ErrorKind][] = [
    ['neutron', 404, neutron('PortNotFound'), 'PortNotFound', 'missing'],
    ['neutron', 404, neutron('HTTPNotFound', 'The resource could not be found.'), 'HTTPNotFound', 'permanent'],
    ['neutron', 409, neutron('IpAddressGenerationFailure'), 'IpAddressGenerationFailure', 'exhausted'],
    ['neutron', 409, neutron('IpAddressAlreadyAllocated'), 'IpAddressAlreadyAllocated', 'permanent'],
    ['neutron', 409, neutron('OverQuota'), 'OverQuota', 'quota'],
    ['neutron', 412, neutron('RevisionNumberConstraintFailed'), 'RevisionNumberConstraintFailed', 'conflict'],
    ['neutron', 400, neutron('RoutesExhausted'), 'RoutesExhausted', 'exhausted'],
    ['neutron', 400, neutron('AllowedAddressPairExhausted'), 'AllowedAddressPairExhausted', 'exhausted'],
    [
      'neutron',
      400,
      neutron('InvalidInput', 'Exceeded maximum amount of fixed ips per port.'),
      'InvalidInput',
      'exhausted',
    ],
    ['neutron', 400, neutron('InvalidInput', 'Invalid input for x'), 'InvalidInput', 'permanent'],
    ['neutron', 403, neutron('PolicyNotAuthorized'), 'PolicyNotAuthorized', 'auth'],
    ['neutron', 503, neutron('MacAddressGenerationFailure'), 'MacAddressGenerationFailure', 'transient'],
    ['neutron', 500, neutron('HTTPInternalServerError'), 'HTTPInternalServerError', 'transient'],
    ['neutron', 409, neutron('SomethingNew'), 'SomethingNew', 'conflict'],
    ['neutron', 414, '', 'HTTP414', 'permanent'],
    ['neutron', 401, { error: { code: 401, title: 'Unauthorized', message: 'x' } }, 'Unauthorized', 'auth'],
    ['neutron', 429, 'slow down', 'HTTP429', 'transient'],
    ['neutron', 502, '<html><head><title>502</title></head><body>Bad Gateway</body></html>', 'HTTP502', 'transient'],
    ['keystone', 401, { error: { code: 401, title: 'Unauthorized', message: 'x' } }, 'Unauthorized', 'auth'],
    [
      'keystone',
      404,
      { error: { code: 404, title: 'Not Found', message: 'Could not find Application Credential: 1.' } },
      'NotFound',
      'auth',
    ],
    [
      'keystone',
      404,
      { error: { code: 404, title: 'Not Found', message: 'Could not find user: 1.' } },
      'NotFound',
      'missing',
    ],
    ['nova', 404, { itemNotFound: { code: 404, message: 'x' } }, 'itemNotFound', 'missing'],
    [
      'nova',
      404,
      { message: 'The resource could not be found.<br /><br />\n\n\n', code: '404 Not Found', title: 'Not Found' },
      'HTTPNotFound',
      'permanent',
    ],
    [
      'nova',
      409,
      { conflictingRequest: { code: 409, message: 'Port x is still in use.' } },
      'conflictingRequest',
      'conflict',
    ],
    ['nova', 403, { forbidden: { code: 403, message: 'Maximum number of ports exceeded' } }, 'forbidden', 'quota'],
    ['nova', 403, { forbidden: { code: 403, message: 'Policy does not allow it' } }, 'forbidden', 'auth'],
    [
      'nova',
      400,
      { badRequest: { code: 400, message: 'No fixed IP addresses available for network: x' } },
      'badRequest',
      'exhausted',
    ],
    ['nova', 400, { badRequest: { code: 400, message: 'Additional properties' } }, 'badRequest', 'permanent'],
    ['nova', 500, { computeFault: { code: 500, message: 'Unexpected API Error' } }, 'computeFault', 'transient'],
    [
      'nova',
      500,
      { computeFault: { code: 500, message: 'Failed to attach network adapter device to x' } },
      'computeFault',
      'exhausted',
    ],
    [
      'nova',
      406,
      { computeFault: { code: 406, message: 'Version 2.999 is not supported' } },
      'computeFault',
      'permanent',
    ],
  ]
  for (const [service, status, body, type, kind] of cases) {
    const error = errorOf(service, status, body)
    assert.deepEqual([error.type, error.kind, error.status], [type, kind, status], JSON.stringify(body))
  }
})

test('OpenStackError says action, reason, origin, request id and remedy', () => {
  const error = errorOf('neutron', 409, neutron('OverQuota', "Quota exceeded for resources: ['port']."), {
    'x-openstack-request-id': 'req-1',
  })
  assert.equal(
    error.message,
    "Cannot do it: Quota exceeded for resources: ['port'] (neutron 409 OverQuota, request req-1); " +
      'delete what nobody uses, or ask for a larger quota of the project',
  )
  assert.equal(error.requestId, 'req-1')
  assert.equal(error.message, `${error.summary}; ${error.remedy}`)
})

test('errorFromAnswer() strips tags and cuts what a proxy or a validator writes', () => {
  assert.match(
    errorOf('neutron', 503, '<html><style>b{}</style><body><h1>503</h1>No server</body></html>').message,
    /: 503 No server \(/,
  )
  assert.ok(
    errorOf('keystone', 400, { error: { message: 'x'.repeat(5000), title: 'Bad Request' } }).message.length < 1000,
  )
})

test('isMissing() tells a missing object from a missing page', () => {
  assert.equal(isMissing(errorOf('neutron', 404, neutron('PortNotFound'))), true)
  assert.equal(isMissing(errorOf('neutron', 404, '<html>no such page</html>')), false)
})

test('errorFromWire() names the failure and whether it may have had an effect', () => {
  const error = errorFromWire(new WireError('TimeOut', true, 'no answer from x in time'), {
    ...context('neutron'),
    uncertain: true,
  })
  assert.equal(error.effect, 'unknown')
  assert.equal(error.kind, 'transient')
  assert.match(error.message, /whether it took effect is not known/)
})

test('retryAfterMs() reads seconds and dates', () => {
  const now = Date.parse('2026-01-01T00:00:00Z')
  assert.equal(retryAfterMs('7', now), 7000)
  assert.equal(retryAfterMs('Thu, 01 Jan 2026 00:00:05 GMT', now), 5000)
  assert.equal(retryAfterMs('Wed, 31 Dec 2025 00:00:05 GMT', now), 0)
  assert.equal(retryAfterMs('soon', now), undefined)
  assert.equal(retryAfterMs(undefined, now), undefined)
})
