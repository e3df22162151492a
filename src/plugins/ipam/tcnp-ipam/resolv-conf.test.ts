// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseResolvConf } from './resolv-conf.ts'

test('parseResolvConf() reads all four keys, without comments', () => {
  const text =
    '# made by hand\nnameserver 10.0.0.2\nnameserver 10.0.0.3 ; second\nsearch a.example b.example\noptions ndots:5\n'
  assert.deepEqual(parseResolvConf(text), {
    nameservers: ['10.0.0.2', '10.0.0.3'],
    search: ['a.example', 'b.example'],
    options: ['ndots:5'],
  })
})

test('parseResolvConf() of nothing is nothing', () => {
  assert.deepEqual(parseResolvConf('\n \nnameserver\n'), {})
})
