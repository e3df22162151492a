// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tryParseIp } from '#base'
import {
  anyObject,
  anything,
  array,
  boolean,
  checked,
  closedObject,
  decode,
  integer,
  object,
  oneOf,
  optional,
  parsed,
  record,
  string,
} from './decode.ts'
import { parseJson } from './json.ts'
import type { JsonValue } from './plugin.ts'

const json = (text: string): JsonValue => parseJson(new TextEncoder().encode(text), 'input')

const config = object({
  type: string,
  mtu: optional(integer(0, 65535), 0),
  ipMasq: optional(boolean, false),
  mode: optional(oneOf('l2', 'l3')),
  gateway: optional(parsed(tryParseIp, 'an IP address')),
  routes: optional(array(object({ dst: string })), []),
  labels: optional(record(string)),
  ipam: optional(anyObject),
  extra: optional(anything),
})

test('object() reads keys in any case, the last duplicate wins, unknown keys are ignored', () => {
  const read = decode(config, json('{"Type":"a","TYPE":"b","MTU":1400,"ipmasq":true,"nobody":{}}'))
  assert.equal(read.type, 'b')
  assert.equal(read.mtu, 1400)
  assert.equal(read.ipMasq, true)
})

test('optional() takes null for missing and gives the fallback', () => {
  const read = decode(config, json('{"type":"a","mtu":null,"mode":null}'))
  assert.equal(read.mtu, 0)
  assert.equal(read.mode, undefined)
  assert.deepEqual(read.routes, [])
})

test('decode() refuses with code 7 and names the key', () => {
  const cases: [string, string][] = [
    ['{}', '"type" is missing, want a string'],
    ['{"type":5}', '"type" is a number, want a string'],
    ['{"type":"a","mtu":"1500"}', '"mtu" is a string, want a number'],
    ['{"type":"a","mtu":1.5}', '"mtu" is 1.5, want a whole number from 0 to 65535'],
    ['{"type":"a","mtu":-1}', '"mtu" is -1, want a whole number from 0 to 65535'],
    ['{"type":"a","mtu":12345678901234567890}', '"mtu" is 12345678901234567890, want a whole number from 0 to 65535'],
    ['{"type":"a","ipMasq":1}', '"ipMasq" is a number, want true or false'],
    ['{"type":"a","mode":"l4"}', '"mode" is "l4", want "l2" or "l3"'],
    ['{"type":"a","gateway":"010.0.0.1"}', '"gateway" is "010.0.0.1", want an IP address'],
    ['{"type":"a","routes":{}}', '"routes" is an object, want an array'],
    ['{"type":"a","routes":[{"dst":"x"},{}]}', '"routes[1].dst" is missing, want a string'],
    ['{"type":"a","routes":[null]}', '"routes[0]" is missing, want an object'],
    ['{"type":"a","labels":{"x":1}}', '"labels.x" is a number, want a string'],
    ['{"type":"a","ipam":[]}', '"ipam" is an array, want an object'],
    ['[]', 'it is an array, want an object'],
  ]
  for (const [text, reason] of cases)
    assert.throws(() => decode(config, json(text)), {
      code: 7,
      message: `Cannot read network configuration: ${reason}`,
    })
})

test('decode() does not tell a value of the wrong type, which may be a secret', () => {
  const secret = object({ password: string })
  assert.throws(
    () => decode(secret, json('{"password":20231126}')),
    error => error instanceof Error && !error.message.includes('20231126'),
  )
})

test('checked() refuses with the reason that its condition gives', () => {
  const even = object({ n: checked(integer(), n => (n % 2 === 0 ? undefined : `is ${n}, want an even number`)) })
  assert.equal(decode(even, json('{"n":4}')).n, 4)
  assert.throws(() => decode(even, json('{"n":3}')), { message: /"n" is 3, want an even number/ })
})

test('closedObject() refuses a key that is not in its table, and takes the others in any case', () => {
  const closed = object({ own: closedObject({ mode: optional(string), max: optional(integer()) }) })
  assert.deepEqual(closed(JSON.parse('{"own":{"MODE":"a"}}'), ''), { own: { mode: 'a', max: undefined } })
  assert.throws(
    () => closed(JSON.parse('{"own":{"mode":"a","mxa":1}}'), ''),
    /"own" has the unknown key "mxa", known are mode, max/,
  )
})

test('object() is not fooled by __proto__', () => {
  assert.equal(decode(config, json('{"type":"a","__proto__":{"mtu":9}}')).mtu, 0)
})
