// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describeSelector, parseConfig } from './config.ts'

const selectorOf = (config: Parameters<typeof parseConfig>[0], command: 'ADD' | 'STATUS' = 'ADD') =>
  parseConfig(config, { command }).selector

test('parseConfig() takes the first of several names for a NIC (HD-03)', () => {
  const all = {
    device: 'eth1',
    hwaddr: 'FA-16-3E-4D-76-00',
    kernelpath: '/sys/devices/pci0000:00/0000:00:05.0',
    runtimeConfig: { deviceID: 'mlx5_core.sf.4' },
    pciBusID: '0000:00:05.0',
  }
  const found = Object.keys(all).map((_, from) => selectorOf(Object.fromEntries(Object.entries(all).slice(from))))
  assert.deepEqual(
    found.map(selector => describeSelector(selector!)),
    [
      '"device": "eth1"',
      '"hwaddr": "fa:16:3e:4d:76:00"',
      '"kernelpath": "/sys/devices/pci0000:00/0000:00:05.0"',
      '"deviceID": "mlx5_core.sf.4"',
      '"pciBusID": "0000:00:05.0"',
    ],
  )
})

test('parseConfig() leaves it to the lease, or to the pod to come, where none is named', () => {
  assert.equal(selectorOf({ ipam: { type: 'tcnp-ipam' } }), undefined)
  assert.equal(selectorOf({}, 'STATUS'), undefined)
  assert.throws(() => selectorOf({}), /specify either "device", "hwaddr", "kernelpath" or "pciBusID"/)
})
