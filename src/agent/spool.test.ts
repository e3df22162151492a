// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { hasNewEntries, workOffSpool } from './spool.ts'
import { encodeRequest } from './wire.ts'

const NOTHING = Buffer.from([16, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])

function spoolWith(t: TestContext, ...names: string[]): string {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-spool-'))
  t.after(() => rmSync(directory, { recursive: true }))
  for (const name of names) writeFileSync(join(directory, name), NOTHING)
  return directory
}
const ago = (ms: number) => `${Date.now() - ms}000000`

test('workOffSpool() does the oldest first, and tells when it was promised', async t => {
  const [old, young] = [`${ago(5000)}-7`, `${ago(1000)}-3`]
  const directory = spoolWith(t, young, old)
  const seen: number[] = []
  const left = await workOffSpool(
    directory,
    new Set(),
    async (_, promisedMs) => {
      seen.push(promisedMs)
      return 'done'
    },
    assert.fail,
  )
  assert.equal(left, 0)
  assert.deepEqual(
    seen,
    [old, young].map(name => Number(name.slice(0, 13))),
  )
  assert.deepEqual(readdirSync(directory), [])
})

test('workOffSpool() keeps what failed for later, and does not call it new', async t => {
  const directory = spoolWith(t, `${ago(0)}-1`)
  const tried = new Set<string>()
  assert.equal(await workOffSpool(directory, tried, async () => 'later', assert.fail), 1)
  assert.equal(hasNewEntries(directory, tried), false)
  assert.equal(await workOffSpool(directory, tried, async () => 'done', assert.fail), 0)
  assert.equal(tried.size, 0)
})

test('workOffSpool() sets aside what can never succeed', async t => {
  const name = `${ago(0)}-1`
  const directory = spoolWith(t, name)
  writeFileSync(join(directory, `${ago(0)}-2`), 'no request')
  const bad: string[] = []
  await workOffSpool(
    directory,
    new Set(),
    async () => ({ never: 'error 7' }),
    file => bad.push(file),
  )
  assert.equal(bad.length, 2)
  assert.ok(readdirSync(directory).every(each => each.endsWith('.bad')))
  assert.equal(hasNewEntries(directory, new Set()), false)
})

test('workOffSpool() goes on where it cannot set aside, and does not call the entry new', async t => {
  const [bad, good] = [`${ago(20)}-1`, `${ago(10)}-2`]
  const directory = spoolWith(t, bad, good)
  mkdirSync(join(directory, `${bad}.draft`)) // stands for a full disk: no file can be written there
  const tried = new Set<string>()
  const told: unknown[] = []
  const outcomes = [{ never: new Error('no JSON') }, 'done' as const]
  assert.equal(
    await workOffSpool(
      directory,
      tried,
      async () => outcomes.shift()!,
      (_, error) => told.push(error),
    ),
    1,
  )
  assert.match(String(told), /no JSON.*EISDIR/)
  assert.deepEqual(readdirSync(directory).sort(), [bad, `${bad}.draft`])
  assert.equal(hasNewEntries(directory, tried), false)
})

test('workOffSpool() sets nothing aside that is secret', async t => {
  const directory = spoolWith(t)
  const put = (name: string, stdin: string) =>
    writeFileSync(
      join(directory, name),
      encodeRequest({
        type: 'veth-route',
        env: { CNI_CONTAINERID: 'c1', HTTPS_PROXY: 'http://me:hunter2@proxy' },
        stdin: new TextEncoder().encode(stdin),
      }),
    )
  put(`${ago(0)}-1`, '{"name":"net","ipam":{"openstackConf":{"username":"demo","password":"hunter2"}}}')
  put(`${ago(0)}-2`, '{"name":"net","password":"hunter2"')
  writeFileSync(join(directory, `${ago(0)}-3`), 'password: hunter2')
  await workOffSpool(
    directory,
    new Set(),
    async () => ({ never: 'error 7' }),
    () => {},
  )
  const kept = readdirSync(directory).map(name => readFileSync(join(directory, name), 'latin1'))
  assert.equal(kept.length, 3)
  assert.ok(kept.every(text => !text.includes('hunter2')))
  const whole = kept.find(text => text.includes('demo'))!
  assert.ok(whole.includes('CNI_CONTAINERID=c1') && whole.includes('"name":"net"'), whole)
})

test('workOffSpool() removes the drafts of shims that were killed long ago', async t => {
  const [old, young] = [`${ago(120_000)}-7.draft`, `${ago(1000)}-3.draft`]
  const directory = spoolWith(t, young, old)
  await workOffSpool(directory, new Set(), () => assert.fail(), assert.fail)
  assert.deepEqual(readdirSync(directory), [young])
})
