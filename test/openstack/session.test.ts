// SPDX-License-Identifier: Apache-2.0

// The session over real sockets: tokens, retries, time-outs, errors. Loopback only, no root.

import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { deadlineIn } from '#base'
import { type CloudOptions, type CloudSession, cloudFromConf, type Limits, OpenStackError, openCloud } from '#openstack'
import { type Fake, neutronError, portOf, type Request, startFake } from './fake.ts'

const password = 'top-secret-word'
const limits = (ms = 10_000): Limits => ({ deadline: deadlineIn(ms) })
/** Short delays, so that retries take no time. */
const quick: CloudOptions = { http: { backoffMs: 5, backoffMsMax: 20 } }

function open(url: string, options: CloudOptions = quick): CloudSession & AsyncDisposable {
  const session = openCloud(cloudFromConf({ username: 'demo', password, project: 'demo', authUrl: url }), options)
  return { ...session, [Symbol.asyncDispose]: () => session.close() }
}

/** Answers the n-th call by the n-th function, further ones by the last. */
function inTurn(...answers: ((request: Request) => void)[]): (request: Request) => void {
  let calls = 0
  return request => answers[Math.min(calls++, answers.length - 1)]!(request)
}
const status =
  (code: number, body: unknown = '', headers: Record<string, string> = {}) =>
  (request: Request) =>
    request.answer(code, body, headers)
const onePort = status(200, { port: portOf('p1') })
const noPorts = status(200, { ports: [] })
const silence = () => undefined

const failureOf = async (call: Promise<unknown>): Promise<OpenStackError> => {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  assert.ok(error instanceof OpenStackError, String(error))
  assert.ok(!`${error.message}${error.stack}${JSON.stringify(error)}`.includes(password))
  return error
}

test('500 calls at once make one login, at the start and when the token is refused', async () => {
  await using fake = await startFake(onePort)
  await using session = open(fake.url)
  const all = () => Promise.all(Array.from({ length: 500 }, () => session.neutron.ports.get('p1', limits())))
  await all()
  assert.equal(fake.logins(), 1)
  fake.validToken = 'revoked'
  await all()
  assert.equal(fake.logins(), 2)
})

test('a 401 makes exactly one new login, then a typed error', async () => {
  const unauthorized = status(401, {
    error: { code: 401, title: 'Unauthorized', message: 'The request you have made' },
  })
  await using fake = await startFake(inTurn(onePort, unauthorized))
  await using session = open(fake.url)
  await session.neutron.ports.get('p1', limits())
  const error = await failureOf(session.neutron.ports.get('p1', limits()))
  assert.deepEqual([error.service, error.status, error.kind], ['neutron', 401, 'auth'])
  assert.match(error.message, /a new token was refused as well/)
  assert.equal(fake.logins(), 2)
  assert.equal(fake.log().length, 3)
})

test('a wrong password is one login and an error that says what to check, not the password', async () => {
  await using fake = await startFake(onePort, {
    onLogin: request => {
      // Keystone's validation repeats what it was sent.
      request.answer(401, { error: { code: 401, title: 'Unauthorized', message: `bad: ${request.body}` } })
      return true
    },
  })
  await using session = open(fake.url)
  const error = await failureOf(session.neutron.ports.get('p1', limits()))
  assert.deepEqual([error.service, error.kind, error.type], ['keystone', 'auth', 'Unauthorized'])
  assert.match(error.message, /Cannot log in to cloud "openstackConf" at .*\/v3 as user "demo" of domain "default"/)
  assert.match(error.message, /check user, password, domain and project/)
  assert.match(error.message, /\*\*\*/)
  assert.equal(fake.requests.length, 1)
})

test('identity tells user, project and roles of the token', async () => {
  await using fake = await startFake(onePort)
  await using session = open(fake.url)
  const info = await session.identity.tokenInfo(limits())
  assert.deepEqual([info.user.name, info.project?.id, info.roles], ['demo', 'project-1', ['member']])
  assert.equal(info.expiresAtMs - info.receivedAtMs, 3_600_000)
  assert.equal(await session.identity.projectId(limits()), 'project-1')
})

test('a GET is tried again on 500, 503 and a cut connection', async () => {
  await using fake = await startFake(
    inTurn(
      status(500, neutronError('HTTPInternalServerError', 'x')),
      status(503),
      each => each.cut(),
      each => each.cut('{"po'),
      onePort,
    ),
  )
  await using session = open(fake.url)
  assert.equal((await session.neutron.ports.get('p1', limits()))?.id, 'p1')
  assert.equal(fake.log().length, 5)
})

test('a GET is tried five times at most', async () => {
  await using fake = await startFake(status(503, '<html><body>No server is available</body></html>'))
  await using session = open(fake.url)
  const error = await failureOf(session.neutron.ports.get('p1', limits()))
  assert.deepEqual([error.status, error.kind, error.effect], [503, 'transient', 'none'])
  assert.match(error.message, /^Cannot get port p1: No server is available \(neutron 503 HTTP503\)/)
  assert.equal(fake.log().length, 5)
})

test('Retry-After is waited for, by all calls to that service', async () => {
  const at: number[] = []
  let refused = false
  await using fake = await startFake(request => {
    at.push(performance.now())
    if (refused) return onePort(request)
    refused = true
    request.answer(429, '', { 'Retry-After': '1' })
  })
  await using session = open(fake.url)
  await session.identity.tokenInfo(limits())
  const first = session.neutron.ports.get('p1', limits())
  while (!refused) await new Promise(resolve => setTimeout(resolve, 2))
  await new Promise(resolve => setTimeout(resolve, 20))
  await Promise.all([first, session.neutron.ports.get('p1', limits())])
  assert.equal(at.length, 3)
  for (const later of at.slice(1)) assert.ok(later - at[0]! >= 990, `waited ${later - at[0]!} ms`)
})

test('Retry-After beyond the deadline is an error at once', async () => {
  await using fake = await startFake(status(503, '', { 'Retry-After': '30' }))
  await using session = open(fake.url)
  await session.identity.tokenInfo(limits())
  const start = performance.now()
  const error = await failureOf(session.neutron.ports.get('p1', limits(5_000)))
  assert.ok(performance.now() - start < 1_000)
  assert.deepEqual([error.kind, error.retryAfterMs], ['transient', 30_000])
  const next = await failureOf(session.neutron.ports.get('p1', limits(5_000)))
  assert.match(next.message, /asked to wait \d+ s, longer than the time left/)
  assert.equal(fake.log().length, 1, 'a call that cannot end in time is not started')
})

test('a POST is not repeated, and the error says that it may have taken effect', async () => {
  for (const failing of [status(500), status(503), (each: Request) => each.cut()]) {
    await using fake = await startFake(failing)
    await using session = open(fake.url)
    const error = await failureOf(session.neutron.ports.create({ network_id: 'net-1', name: 'x' }, limits()))
    assert.equal(error.effect, 'unknown')
    assert.match(error.message, /^Cannot create port "x" on network net-1: .*whether it took effect is not known/)
    assert.equal(fake.log().length, 1)
  }
})

test('a POST that a rate limiter refused is sent again: nothing was done', async () => {
  await using fake = await startFake(inTurn(status(429), status(201, { port: portOf('p9') })))
  await using session = open(fake.url)
  assert.equal((await session.neutron.ports.create({ network_id: 'net-1' }, limits())).id, 'p9')
})

test('a POST with find takes what the first try made, and repeats where it made nothing', async () => {
  const find = (session: CloudSession) => async (each: Limits) =>
    (await session.neutron.ports.list({ name: 'mine' }, each))[0]
  await using made = await startFake(
    inTurn(each => each.cut(), status(200, { ports: [portOf('p7', { name: 'mine' })] })),
  )
  await using first = open(made.url)
  const found = await first.neutron.ports.create({ network_id: 'n', name: 'mine' }, { ...limits(), find: find(first) })
  assert.equal(found.id, 'p7')
  assert.deepEqual(
    made.log().map(line => line.split(' ')[0]),
    ['POST', 'GET'],
  )

  await using nothing = await startFake(inTurn(status(502), noPorts, status(201, { port: portOf('p8') })))
  await using second = open(nothing.url)
  const created = await second.neutron.ports.create(
    { network_id: 'n', name: 'mine' },
    { ...limits(), find: find(second) },
  )
  assert.equal(created.id, 'p8')
  assert.deepEqual(
    nothing.log().map(line => line.split(' ')[0]),
    ['POST', 'GET', 'POST'],
  )
})

test('a POST that took effect and was never answered is found after the last try as well', async () => {
  let posts = 0
  await using fake = await startFake(request => {
    if (request.method === 'POST') {
      posts++
      return request.cut()
    }
    request.answer(200, { ports: posts < 3 ? [] : [portOf('p3')] })
  })
  await using session = open(fake.url)
  const find = async (each: Limits) => (await session.neutron.ports.list({ name: 'mine' }, each))[0]
  assert.equal((await session.neutron.ports.create({ network_id: 'n', name: 'mine' }, { ...limits(), find })).id, 'p3')
  assert.equal(posts, 3)
})

test('a PUT is repeated on request only', async () => {
  await using fake = await startFake(inTurn(status(503), onePort))
  await using session = open(fake.url)
  const error = await failureOf(session.neutron.ports.update('p1', { fixed_ips: [] }, limits()))
  assert.equal(error.effect, 'unknown')
  assert.match(error.message, /^Cannot update port p1 to no address/)
  assert.equal((await session.neutron.ports.update('p1', { fixed_ips: [] }, { ...limits(), repeat: true })).id, 'p1')
})

test('a DELETE that was carried out and not answered counts as done', async () => {
  await using fake = await startFake(inTurn(each => each.cut(), status(404, neutronError('PortNotFound', 'gone'))))
  await using session = open(fake.url)
  assert.equal(await session.neutron.ports.delete('p1', limits()), false)
  assert.deepEqual(fake.log(), ['DELETE /network/v2.0/ports/p1', 'DELETE /network/v2.0/ports/p1'])
})

test('a missing port is undefined; a 404 of something in between is an error', async () => {
  await using fake = await startFake(
    inTurn(status(404, neutronError('PortNotFound', 'x')), status(404, '<html>404 page not found</html>')),
  )
  await using session = open(fake.url)
  assert.equal(await session.neutron.ports.get('p1', limits()), undefined)
  const error = await failureOf(session.neutron.ports.get('p1', limits()))
  assert.equal(error.kind, 'permanent')
})

test('the deadline ends a call that gets no answer, and frees its connection', async () => {
  await using fake = await startFake(inTurn(silence, onePort))
  await using session = open(fake.url, { ...quick, connectionsMax: 1 })
  await session.identity.tokenInfo(limits())
  const start = performance.now()
  const error = await failureOf(session.neutron.ports.get('p1', limits(150)))
  const took = performance.now() - start
  assert.ok(took >= 140 && took < 1_000, `${took} ms`)
  assert.deepEqual([error.type, error.kind, error.status], ['TimeOut', 'transient', 0])
  assert.match(error.message, /no answer from 127\.0\.0\.1:\d+ in time/)
  assert.equal((await session.neutron.ports.get('p1', limits()))?.id, 'p1')
})

test('a time-out after the effect is unknown for a write', async () => {
  await using fake = await startFake(silence)
  await using session = open(fake.url)
  await session.identity.tokenInfo(limits())
  const error = await failureOf(session.neutron.ports.create({ network_id: 'n' }, limits(100)))
  assert.deepEqual([error.type, error.effect], ['TimeOut', 'unknown'])
})

test('a hanging try of a GET is given up for a second one', async () => {
  await using fake = await startFake(inTurn(silence, onePort))
  await using session = open(fake.url, { http: { ...quick.http, readTryMs: 100 } })
  assert.equal((await session.neutron.ports.get('p1', limits()))?.id, 'p1')
})

test('a signal ends a call, waiting or running', async () => {
  await using fake = await startFake(silence)
  await using session = open(fake.url, { ...quick, connectionsMax: 1 })
  await session.identity.tokenInfo(limits())
  const controller = new AbortController()
  const calls = [1, 2].map(() => failureOf(session.neutron.ports.get('p1', { ...limits(), signal: controller.signal })))
  setTimeout(() => controller.abort(), 30)
  for (const error of await Promise.all(calls)) assert.equal(error.type, 'Aborted')
  const late = await failureOf(session.neutron.ports.get('p1', { ...limits(), signal: controller.signal }))
  assert.equal(late.type, 'Aborted')
  assert.equal(fake.log().length, 1)
})

test('a deadline that is past starts nothing', async () => {
  await using fake = await startFake(onePort)
  await using session = open(fake.url)
  await session.identity.tokenInfo(limits())
  const error = await failureOf(session.neutron.ports.get('p1', limits(0)))
  assert.deepEqual([error.type, error.effect], ['TimeOut', 'none'])
  assert.equal(fake.log().length, 0)
})

test('more calls than the limits allow are refused, not queued for ever', async () => {
  await using fake = await startFake(silence)
  await using session = open(fake.url, { http: { ...quick.http, readTriesMax: 1 }, connectionsMax: 1, waitingMax: 1 })
  await session.identity.tokenInfo(limits())
  const controller = new AbortController()
  const calls = [1, 2, 3].map(() =>
    failureOf(session.neutron.ports.get('p1', { ...limits(), signal: controller.signal })),
  )
  setTimeout(() => controller.abort(), 100)
  const types = (await Promise.all(calls)).map(error => error.type)
  assert.deepEqual(types.sort(), ['Aborted', 'Aborted', 'QueueFull'])
})

test('an answer beyond the size limit, or that is no JSON, or that lacks its list, is an error', async () => {
  const cases: [(request: Request) => void, string][] = [
    [status(200, { ports: [], padding: 'x'.repeat(200_000) }), 'AnswerTooLarge'],
    [status(200, '<html>Welcome</html>'), 'UnexpectedAnswer'],
    [status(200, {}), 'UnexpectedAnswer'],
    [status(200, { ports: [{ id: 'p1' }] }), 'UnexpectedAnswer'],
    [status(200, { ports: [{ fixed_ips: [] }] }), 'UnexpectedAnswer'],
  ]
  for (const [answer, type] of cases) {
    await using fake = await startFake(answer)
    await using session = open(fake.url, { ...quick, answerBytesMax: 100_000 })
    assert.equal((await failureOf(session.neutron.ports.list({}, limits()))).type, type)
    assert.equal(fake.log().length, 1)
  }
})

test('an unreachable Keystone is named with its reason', async () => {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise(resolve => server.close(resolve))
  await using session = open(`http://127.0.0.1:${port}`)
  const error = await failureOf(session.neutron.ports.get('p1', limits(3_000)))
  assert.deepEqual(
    [error.service, error.type, error.kind, error.effect],
    ['keystone', 'ConnectionFailed', 'transient', 'none'],
  )
  assert.match(error.message, new RegExp(`cannot connect to 127.0.0.1:${port}: connection refused \\(ECONNREFUSED\\)`))
})

test('a region that the catalog lacks is named with those it has', async () => {
  await using fake = await startFake(onePort)
  const cloud = cloudFromConf({ username: 'u', password, project: 'p', authUrl: fake.url, region: 'Elsewhere' })
  const session = openCloud(cloud, quick)
  const error = await failureOf(session.neutron.ports.get('p1', limits()))
  await session.close()
  assert.equal(error.type, 'EndpointMissing')
  assert.match(error.message, /no public endpoint of "network" in region "Elsewhere": it has public in "R"/)
  // By the keys that the configuration has.
  assert.match(error.remedy ?? '', /^check "region" and "interface" of "openstackConf", .* in "networkEndpoint"$/)
})

test('close() ends running calls', async () => {
  await using fake: Fake = await startFake(silence)
  const session = open(fake.url)
  await session.identity.tokenInfo(limits())
  const running = failureOf(session.neutron.ports.get('p1', limits()))
  await new Promise(resolve => setTimeout(resolve, 50))
  await session.close()
  assert.equal((await running).type, 'Aborted')
})
