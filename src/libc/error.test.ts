// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as errors from './error.ts'

test('SystemError: says action, reason and name', () => {
  const error = new errors.SystemError('setns', 1, 'enter the network namespace')
  assert.equal(error.message, 'Cannot enter the network namespace: operation not permitted (EPERM)')
  assert.deepEqual([error.errno, error.code, error.syscall], [1, 'EPERM', 'setns'])
})

test('errnoName: agrees with every number that code branches on', () => {
  const numbers = Object.entries(errors).filter(([name, value]) => /^E[A-Z]+$/.test(name) && typeof value === 'number')
  assert.ok(numbers.length > 10)
  for (const [name, errno] of numbers) assert.equal(errors.errnoName(errno as number), name)
})

test('describeErrno: does with a number that has no name', () => {
  assert.equal(errors.describeErrno(85), 'errno 85') // ERESTART: libuv has no name for it
})
