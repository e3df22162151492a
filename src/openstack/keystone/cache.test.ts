// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { cloudFromConf } from '../conf.ts'
import { secret } from '../secret.ts'
import { createTokenCache } from './cache.ts'
import type { Token } from './token.ts'

const conf = { username: 'u', password: 'top-secret', project: 'p', authUrl: 'http://k:5000' }
const token = (): Token => ({
  id: secret('gAAAA-token'),
  receivedAtMs: Date.now(),
  expiresAtMs: Date.now() + 3_600_000,
  user: { id: 'u1', name: 'u' },
  project: { id: 'p1', name: 'p' },
  roles: ['member'],
  catalog: [
    { type: 'network', endpoints: [{ interface: 'public', url: 'http://n', region_id: 'R' }] },
    { type: 'image', endpoints: [] },
  ],
})

function directory() {
  const path = mkdtempSync(join(tmpdir(), 'mooring-token-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) }
}

test('createTokenCache() keeps a token for the same credentials, private and without the password', async () => {
  using root = directory()
  const file = join(root.path, 'tokens', 'token.json')
  const cloud = cloudFromConf(conf)
  const kept = token()
  await createTokenCache(file, cloud).write(kept)
  const found = await createTokenCache(file, cloudFromConf({ ...conf })).read()
  assert.equal(found?.id.reveal(), 'gAAAA-token')
  assert.deepEqual([found?.expiresAtMs, found?.project, found?.roles], [kept.expiresAtMs, kept.project, kept.roles])
  assert.deepEqual(
    found?.catalog.map(entry => entry.type),
    ['network'],
  )
  assert.equal(statSync(file).mode & 0o777, 0o600)
  assert.equal(statSync(join(root.path, 'tokens')).mode & 0o777, 0o700)
  assert.deepEqual(readdirSync(join(root.path, 'tokens')), ['token.json'])
  assert.doesNotMatch(readFileSync(file, 'utf8'), /top-secret/)
})

test('createTokenCache() gives a token to nobody else', async () => {
  using root = directory()
  const file = join(root.path, 'token.json')
  await createTokenCache(file, cloudFromConf(conf)).write(token())
  for (const change of [{ password: 'other' }, { username: 'v' }, { project: 'q' }, { authUrl: 'http://l:5000' }])
    assert.equal(
      await createTokenCache(file, cloudFromConf({ ...conf, ...change })).read(),
      undefined,
      JSON.stringify(change),
    )
})

test('createTokenCache() removes what a killed writer left', async () => {
  using root = directory()
  const file = join(root.path, 'token.json')
  for (const name of ['token.json.1.old', 'token.json.2.new', 'foreign.json']) writeFileSync(join(root.path, name), '')
  for (const name of ['token.json.1.old', 'foreign.json']) utimesSync(join(root.path, name), 1, 1)
  await createTokenCache(file, cloudFromConf(conf)).write(token())
  assert.deepEqual(readdirSync(root.path).sort(), ['foreign.json', 'token.json', 'token.json.2.new'])
})

test('createTokenCache() reads nothing from what is no cache of ours', async () => {
  using root = directory()
  const file = join(root.path, 'token.json')
  const cache = createTokenCache(file, cloudFromConf(conf))
  assert.equal(await cache.read(), undefined)
  await cache.write(token())
  const whole = readFileSync(file, 'utf8')
  for (const text of ['', '{', '[]', whole.slice(0, -9), whole.replace('"version":1', '"version":2')]) {
    writeFileSync(file, text)
    assert.equal(await cache.read(), undefined, text.slice(0, 20))
  }
})
