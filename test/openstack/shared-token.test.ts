// SPDX-License-Identifier: Apache-2.0

// Processes that live for one call share one token. Loopback only, no root.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { portOf, startFake } from './fake.ts'

const program = join(import.meta.dirname, 'one-call.ts')

test('processes that start at once make one login, and one more when the token is refused', async () => {
  await using fake = await startFake(request => request.answer(200, { port: portOf('p1') }))
  const directory = mkdtempSync(join(tmpdir(), 'mooring-shared-'))
  const cache = join(directory, 'tokens', 'one.json')
  try {
    const all = () =>
      Promise.all(Array.from({ length: 8 }, () => promisify(execFile)(process.execPath, [program, fake.url, cache])))
    await all()
    assert.equal(fake.logins(), 1)
    assert.equal(fake.log().length, 8)
    fake.validToken = 'revoked'
    await all()
    assert.equal(fake.logins(), 2)
    assert.doesNotMatch(readFileSync(cache, 'utf8'), /password/)
  } finally {
    rmSync(directory, { recursive: true })
  }
})
