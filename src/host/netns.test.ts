// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import {
  closeSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { identifyNetns, isNetns, openOwnNetns, tryOpenNetns } from './netns.ts'
import { findNetnsPath } from './netns-paths.ts'

const scratch = mkdtempSync(join(tmpdir(), 'mooring-netns-'))
after(() => rmSync(scratch, { recursive: true }))
const own = `/proc/${process.pid}/ns/net`

test('tryOpenNetns: opens /proc/PID/ns/net and links to it', () => {
  const link = join(scratch, 'link')
  symlinkSync(own, link)
  for (const path of [own, link, '/proc/self/ns/net']) {
    const fd = tryOpenNetns(path)
    assert.ok(fd !== undefined, path)
    assert.equal(`net:[${fstatSync(fd).ino}]`, readlinkSync(own))
    closeSync(fd)
  }
})

test('tryOpenNetns: nothing where the path leads nowhere or to something else', () => {
  const paths = Object.fromEntries(
    ['file', 'directory', 'dangling', 'loop', 'fifo'].map(name => [name, join(scratch, name)]),
  )
  writeFileSync(paths['file']!, '')
  mkdirSync(paths['directory']!)
  symlinkSync(join(scratch, 'nothing'), paths['dangling']!)
  symlinkSync(paths['loop']!, paths['loop']!)
  spawnSync('mkfifo', [paths['fifo']!])
  const more = [join(scratch, 'none'), join(paths['file']!, 'below'), '/proc/4194305/ns/net', '/dev/null']
  for (const path of [...Object.values(paths), ...more]) assert.equal(tryOpenNetns(path), undefined, path)
})

test('isNetns: false for any other file', () => {
  const fd = openSync('/dev/null', 'r')
  assert.equal(isNetns(fd), false)
  closeSync(fd)
})

test('identifyNetns: the same namespace has one identity, by whatever path', () => {
  const [first, second] = [openOwnNetns(), tryOpenNetns(own)!]
  assert.deepEqual(identifyNetns(first), identifyNetns(second))
  closeSync(first)
  closeSync(second)
})

test('findNetnsPath: finds a namespace by a process in it, for each of many that ask at once', async () => {
  const child = spawn('sleep', ['60'])
  try {
    const { ino } = statSync(own)
    const found = await Promise.all([ino, 1, ino].map(findNetnsPath))
    assert.equal(found[1], undefined)
    for (const path of [found[0]!, found[2]!]) assert.equal(statSync(path).ino, ino)
  } finally {
    child.kill()
  }
})
