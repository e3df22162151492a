// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { takePlace } from './state.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

test('takePlace(): a directory below /run that is somebody else’s is left as it is', { skip }, t => {
  const name = `mooring-test-place-${process.pid}`
  mkdirSync(`/run/${name}`)
  t.after(() => rmSync(`/run/${name}`, { recursive: true }))
  const isRefused = () =>
    assert.throws(() => takePlace(name), /Cannot use \/run\/mooring-test-place-\d+: .* none of a demo/)
  isRefused()
  writeFileSync(`/run/${name}/theirs`, '')
  isRefused()
  assert.deepEqual(readdirSync(`/run/${name}`), ['theirs'])
})

test('takePlace(): a place is one’s own until it is given up, and leaves no directory', { skip }, () => {
  const name = `mooring-test-place-${process.pid}`
  {
    using place = takePlace(name)
    writeFileSync(place.file('ours'), '')
    assert.throws(() => takePlace(name), /another demo called .* is running/)
  }
  assert.equal(existsSync(`/run/${name}`), false)
})
