// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { candidates } from './cloudfiles.ts'
import { listClouds, loadCloud } from './clouds.ts'
import { authBody } from './keystone/token.ts'

/** A home and a working directory with the files given, read as if nothing else were on the machine. */
function machine(files: Record<string, string>) {
  const root = mkdtempSync(join(tmpdir(), 'mooring-clouds-'))
  for (const directory of ['home', 'cwd']) mkdirSync(join(root, directory))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true })
    writeFileSync(join(root, name), text, { mode: 0o600 })
  }
  const env: Record<string, string | undefined> = { XDG_CONFIG_DIRS: join(root, 'xdg') }
  return {
    root,
    where: { env, cwd: join(root, 'cwd'), home: join(root, 'home') },
    [Symbol.dispose]: () => rmSync(root, { recursive: true }),
  }
}

const one = `
clouds:
  one:
    auth: {auth_url: "http://k:5000/v3", username: u, password: pass-word, project_name: p, user_domain_name: D, project_domain_id: d}
    region_name: R1
`

test('candidates() follows the order of the clients', () => {
  const paths = candidates('clouds', { env: { OS_CLIENT_CONFIG_FILE: '/x/c.yaml' }, cwd: '/w', home: '/h' })
  assert.deepEqual(paths.slice(0, 5), [
    '/x/c.yaml',
    '/w/clouds.yaml',
    '/w/clouds.yml',
    '/w/clouds.json',
    '/h/.config/openstack/clouds.yaml',
  ])
  assert.deepEqual(
    paths.slice(-3),
    ['yaml', 'yml', 'json'].map(end => `/etc/openstack/clouds.${end}`),
  )
  assert.ok(paths.includes('/etc/xdg/openstack/clouds.yaml'))
  const moved = candidates('secure', {
    env: { XDG_CONFIG_HOME: '/c', OS_CLIENT_SECURE_FILE: '/s' },
    cwd: '/w',
    home: '/h',
  })
  assert.equal(moved[0], '/s')
  assert.ok(moved.includes('/c/openstack/secure.yaml'))
})

test('loadCloud() reads a password login', async () => {
  using on = machine({ 'home/.config/openstack/clouds.yaml': one })
  const cloud = await loadCloud('one', on.where)
  assert.deepEqual(authBody(cloud.credentials), {
    auth: {
      identity: {
        methods: ['password'],
        password: { user: { name: 'u', domain: { name: 'D' }, password: 'pass-word' } },
      },
      scope: { project: { name: 'p', domain: { id: 'd' } } },
    },
  })
  assert.equal(cloud.region, 'R1')
  assert.equal(cloud.interface, 'public')
  assert.deepEqual(cloud.warnings, [])
  assert.equal((await loadCloud(undefined, on.where)).name, 'one', 'the only cloud needs no name')
})

test('loadCloud() lays secure.yaml over clouds.yaml, and the cloud over its profile', async () => {
  using on = machine({
    'cwd/clouds.yaml': `
clouds:
  two:
    profile: vendor
    auth: {username: u, project_name: p, auth_url: "https://{region_name}.example:5000"}
    interface: internal
`,
    'home/.config/openstack/secure.yaml': 'clouds: {two: {auth: {password: hidden-one}}}',
    'home/.config/openstack/clouds-public.yaml': `
public-clouds:
  vendor:
    auth: {auth_url: "https://ignored", project_domain_name: Corp, user_domain_name: Corp}
    regions: [east, {name: west, values: {network_endpoint_override: "https://net.west", interface: admin}}]
    interface: public
    cacert: ca.pem
`,
  })
  const east = await loadCloud('two', on.where)
  assert.equal(east.authUrl, 'https://east.example:5000/v3')
  assert.equal(east.interface, 'internal')
  assert.equal(east.region, 'east')
  assert.equal(east.tls.caFile, join(on.root, 'cwd', 'ca.pem'))
  assert.match(JSON.stringify(authBody(east.credentials)), /"name":"Corp".*hidden-one/)
  const west = await loadCloud('two', { ...on.where, region: 'west' })
  assert.deepEqual([west.region, west.interface, west.endpoints.network], ['west', 'admin', 'https://net.west'])
  await assert.rejects(loadCloud('two', { ...on.where, region: 'north' }), /it has east, west; choose one of these/)
})

test('loadCloud() keeps passwords as they are written', async () => {
  for (const text of ['0123', '1e5', '2026-01-01', '12345678901234567890123', '1_000', '0x1F']) {
    using on = machine({ 'cwd/clouds.yaml': one.replace('pass-word', text) })
    const { credentials } = await loadCloud('one', on.where)
    assert.equal(credentials.kind === 'password' && credentials.password.reveal(), text)
  }
})

test('loadCloud() reads application credentials', async () => {
  const yaml = (type: string) => `
clouds:
  app:
    ${type}
    auth: {auth_url: "https://k", application_credential_id: a1, application_credential_secret: s-1}
`
  for (const type of ['auth_type: v3applicationcredential', 'region_name: R']) {
    using on = machine({ 'cwd/clouds.yml': yaml(type) })
    const { credentials } = await loadCloud('app', on.where)
    assert.deepEqual(authBody(credentials), {
      auth: { identity: { methods: ['application_credential'], application_credential: { id: 'a1', secret: 's-1' } } },
    })
  }
  using on = machine({ 'cwd/clouds.yml': yaml('auth_type: v3oidcpassword') })
  await assert.rejects(loadCloud('app', on.where), /auth_type "v3oidcpassword" is not supported; use one of password/)
})

test('loadCloud() understands old names of keys, ids, and domains given once', async () => {
  using on = machine({
    'cwd/clouds.json': JSON.stringify({
      clouds: {
        old: {
          auth: { 'auth-url': 'http://k/v3', user_id: 'U', password: 'x-x-x', tenant_name: 'T', domain_name: 'Dom' },
          endpoint_type: 'internalURL',
          network_endpoint_type: 'adminURL',
          compute_endpoint_override: 'http://n',
          verify: false,
        },
      },
    }),
  })
  const cloud = await loadCloud('old', on.where)
  assert.deepEqual(authBody(cloud.credentials), {
    auth: {
      identity: { methods: ['password'], password: { user: { id: 'U', password: 'x-x-x' } } },
      scope: { project: { name: 'T', domain: { name: 'Dom' } } },
    },
  })
  assert.deepEqual(
    [cloud.interface, cloud.interfaces, cloud.endpoints],
    ['internal', { network: 'admin' }, { compute: 'http://n' }],
  )
  assert.equal(cloud.tls.insecure, true)
  assert.match(cloud.warnings.join(), /does not verify certificates/)
})

test('loadCloud() takes OS_CLOUD, and the environment where it describes a cloud', async () => {
  using on = machine({ 'cwd/clouds.yaml': `${one}  other: {auth: {auth_url: "http://o", username: u, password: p}}\n` })
  await assert.rejects(
    loadCloud(undefined, on.where),
    /Cannot choose a cloud: .*has one, other; name one, or set OS_CLOUD/,
  )
  const { env, ...where } = on.where
  assert.equal((await loadCloud(undefined, { ...where, env: { ...env, OS_CLOUD: 'other' } })).authUrl, 'http://o/v3')
  const cloud = await loadCloud(undefined, {
    ...where,
    env: {
      ...env,
      OS_AUTH_URL: 'http://e/v3',
      OS_USERNAME: 'u',
      OS_PASSWORD: 'p',
      OS_PROJECT_ID: 'P',
      OS_REGION_NAME: 'RE',
    },
  })
  assert.deepEqual([cloud.name, cloud.authUrl, cloud.region], ['envvars', 'http://e/v3', 'RE'])
})

test('loadCloud() lists the files tried and the clouds found', async () => {
  using on = machine({ 'home/.config/openstack/clouds.yaml': one })
  await assert.rejects(
    loadCloud('nope', on.where),
    (error: Error) =>
      /Cannot find cloud "nope": .*clouds\.yaml has one/.test(error.message) &&
      error.message.includes(join(on.root, 'cwd', 'clouds.yaml')),
  )
  using empty = machine({})
  await assert.rejects(
    loadCloud('nope', empty.where),
    /there is no clouds\.yaml; tried before: .*\.config\/openstack\/clouds\.yaml/,
  )
  await assert.rejects(loadCloud('constructor', on.where), /Cannot find cloud "constructor"/)
  assert.deepEqual((await listClouds(on.where)).names, ['one'])
})

test('loadCloud() warns of a readable password and of a named file that is not used', async () => {
  using on = machine({ 'cwd/clouds.yaml': one })
  chmodSync(join(on.root, 'cwd', 'clouds.yaml'), 0o644)
  const env = { ...on.where.env, OS_CLIENT_CONFIG_FILE: '/nowhere/clouds.yaml' }
  const { warnings } = await loadCloud('one', { ...on.where, env })
  assert.match(warnings.join('\n'), /every user may read it: chmod 600/)
  assert.match(warnings.join('\n'), /OS_CLIENT_CONFIG_FILE names "\/nowhere\/clouds.yaml"/)
})

test('loadCloud() reports a broken file by line, without quoting it', async () => {
  const broken = [
    one.replace('username: u', 'username: [u'),
    one.replace('password:', 'password: "x'),
    `${one}\t- pass-word`,
  ]
  for (const text of broken) {
    using on = machine({ 'cwd/clouds.yaml': text })
    await assert.rejects(
      loadCloud('one', on.where),
      (error: Error) => /at line \d+$/.test(error.message) && !/pass-word/.test(error.message + error.stack),
    )
  }
  using json = machine({ 'cwd/clouds.json': '{"clouds": {"one": {"password": "pass-word"' })
  await assert.rejects(loadCloud('one', json.where), (error: Error) => !/pass-word/.test(String(error.stack)))
})

test('loadCloud() names the key that is missing', async () => {
  for (const [key, text] of [
    ['auth_url', one.replace('auth_url: "http://k:5000/v3", ', '')],
    ['password', one.replace('password: pass-word, ', '')],
    ['username', one.replace('username: u, ', '')],
  ] as const) {
    using on = machine({ 'cwd/clouds.yaml': text })
    await assert.rejects(loadCloud('one', on.where), new RegExp(`"${key}" is missing; add "${key}" to its "auth"`))
  }
})
