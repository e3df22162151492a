// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { allowsVerb, checkVersion, compareVersions, isSupported, supportedVersions } from './versions.ts'

test('supportedVersions are in ascending order', () => {
  for (const [index, version] of supportedVersions.slice(1).entries())
    assert.ok(compareVersions(supportedVersions[index]!, version) < 0)
})

test('compareVersions() compares numbers, takes a missing part for 0 and none for 0.1.0', () => {
  assert.ok(compareVersions('0.10.0', '0.9.0') > 0)
  assert.equal(compareVersions('1.0', '1.0.0'), 0)
  assert.equal(compareVersions('', '0.1.0'), 0)
})

test('compareVersions() refuses with code 6 what is no version', () => {
  for (const text of ['abc', 'v1.0.0', '1.0.0.0', '1..0', '-1', '99999999999.0.0'])
    assert.throws(() => compareVersions(text, '1.0.0'), { code: 6 })
})

test('allowsVerb() knows when CHECK, GC and STATUS came', () => {
  assert.equal(allowsVerb('0.3.1', 'CHECK'), false)
  assert.equal(allowsVerb('0.4.0', 'CHECK'), true)
  assert.equal(allowsVerb('1.0.0', 'GC'), false)
  assert.equal(allowsVerb('1.1.0', 'STATUS'), true)
  assert.equal(allowsVerb('0.1.0', 'DEL'), true)
})

test('isSupported() wants the very text', () => {
  for (const text of ['1.0', 'v1.0.0', '1.0.0 ', '9.9.9', '']) assert.equal(isSupported(text), false)
})

test('checkVersion() names what was asked and what is supported', () => {
  assert.throws(() => checkVersion('9.9.9', 'ADD'), {
    code: 1,
    message: 'incompatible CNI versions',
    details: 'config is "9.9.9", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]',
  })
  assert.throws(() => checkVersion('0.3.1', 'CHECK'), { code: 1, message: 'config version does not allow CHECK' })
  assert.throws(() => checkVersion('abc', 'CHECK'), { code: 6 })
  assert.throws(() => checkVersion('abc', 'ADD'), { code: 1 })
})
