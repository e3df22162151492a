// SPDX-License-Identifier: Apache-2.0

// Promise: a call without agent runs what V8 compiled for an earlier one, and never depends on it.

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, test } from 'node:test'
import { setImmediate as immediately } from 'node:timers/promises'

const root = resolve(import.meta.dirname, '..')
const release = mkdtempSync(join(tmpdir(), 'mooring-compiled-'))
after(() => rmSync(release, { recursive: true }))
mkdirSync(join(release, 'build'))
for (const part of ['plugin', 'plugin.cjs'])
  cpSync(join(root, 'build', part), join(release, 'build', part), { recursive: true })
symlinkSync(join(root, 'node_modules'), join(release, 'node_modules'))

const cache = join(release, 'build/code-cache')
const files = () => (readdirSync(cache, { recursive: true }) as string[]).map(name => join(cache, name))
const kept = () => files().filter(path => path.endsWith('-host-local-STATUS'))

function callStatus(subnet = '10.1.2.0/24', flags: readonly string[] = []) {
  const config = {
    cniVersion: '1.1.0',
    name: 'net',
    type: 'host-local',
    ipam: { type: 'host-local', subnet, dataDir: release },
  }
  const args = [...flags, join(release, 'build/plugin.cjs'), 'host-local']
  const env = { CNI_COMMAND: 'STATUS', CNI_PATH: release, MOORING_DATA_DIR: join(release, 'data') }
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    env,
    input: JSON.stringify(config),
    encoding: 'utf8',
  })
  return { status, stdout, stderr }
}
const NOBODY = 65534
const good = { status: 0, stdout: '', stderr: '' }

test('a call that failed leaves what any has to compile, one that succeeded all of its kind, and the next one takes it', () => {
  assert.equal(callStatus('nonsense').status, 1)
  assert.deepEqual(kept(), [])
  assert.equal(files().filter(path => /\/[0-9a-f]{16}$/.test(path)).length, 1)
  assert.deepEqual(callStatus(), good)
  const [path] = kept()
  const { mtimeMs, size } = statSync(path!)
  assert.deepEqual(callStatus(), good)
  assert.deepEqual(kept(), [path])
  assert.equal(statSync(path!).mtimeMs, mtimeMs)
  assert.ok(size > 50_000, `${size} bytes`)
})

test('calls with other flags of V8 keep their own, and leave what others take', () => {
  const flags = ['--no-rehash-snapshot']
  assert.deepEqual([callStatus(), callStatus(undefined, flags)], [good, good])
  const before = kept().map(path => [path, statSync(path).mtimeMs])
  assert.equal(before.length, 2)
  assert.deepEqual([callStatus(), callStatus(undefined, flags)], [good, good])
  assert.deepEqual(
    kept().map(path => [path, statSync(path).mtimeMs]),
    before,
  )
})

test('a call takes what somebody else has compiled, who built the release', t => {
  rmSync(cache, { recursive: true })
  for (const path of [release, join(release, 'build')]) chownSync(path, NOBODY, NOBODY)
  t.after(() => [release, join(release, 'build')].map(path => chownSync(path, 0, 0)))
  const { status } = spawnSync(process.execPath, [join(release, 'build/plugin.cjs'), 'loopback'], {
    env: { CNI_COMMAND: 'VERSION' },
    uid: NOBODY,
  })
  if (status !== 0) return t.skip('nobody may not run it here')
  assert.equal(callStatus('nonsense').status, 1)
  assert.equal(files().filter(path => /\/[0-9a-f]{16}$/.test(path)).length, 1)
})

for (const [what, text, changed] of [
  ['good', '1 --no-rehash-snapshot\n', new Date()],
  ['cut off', '1 --no-such-fl', new Date()],
  ['empty', '', new Date()],
  ['older than Node.js', '1 --no-such-flag\n', new Date(0)],
] as const)
  test(`mooring plugin: the flags for V8 are ${what}: the call succeeds`, t => {
    const path = join(release, 'build/plugin.cjs.flags')
    t.after(() => rmSync(path))
    cpSync(join(root, 'mooring'), join(release, 'mooring'))
    writeFileSync(path, text)
    utimesSync(path, changed, changed)
    const { status, stdout, stderr } = spawnSync(join(release, 'mooring'), ['plugin', 'loopback'], {
      env: { PATH: process.env['PATH'], CNI_COMMAND: 'VERSION' },
      encoding: 'utf8',
    })
    assert.deepEqual([status, stderr, JSON.parse(stdout).cniVersion], [0, '', '1.1.0'])
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
    const [path = ''] = kept()
    const before = readFileSync(path)
    damage(path)
    assert.deepEqual(callStatus(), good)
    assert.equal(readFileSync(path).length > before.length / 2, true)
    assert.deepEqual(callStatus(), good)
  })

test('a call that was killed while it kept something leaves a draft, and a later call removes it', async () => {
  const drafts = () => (existsSync(cache) ? files() : []).filter(path => /\/[0-9a-f]{16}[^/]*\.[^/]*$/.test(path))
  for (let tries = 0; drafts().length === 0; tries += 1) {
    assert.ok(tries < 50, 'no call could be killed in time')
    rmSync(cache, { recursive: true, force: true })
    const child = spawn(process.execPath, [join(release, 'build/plugin.cjs'), 'loopback'], {
      env: { CNI_COMMAND: 'VERSION' },
      stdio: 'ignore',
    })
    const isOver = once(child, 'exit')
    while (drafts().length === 0 && child.exitCode === null) await immediately()
    child.kill('SIGKILL')
    await isOver
  }
  assert.deepEqual(callStatus(), good)
  const [path = '', ...others] = drafts()
  assert.deepEqual([path !== '', others], [true, []], 'whoever writes it may be at it still')
  utimesSync(path, new Date(), new Date(Date.now() - 120_000))
  rmSync(kept()[0]!)
  assert.deepEqual(callStatus(), good)
  assert.deepEqual(drafts(), [])
})

test('nothing can be kept: the call succeeds', () => {
  rmSync(cache, { recursive: true })
  writeFileSync(cache, '')
  assert.deepEqual(callStatus(), good)
  rmSync(cache)
})
