// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { CloudConfigError } from './cloud.ts'
import { cloudFromConf } from './conf.ts'
import { authBody } from './keystone/token.ts'

const seed = {
  username: 'admin',
  password: 'b974a1991171',
  project: 'admin',
  domain: 'default',
  authUrl: 'http://192.0.2.250:35357/v3',
}

test('cloudFromConf() takes the openstackConf of the original plugin as it is', () => {
  const cloud = cloudFromConf(seed)
  assert.equal(cloud.authUrl, 'http://192.0.2.250:35357/v3')
  assert.deepEqual(authBody(cloud.credentials), {
    auth: {
      identity: {
        methods: ['password'],
        password: { user: { name: 'admin', domain: { id: 'default' }, password: 'b974a1991171' } },
      },
      scope: { project: { name: 'admin', domain: { id: 'default' } } },
    },
  })
  assert.match(cloud.warnings.join(), /clouds\.yaml.*"cloud": "NAME"/)
})

test('cloudFromConf() shows the password nowhere', () => {
  const cloud = cloudFromConf(seed)
  assert.doesNotMatch(inspect(cloud, { depth: 9, showHidden: true }) + JSON.stringify(cloud), /b974a1991171/)
})

test('cloudFromConf() takes application credentials by id, and by name and user', () => {
  const authUrl = 'https://keystone.example'
  const byId = cloudFromConf({ authUrl, applicationCredentialId: 'a1', applicationCredentialSecret: 's1' })
  assert.deepEqual(authBody(byId.credentials), {
    auth: { identity: { methods: ['application_credential'], application_credential: { id: 'a1', secret: 's1' } } },
  })
  const byName = cloudFromConf({
    authUrl,
    applicationCredentialName: 'n',
    applicationCredentialSecret: 's',
    username: 'u',
    domain: 'Users',
  })
  assert.deepEqual(authBody(byName.credentials), {
    auth: {
      identity: {
        methods: ['application_credential'],
        application_credential: { name: 'n', user: { name: 'u', domain: { name: 'Users' } }, secret: 's' },
      },
    },
  })
})

test('cloudFromConf() completes authUrl and refuses what cannot be one', () => {
  const urlOf = (authUrl: string) => cloudFromConf({ ...seed, authUrl }).authUrl
  assert.equal(urlOf('http://k:5000'), 'http://k:5000/v3')
  assert.equal(urlOf('http://k:5000/'), 'http://k:5000/v3')
  assert.equal(urlOf('http://k:5000/v3/'), 'http://k:5000/v3')
  assert.equal(urlOf('https://k/identity'), 'https://k/identity/v3')
  assert.equal(urlOf('https://k/identity/v3/auth/tokens'), 'https://k/identity/v3')
  assert.throws(() => urlOf('http://k:5000/v2.0'), /version 2\.0 is not supported; use version 3: http:\/\/k:5000\/v3/)
  assert.throws(() => urlOf('k:5000'), /not an http or https URL; write it as/)
  assert.throws(
    () => urlOf('http://admin:geheim@k:5000/v3'),
    (error: Error) => /carries a user name or password/.test(error.message) && !/geheim/.test(error.message),
  )
})

test('cloudFromConf() names the key that is wrong, not its value', () => {
  const refused = (change: object, message: RegExp) =>
    assert.throws(
      () => cloudFromConf({ ...seed, ...change }),
      (error: unknown) =>
        error instanceof CloudConfigError && message.test(error.message) && !/b974/.test(error.message),
    )
  refused({ password: undefined }, /"password" is missing/)
  refused({ password: 1234 }, /"password" must be a string/)
  refused({ authUrl: undefined }, /"authUrl" is missing/)
  refused({ username: '' }, /"username" is missing/)
  refused({ passwort: 'b974a1991171' }, /unknown key "passwort"/)
  refused({ interface: 'outer' }, /unknown interface "outer"; use public, internal or admin/)
  assert.throws(() => cloudFromConf('text'), /must be an object/)
})
