// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CniError } from './error.ts'
import { formatJson, lookup, parseJson, parseJsonObject } from './json.ts'

const bytes = (text: string) => new TextEncoder().encode(text)
const failure = (text: string): CniError => {
  try {
    parseJson(bytes(text), 'input')
  } catch (error) {
    assert.ok(error instanceof CniError)
    return error
  }
  throw new assert.AssertionError({ message: `no error for ${text.slice(0, 40)}` })
}

test('parseJson() and formatJson() keep numbers that a double cannot hold', () => {
  for (const text of [
    '12345678901234567890',
    '-9007199254740993',
    '1e999',
    '0.12345678901234567890',
    '[1,{"x":9007199254740993}]',
  ])
    assert.equal(formatJson(parseJson(bytes(text), 'input')), text)
  assert.equal(parseJson(bytes('9007199254740991'), 'input'), 9007199254740991)
  assert.equal(parseJson(bytes('1.5'), 'input'), 1.5)
})

test('parseJson() keeps __proto__ as a key and touches no prototype', () => {
  const value = parseJsonObject(
    bytes('{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}'),
    'input',
  )
  assert.deepEqual(Object.keys(value), ['__proto__', 'constructor'])
  assert.equal(({} as Record<string, unknown>)['polluted'], undefined)
  assert.equal(
    formatJson({ ...value, a: 1 }),
    '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}},"a":1}',
  )
})

test('parseJson() refuses with code 6 and tells the place', () => {
  const cases: [string, RegExp][] = [
    ['', /input: it is empty/],
    ['{', /it ends too early/],
    ['{"a":"x', /it ends too early/],
    ['{}x', /line 1 column 3/],
    ['{"a":1,\n "b":}', /line 2 column 6/],
    ['\ufeff{}', /byte order mark/],
    ['['.repeat(10_000) + ']'.repeat(10_000), /nested more than 512 levels/],
    [`"${'x'.repeat(1024 * 1024)}"`, /1048578 bytes are more than 1048576/],
  ]
  for (const [text, message] of cases) {
    const error = failure(text)
    assert.equal(error.code, 6)
    assert.match(error.message, message)
  }
})

test('parseJson() quotes nothing of what it refuses', () => {
  for (const text of [
    '{"password":hunter2}',
    '{"password":"hunter2","b":}',
    '{"password" "hunter2"}',
    '{"password":"hunter2',
  ])
    assert.doesNotMatch(failure(text).message, /hunter2/)
})

test('parseJson() takes brackets inside of texts for text', () => {
  assert.equal(parseJson(bytes(formatJson('\\"['.repeat(1000))), 'input'), '\\"['.repeat(1000))
})

test('parseJsonObject() refuses other values', () => {
  for (const text of ['[]', 'null', '1', '"x"', '12345678901234567890'])
    assert.throws(() => parseJsonObject(bytes(text), 'input'), { code: 6, message: /not an object/ })
})

test('lookup() finds a key in any case, the last one of several', () => {
  assert.equal(lookup({ Name: 'a', name: 'b' }, 'name'), 'b')
  assert.equal(lookup({ name: 'a', NAME: 'b' }, 'Name'), 'b')
  assert.equal(lookup({ other: 1 }, 'name'), undefined)
})
