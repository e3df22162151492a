// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseResolvConf } from './resolv-conf.ts'

test('parseResolvConf() adds lines of a kind up and leaves out what it does not know (HL-14)', () => {
  const text = [
    '# nameserver 192.0.2.1',
    ';search commented.example',
    'nameserver 10.0.0.53',
    '\tnameserver\tfd00::53\textra',
    'domain first.example',
    'domain last.example',
    'search a.example b.example',
    'search c.example',
    'options ndots:5 rotate',
    'sortlist 10.0.0.0',
    'nameserver',
    '',
  ].join('\n')
  assert.deepEqual(parseResolvConf(text), {
    nameservers: ['10.0.0.53', 'fd00::53'],
    domain: 'last.example',
    search: ['a.example', 'b.example', 'c.example'],
    options: ['ndots:5', 'rotate'],
  })
})

test('parseResolvConf() finds nothing in an empty file', () => {
  assert.deepEqual(parseResolvConf('\n \n'), {})
})
