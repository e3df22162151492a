// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { oncePerConfig, parseNetworkConfig } from './network-config.ts'
import type { JsonObject } from './plugin.ts'

const bytes = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

test('parseNetworkConfig() gives the same object for the same bytes, whatever becomes of them, and another for others', () => {
  const stdin = bytes({ name: 'a', ipam: { routes: [{ dst: '0.0.0.0/0' }] } })
  const first = parseNetworkConfig(stdin)
  stdin.fill(0x20)
  assert.equal(parseNetworkConfig(bytes({ name: 'a', ipam: { routes: [{ dst: '0.0.0.0/0' }] } })), first)
  assert.deepEqual(parseNetworkConfig(bytes({ name: 'b' })), { name: 'b' })
})

test('parseNetworkConfig() lets nobody change what the next call will see', () => {
  const config = parseNetworkConfig(bytes({ name: 'a', ipam: { routes: [] } }))
  assert.throws(() => Object.assign(config, { name: 'b' }), TypeError)
  assert.throws(() => ((config['ipam'] as JsonObject)['routes'] as string[]).push('x'), TypeError)
})

test('parseNetworkConfig() still knows a configuration after fifteen others, and reads it again after more', () => {
  const first = parseNetworkConfig(bytes({ name: 'first' }))
  for (let index = 0; index < 15; index++) parseNetworkConfig(bytes({ name: `n${index}` }))
  assert.equal(parseNetworkConfig(bytes({ name: 'first' })), first)
  for (let index = 0; index < 16; index++) parseNetworkConfig(bytes({ name: `m${index}` }))
  assert.deepEqual(parseNetworkConfig(bytes({ name: 'first' })), first)
})

test('oncePerConfig() reads each object once, and again what failed', () => {
  let reads = 0
  const read = oncePerConfig(config => {
    if (reads++ === 0) throw new Error('first time')
    return config['name']
  })
  const config = { name: 'a' }
  assert.throws(() => read(config), /first time/)
  assert.deepEqual([read(config), read(config), reads], ['a', 'a', 2])
})
