// SPDX-License-Identifier: Apache-2.0
// Promise: `mooring demo --cloud NAME` does on a real Neutron and its own data plane what it does on the simulated one.
// Needs root and lab/openstack with its data plane: `./mooring test demo/real` starts it.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assertAsPromised, EVERY_WAY, start, traces, waysOf } from './command.ts'

const skip = process.env['OSLAB_DEMO_JSON'] ? false : 'no lab: eval "$(lab/openstack env)"'

test('--cloud sends every packet the promised way, and nothing is left', { skip, timeout: 240_000 }, async () => {
  const ended = await start('mooring-test-real', '--json', '--cloud', 'oslab').ended
  assert.deepEqual(waysOf(assertAsPromised(ended)), EVERY_WAY)
  assert.deepEqual(traces('mooring-test-real'), [])
})
