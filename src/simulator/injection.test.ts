// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inject, meet, newInjections, record, recorded } from './injection.ts'

test('meet: hits as many matching requests as asked for, after those to leave alone', () => {
  const injections = newInjections()
  inject(injections, { act: 'cut', method: 'put', path: '/ports/', skip: 1, times: 2 })
  const met = ['PUT /ports/a', 'GET /ports/a', 'PUT /routers/a', 'PUT /ports/b', 'PUT /ports/c', 'PUT /ports/d'].map(
    line => meet(injections, ...(line.split(' ') as [string, string]))?.act,
  )
  assert.deepEqual(met, [undefined, undefined, undefined, 'cut', 'cut', undefined])
})

test('meet: times 0 hits every one, and the oldest injection comes first', () => {
  const injections = newInjections()
  inject(injections, { act: 'delay', path: 'x' })
  inject(injections, { act: 'cut', times: 0 })
  const met = ['x', 'x', 'y'].map(path => meet(injections, 'GET', path)?.act)
  assert.deepEqual(met, ['delay', 'cut', 'cut'])
})

test('inject: names what it does not know', () => {
  assert.throws(() => inject(newInjections(), { act: 'banana' as 'cut' }), /Cannot inject "banana": want one of delay,/)
  assert.throws(() => inject(newInjections(), { act: 'cut', path: '(' }), SyntaxError)
})

test('recorded: filters by method and path, and keeps counting', () => {
  const injections = newInjections()
  const entry = { service: 'network', status: 200, durationMs: 1, injected: undefined }
  record(injections, { ...entry, method: 'GET', path: '/network/v2.0/ports' })
  record(injections, { ...entry, method: 'PUT', path: '/network/v2.0/ports/a' })
  assert.deepEqual(
    recorded(injections, 'put').map(each => each.sequence),
    [2],
  )
  assert.equal(recorded(injections, undefined, /ports$/).length, 1)
})
