// SPDX-License-Identifier: Apache-2.0

// Goal: however many call at once, and whatever happens to the token meanwhile, Keystone gets one request for a token; and
// while there is a valid token nobody needs Keystone. Loopback only, no root.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { deadlineIn } from '#base'
import { type CloudSession, cloudFromConf, type Limits, OpenStackError, openCloud } from '#openstack'
import { openSessions } from '#plugins'
import { portOf, type Request, startFake } from './fake.ts'

const CALLERS = 500
/** Requests that run at once. */
const CONNECTIONS = 8
const limits = (): Limits => ({ deadline: deadlineIn(20_000) })
const onePort = (request: Request) => request.answer(200, { port: portOf('p1') })
const unauthorized = { error: { code: 401, title: 'Unauthorized', message: 'The request you have made' } }

function open(url: string): CloudSession & AsyncDisposable {
  const cloud = cloudFromConf({ username: 'demo', password: 'secret', project: 'demo', authUrl: url })
  const session = openCloud(cloud, { gate: { watchful: true }, http: { backoffMs: 5, backoffMsMax: 20 } })
  return { ...session, [Symbol.asyncDispose]: () => session.close() }
}
const callAll = (session: CloudSession) =>
  Promise.allSettled(Array.from({ length: CALLERS }, () => session.neutron.ports.get('p1', limits())))
const failuresOf = (results: PromiseSettledResult<unknown>[]) =>
  results.flatMap(each => (each.status === 'rejected' ? [each.reason as unknown] : []))

test('500 callers at token expiry make one token request', async () => {
  await using fake = await startFake(onePort)
  fake.lifeMs = 500
  await using session = open(fake.url)
  await session.neutron.ports.get('p1', limits())
  await sleep(520)
  fake.validToken = 'expired'
  fake.lifeMs = 3_600_000
  assert.deepEqual(failuresOf(await callAll(session)), [])
  assert.equal(fake.logins(), 2)
})

test('who waits for his turn at a slow service has the time of a try from then on', async () => {
  await using fake = await startFake(request => void sleep(50).then(() => onePort(request)))
  const cloud = cloudFromConf({ username: 'demo', password: 'secret', project: 'demo', authUrl: fake.url })
  const session = openCloud(cloud, { http: { readTryMs: 1_000, backoffMs: 5, backoffMsMax: 20 } })
  await using _session = { [Symbol.asyncDispose]: () => session.close() }
  assert.deepEqual(failuresOf(await callAll(session)), [])
  assert.equal(fake.log().length, CALLERS)
  // The wait for each other was ours: the service answers in time, and is asked.
  assert.equal((await session.neutron.ports.get('p1', { deadline: deadlineIn(1_000) }))?.id, 'p1')
})

test('who waits for his turn while the token is refused sends the new one', async () => {
  await using fake = await startFake(onePort, { refusalMs: 50 })
  await using session = open(fake.url)
  await session.neutron.ports.get('p1', limits())
  fake.validToken = 'revoked'
  assert.deepEqual(failuresOf(await callAll(session)), [])
  assert.equal(fake.logins(), 2)
  const refused = fake.log().length - CALLERS - 1
  assert.ok(refused > 0 && refused <= 3 * CONNECTIONS, `${refused} requests with the old token`)
})

test('500 callers of an old token that is still valid make one token request, and none waits for it', async () => {
  let answering: (() => void) | undefined
  let asked = 0
  await using fake = await startFake(onePort, {
    onLogin: request => {
      if (++asked === 1) return false
      // Keystone takes its time, and then forgets to answer.
      answering = () => request.cut()
      return true
    },
  })
  fake.lifeMs = 2_000
  await using session = open(fake.url)
  await session.neutron.ports.get('p1', limits())
  // Between four fifths of its life and the margin at its end.
  await sleep(1_640)
  assert.deepEqual(failuresOf(await callAll(session)), [])
  assert.equal(asked, 2)
  answering?.()
})

test('500 callers whose token is refused, and the new one too: one login more, then a typed error for each', async () => {
  await using fake = await startFake(request => request.answer(401, unauthorized))
  await using session = open(fake.url)
  await session.identity.tokenInfo(limits())
  const failures = failuresOf(await callAll(session))
  assert.equal(failures.length, CALLERS)
  for (const error of failures)
    assert.ok(error instanceof OpenStackError && error.kind === 'auth' && error.status === 401, String(error))
  assert.equal(fake.logins(), 2)
  assert.ok(fake.log().length <= 2 * CALLERS)
})

// Sixty minutes are three seconds here: Keystone is away for the last ten, and the token is old for most of them.
test('Keystone away for ten minutes, with a valid token: nobody notices', async () => {
  let isAway = false
  await using fake = await startFake(onePort, {
    onLogin: request => {
      if (isAway) request.cut()
      return isAway
    },
  })
  fake.lifeMs = 3_000
  await using session = open(fake.url)
  await session.neutron.ports.get('p1', limits())
  const begin = performance.now()
  await sleep(2_000)
  isAway = true
  let calls = 0
  while (performance.now() - begin < 2_500) {
    assert.equal((await session.neutron.ports.get('p1', limits()))?.id, 'p1')
    calls++
  }
  assert.ok(calls > 10, `${calls} calls`)
  assert.equal(session.health('network').level, 'normal')
  isAway = false
  await sleep(600)
  fake.validToken = 'expired'
  assert.equal((await session.neutron.ports.get('p1', limits()))?.id, 'p1')
})

test('Keystone away for ten minutes, with a valid token: nobody else is asked instead until the token ends', async () => {
  let isAway = false
  await using fake = await startFake(onePort, {
    onLogin: request => {
      if (isAway) request.cut()
      return isAway
    },
  })
  fake.lifeMs = 3_000
  const cloud = cloudFromConf({ username: 'demo', password: 'secret', project: 'demo', authUrl: fake.url })
  const breaker = { failuresMin: 1, spanMs: 0, pauseMs: 10 }
  const session = openCloud(cloud, { gate: { watchful: true, breaker }, http: { readTriesMax: 1, writeTriesMax: 1 } })
  await using _session = { [Symbol.asyncDispose]: () => session.close() }
  await session.neutron.ports.get('p1', limits())
  isAway = true
  await sleep(2_420)
  await session.neutron.ports.get('p1', limits())
  const state = () => session.gate.breakerState('keystone')
  while (state() !== 'open') await sleep(1)
  const { length } = fake.log()
  fake.lifeMs = 3_600_000
  isAway = false
  await sleep(200)
  assert.deepEqual(fake.log().slice(length), [])
  // The login closes it; the question that needed the login follows.
  while (state() !== 'closed' || fake.log().length === length) await sleep(10)
  assert.deepEqual(fake.log().slice(length), ['GET /network/v2.0/networks?limit=1'])
})

test('credentials that change in their file under load: one refused login at most, then all go on with the new ones', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-rotation-'))
  const file = join(directory, 'clouds.json')
  const write = (password: string, url: string) =>
    writeFileSync(
      file,
      JSON.stringify({
        clouds: { one: { auth: { auth_url: url, username: 'u', project_name: 'p', password, user_domain_id: 'd' } } },
      }),
      { mode: 0o600 },
    )
  let valid = 'first-password'
  const passwords: string[] = []
  await using fake = await startFake(onePort, {
    onLogin: request => {
      const password = JSON.parse(request.body).auth.identity.password.user.password as string
      passwords.push(password)
      if (password !== valid) request.answer(401, unauthorized)
      return password !== valid
    },
  })
  write(valid, fake.url)
  process.env['OS_CLIENT_CONFIG_FILE'] = file
  try {
    await using clouds = openSessions({ dataDir: directory, warn: () => {}, gate: { watchful: true } })
    const work = async () => {
      let isOld = true
      const failures: unknown[] = []
      for (let after = 0; after < 5; ) {
        const { session } = await clouds.open({ name: 'one' })
        await session.neutron.ports.get('p1', limits()).then(
          () => (isOld ? undefined : after++),
          error => failures.push(error),
        )
        if (isOld && valid !== 'first-password') isOld = false
        await sleep(1)
      }
      return failures
    }
    const workers = Array.from({ length: 50 }, work)
    await sleep(200)
    // Keystone forgets the old password and every token made with it.
    valid = 'second-password'
    fake.validToken = 'revoked'
    write(valid, fake.url)
    const failures = (await Promise.all(workers)).flat()
    assert.ok(failures.length <= 100, `${failures.length} failures`)
    for (const error of failures) assert.ok(error instanceof OpenStackError && error.kind === 'auth', String(error))
    // None is refused where the file is looked at before the old token is.
    const logins = (password: string) => passwords.filter(each => each === password).length
    assert.ok(logins('first-password') <= 2, passwords.join())
    assert.equal(logins('second-password'), 1, passwords.join())
  } finally {
    delete process.env['OS_CLIENT_CONFIG_FILE']
    rmSync(directory, { recursive: true })
  }
})
