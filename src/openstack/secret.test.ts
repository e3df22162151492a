// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { format, inspect } from 'node:util'
import { redact, secret } from './secret.ts'

test('secret() shows itself to reveal() only', () => {
  const hidden = secret('geheim-1234')
  const seen = [
    String(hidden),
    `${hidden}`,
    JSON.stringify({ hidden }),
    inspect(hidden),
    inspect({ deep: { hidden } }, { depth: 9, showHidden: true, getters: true }),
    format('%s %o %j %d', hidden, hidden, hidden, hidden),
    JSON.stringify(Object.entries({ ...hidden })),
    Object.keys(hidden).join(),
  ]
  for (const text of seen) assert.doesNotMatch(text, /geheim/)
  assert.equal(JSON.stringify({ hidden }), '{"hidden":"***"}')
  assert.equal(hidden.reveal(), 'geheim-1234')
})

test('redact() blanks secrets in foreign text, and leaves short words alone', () => {
  assert.equal(redact('"geheim" is not of type; geheim', [secret('geheim')]), '"***" is not of type; ***')
  assert.equal(redact('no route', [secret('no'), secret('')]), 'no route')
})
