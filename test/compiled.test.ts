// SPDX-License-Identifier: Apache-2.0

// Promise: a call without agent runs what V8 compiled for an earlier one, and never depends on it.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, test } from 'node:test'

const root = resolve(import.meta.dirname, '..')
const release = mkdtempSync(join(tmpdir(), 'mooring-compiled-'))
after(() => rmSync(release, { recursive: true }))
mkdirSync(join(release, 'build'))
for (const part of ['plugin', 'plugin.cjs'])
  cpSync(join(root, 'build', part), join(release, 'build', part), { recursive: true })
symlinkSync(join(root, 'node_modules'), join(release, 'node_modules'))

const cache = join(release, 'build/code-cache')
const kept = () => readdirSync(cache).filter(name => name.endsWith('-host-local-STATUS'))

function callStatus(subnet = '10.1.2.0/24') {
  const config = {
    cniVersion: '1.1.0',
    name: 'net',
    type: 'host-local',
    ipam: { type: 'host-local', subnet, dataDir: release },
  }
  const args = [join(release, 'build/plugin.cjs'), 'host-local']
  const env = { CNI_COMMAND: 'STATUS', CNI_PATH: release, MOORING_DATA_DIR: join(release, 'data') }
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    env,
    input: JSON.stringify(config),
    encoding: 'utf8',
  })
  return { status, stdout, stderr }
}
const good = { status: 0, stdout: '', stderr: '' }

test('a call that failed leaves what any has to compile, one that succeeded all of its kind, and the next one takes it', () => {
  assert.equal(callStatus('nonsense').status, 1)
  assert.deepEqual(kept(), [])
  assert.equal(readdirSync(cache).filter(name => /^[0-9a-f]{16}$/.test(name)).length, 1)
  assert.deepEqual(callStatus(), good)
  const [name] = kept()
  const { mtimeMs, size } = statSync(join(cache, name!))
  assert.deepEqual(callStatus(), good)
  assert.deepEqual(kept(), [name])
  assert.equal(statSync(join(cache, name!)).mtimeMs, mtimeMs)
  assert.ok(size > 50_000, `${size} bytes`)
})

const damages: readonly (readonly [how: string, damage: (path: string) => void])[] = [
  ['cut off', path => truncateSync(path, statSync(path).size >> 1)],
  ['empty', path => truncateSync(path, 0)],
  ['of zeros', path => writeFileSync(path, new Uint8Array(statSync(path).size))],
  ['no such thing', path => writeFileSync(path, 'some text')],
]
for (const [how, damage] of damages)
  test(`what was kept is ${how}: the call succeeds and keeps it again`, () => {
    assert.deepEqual(callStatus(), good)
    const path = join(cache, kept()[0]!)
    const before = readFileSync(path)
    damage(path)
    assert.deepEqual(callStatus(), good)
    assert.equal(readFileSync(path).length > before.length / 2, true)
    assert.deepEqual(callStatus(), good)
  })

test('nothing can be kept: the call succeeds', () => {
  rmSync(cache, { recursive: true })
  writeFileSync(cache, '')
  assert.deepEqual(callStatus(), good)
  rmSync(cache)
})
