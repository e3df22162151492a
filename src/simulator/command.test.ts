// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { runSimulator } from './command.ts'

test('runSimulator(): who had an older clouds.yaml open does not read the passwords of the new one', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-simulator-test-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const [cloudsYaml, demoJson] = [join(directory, 'clouds.yaml'), join(directory, 'demo.json')]
  writeFileSync(cloudsYaml, 'clouds: {}', { mode: 0o644 })
  const reader = openSync(cloudsYaml, 'r')
  t.after(() => closeSync(reader))
  await runSimulator({ cloudsYaml, demoJson }, () => {}, AbortSignal.abort())
  assert.equal(readFileSync(reader, 'utf8'), 'clouds: {}')
  assert.match(readFileSync(cloudsYaml, 'utf8'), /password: /)
  assert.equal(statSync(cloudsYaml).mode & 0o777, 0o600)
  assert.deepEqual(readdirSync(directory).sort(), ['clouds.yaml', 'demo.json'])
})
