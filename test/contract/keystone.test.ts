// SPDX-License-Identifier: Apache-2.0

/** 3(h) Keystone. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import {
  type Caller,
  callerOf,
  isReal,
  makeWorld,
  passwordAuth,
  type Reply,
  requestToken,
  type Send,
  type World,
  withToken,
} from './world.ts'

describe('3(h) Keystone', () => {
  let world: World
  before(async () => {
    world = await makeWorld({}, false)
  })
  after(() => world.close())

  const token = (body: unknown, query?: string): Promise<Reply> => requestToken(world.authUrl, body, query)
  const identity = (user: object): object => ({
    identity: { methods: ['password'], password: { user: { password: world.password, ...user } } },
  })
  const byName = (domain: object): object => identity({ name: world.username, domain })
  const Default = { name: 'Default' }
  const scope = (project: string): object => ({ scope: { project: { name: project, domain: Default } } })
  /** A new token for the member. */
  const fresh = async (): Promise<Caller> =>
    callerOf(world.authUrl, await token(passwordAuth(world.username, world.password, world.project)))
  const refused = (reply: Reply, status: number, title: string, message: string | RegExp): void => {
    assert.equal(reply.status, status, reply.text)
    const { error } = reply.body
    assert.equal(error.code, status)
    assert.equal(error.title, title)
    if (typeof message === 'string') assert.equal(error.message, message)
    else assert.match(error.message, message)
  }
  const unauthenticated = 'The request you have made requires authentication.'

  test('3(h) password, project scope -> 201 with X-Subject-Token, expires_at, roles, catalog', async () => {
    const reply = await token(passwordAuth(world.username, world.password, world.project))
    assert.equal(reply.status, 201)
    assert.ok((reply.headers.get('x-subject-token') ?? '').length >= 180)
    const body = reply.body.token
    assert.match(body.expires_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000000Z$/)
    assert.match(body.issued_at, /\.000000Z$/)
    assert.deepEqual(body.roles.map((role: { name: string }) => role.name).sort(), ['member', 'reader'])
    assert.equal(body.project.name, world.project)
    const types = body.catalog.map((service: { type: string }) => service.type)
    for (const type of ['identity', 'network', 'compute']) assert.ok(types.includes(type), type)
    const [endpoint] = body.catalog[0].endpoints
    for (const key of ['id', 'interface', 'region', 'region_id', 'url']) assert.ok(key in endpoint, key)
  })

  test('3(h) ?nocatalog leaves the catalog out', async () => {
    const reply = await token(passwordAuth(world.username, world.password, world.project), '?nocatalog')
    assert.equal(reply.status, 201)
    assert.equal(reply.body.token.catalog, undefined)
    assert.equal(reply.body.token.project.name, world.project)
  })

  const wrong: [string, () => unknown][] = [
    ['wrong password', () => passwordAuth(world.username, 'wrong', world.project)],
    ['unknown user', () => passwordAuth('nobody', 'wrong', world.project)],
    ['unknown domain', () => ({ auth: { ...byName({ name: 'nowhere' }), ...scope(world.project) } })],
    ['unknown project', () => passwordAuth(world.username, world.password, 'nothing')],
    ['project without role', () => passwordAuth(world.username, world.password, 'demo')],
    ['system scope not granted', () => ({ auth: { ...byName(Default), scope: { system: { all: true } } } })],
    ['domain scope not granted', () => ({ auth: { ...byName(Default), scope: { domain: Default } } })],
  ]
  for (const [name, body] of wrong) {
    test(`3(h) ${name} -> 401, always the same`, async () =>
      refused(await token(body()), 401, 'Unauthorized', unauthenticated))
  }

  test('3(h) no scope, user with a default project -> 201, scoped to it', async () => {
    const reply = await token({ auth: byName(Default) })
    assert.equal(reply.status, 201)
    assert.equal(reply.body.token.project.name, world.project)
  })

  test('3(h) domain names are compared without case, the id works too', async () => {
    assert.equal((await token({ auth: { ...byName({ name: 'default' }), ...scope(world.project) } })).status, 201)
    assert.equal((await token({ auth: { ...byName({ id: 'default' }), ...scope(world.project) } })).status, 201)
  })

  test('3(h) an empty auth, a body that is not JSON -> 400', async () => {
    refused(await token({ auth: {} }), 400, 'Bad Request', /'identity' is a required property/)
    refused(await token('{bad'), 400, 'Bad Request', /^Expecting to find valid JSON in request body/)
  })

  test('3(h) application credentials: by id, by name + user, with a scope 401, wrong secret 401, restricted 403, deleted 404', async () => {
    const { userId, keystone } = world.member
    const path = `/users/${userId}/application_credentials`
    const wanted = { name: 'contract', secret: 's3cret' }
    const made = await keystone('POST', path, { application_credential: wanted })
    assert.equal(made.status, 201, made.text)
    const { id } = made.body.application_credential
    const auth = (credential: object, extra = {}): object => ({
      auth: { identity: { methods: ['application_credential'], application_credential: credential }, ...extra },
    })
    const good = await token(auth({ id, secret: 's3cret' }))
    assert.equal(good.status, 201, good.text)
    assert.equal(good.body.token.application_credential.restricted, true)
    const user = { name: world.username, domain: Default }
    assert.equal((await token(auth({ name: 'contract', secret: 's3cret', user }))).status, 201)
    refused(
      await token(auth({ id, secret: 's3cret' }, scope(world.project))),
      401,
      'Unauthorized',
      'Error authenticating with application credential: Application credentials cannot request a scope.',
    )
    refused(await token(auth({ id, secret: 'no' })), 401, 'Unauthorized', unauthenticated)
    const unknown = 'f'.repeat(32)
    refused(
      await token(auth({ id: unknown, secret: 'no' })),
      404,
      'Not Found',
      `Could not find Application Credential: ${unknown}.`,
    )
    const restricted = callerOf(world.authUrl, good)
    const another = { application_credential: { name: 'another' } }
    refused(await restricted.keystone('POST', path, another), 403, 'Forbidden', /not allowed for managing/)
    assert.equal((await restricted.neutron('GET', '/ports?limit=1')).status, 200)
    assert.equal((await keystone('DELETE', `${path}/${id}`)).status, 204)
    refused(
      await token(auth({ id, secret: 's3cret' })),
      404,
      'Not Found',
      `Could not find Application Credential: ${id}.`,
    )
    const later = await restricted.neutron('GET', '/ports?limit=1')
    assert.equal(later.status, 200, 'token of a deleted application credential, used before')
  })

  test('3(h) no token, garbage on Neutron or Nova -> 401 of the middleware, with WWW-Authenticate', async () => {
    const bases = await endpointsOf(world)
    for (const value of [undefined, 'garbage']) {
      for (const [base, path] of bases) {
        const reply = await withToken(base, value)('GET', path)
        refused(reply, 401, 'Unauthorized', unauthenticated)
        assert.match(reply.headers.get('www-authenticate') ?? '', /^Keystone uri="http/)
      }
    }
  })

  test('3(h) expired token -> 401 at once, also if it was used before; Keystone: validate 404, X-Auth-Token 401', async t => {
    if (world.simulator === undefined) return t.skip('a real cloud expires tokens when it likes')
    const caller = await fresh()
    assert.equal((await caller.neutron('GET', '/ports?limit=1')).status, 200)
    world.simulator.expireTokens()
    refused(await caller.neutron('GET', '/ports?limit=1'), 401, 'Unauthorized', unauthenticated)
    refused(await caller.keystone('GET', '/auth/projects'), 401, 'Unauthorized', unauthenticated)
    const { username, password, project } = world.simulator.accounts.admin
    const admin = callerOf(world.authUrl, await token(passwordAuth(username, password, project)))
    const subject = { 'x-subject-token': caller.token }
    assert.equal((await admin.keystone('GET', '/auth/tokens', undefined, subject)).status, 404)
  })

  test('3(h) revoked token: 200 where it was used before, 401 where it was not, 401 on Keystone', async () => {
    const used = await fresh()
    const unused = await fresh()
    assert.equal((await used.neutron('GET', '/ports?limit=1')).status, 200)
    for (const caller of [used, unused]) {
      const reply = await caller.keystone('DELETE', '/auth/tokens', undefined, { 'x-subject-token': caller.token })
      assert.equal(reply.status, 204)
    }
    assert.equal((await used.neutron('GET', '/ports?limit=1')).status, 200)
    refused(await unused.neutron('GET', '/ports?limit=1'), 401, 'Unauthorized', unauthenticated)
    refused(await used.keystone('GET', '/auth/projects'), 401, 'Unauthorized', unauthenticated)
  })

  test('3(h) validate an unknown token -> 404', async () => {
    const caller = await fresh()
    const reply = await caller.keystone('GET', '/auth/tokens', undefined, { 'x-subject-token': 'zz' })
    assert.equal(reply.status, 404)
  })

  test('3(h) system scope as admin -> 201, no project in the body', async () => {
    const account = world.simulator?.accounts.admin ?? {
      username: process.env['OSLAB_ADMIN_USERNAME'] ?? '',
      password: process.env['OSLAB_ADMIN_PASSWORD'] ?? '',
    }
    assert.equal(isReal, world.simulator === undefined)
    const admin = identity({ name: account.username, domain: Default, password: account.password })
    const reply = await token({ auth: { ...admin, scope: { system: { all: true } } } })
    assert.equal(reply.status, 201, reply.text)
    assert.equal(reply.body.token.project, undefined)
    assert.deepEqual(reply.body.token.system, { all: true })
  })
})

/** Neutron and Nova, each with something to read. */
async function endpointsOf(world: World): Promise<[string, string][]> {
  const ask: Send = world.member.keystone
  const { catalog } = (await ask('GET', '/auth/catalog')).body
  const url = (type: string): string => {
    const { endpoints } = catalog.find((service: { type: string }) => service.type === type)
    return endpoints.find((endpoint: { interface: string }) => endpoint.interface === 'public').url
  }
  return [
    [url('network'), '/v2.0/ports'],
    [url('compute'), '/servers'],
  ]
}
