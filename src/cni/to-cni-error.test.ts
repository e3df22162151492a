// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { openSync } from 'node:fs'
import { test } from 'node:test'
import { CniError } from './error.ts'
import { toCniError } from './to-cni-error.ts'

const system = (code: string) => Object.assign(new Error(`${code}: text, open '/x'`), { code, errno: -1 })

test('toCniError() leaves a CniError as it is', () => {
  const error = new CniError(102, 'full')
  assert.equal(toCniError(error), error)
})

test('toCniError() asks to try again where that helps, and names path and remedy', () => {
  for (const code of ['EAGAIN', 'EBUSY', 'ETIMEDOUT', 'EMFILE']) assert.equal(toCniError(system(code)).code, 11)
  const full = toCniError(system('ENOSPC'))
  assert.equal(full.code, 5)
  assert.match(full.message, /'\/x'/)
  assert.match(full.details!, /free space/)
  assert.throws(
    () => openSync('/nonexistent/file', 'r'),
    error => toCniError(error).code === 5,
  )
})

test('toCniError() of a failed undo tells the cause, and the undo beside it', () => {
  const both = new SuppressedError(
    new CniError(5, 'cannot delete link'),
    new CniError(7, 'bad route', { details: 'x' }),
  )
  const error = toCniError(both)
  assert.equal(error.code, 7)
  assert.equal(error.message, 'bad route')
  assert.equal(error.details, 'x; undoing what was done failed too: cannot delete link')
})

test('toCniError() takes an abort for a call that may be repeated', () => {
  assert.equal(toCniError(AbortSignal.abort().reason).code, 11)
})

test('toCniError() makes everything else a fault of ours', () => {
  const error = toCniError(new TypeError('x is undefined'))
  assert.equal(error.code, 999)
  assert.match(error.details!, /please report/)
  assert.equal(toCniError('text').message, 'text')
})
