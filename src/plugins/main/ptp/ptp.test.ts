// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadlineIn } from '#base'
import type { Call, JsonObject } from '#cni'
import type { World } from '../../world.ts'
import { ptp } from './ptp.ts'

/** A node whose kernel has no nf_tables. */
const world = {
  ipam: async () => ({ status: async () => {} }),
  host: {
    findForeignForwardDrop: async () => {
      throw new Error('Cannot list chains: protocol not supported (EPROTONOSUPPORT)')
    },
  },
} as unknown as World

const status = (config: JsonObject) =>
  ptp.status(
    {
      ...{ command: 'STATUS', containerId: '', ifName: '', netns: '', netnsFd: undefined, args: '', path: [] },
      ...{ stdin: new Uint8Array(), network: 'net', cniVersion: '1.1.0', prevResult: undefined, env: {} },
      ...{ deadline: deadlineIn(1000), signal: new AbortController().signal },
      config: { ipam: { type: 'static' }, ...config },
    } satisfies Call,
    world,
  )

test('STATUS: 50 where pods are to be masqueraded and the kernel cannot; without ipMasq nobody minds (STA-02)', async () => {
  await status({})
  await assert.rejects(status({ ipMasq: true }), {
    code: 50,
    message: 'Pods cannot be masqueraded: Cannot list chains: protocol not supported (EPROTONOSUPPORT)',
  })
})

test('a configuration is read as Go reads it: keys in any case, the back end minded with ipMasq alone (PTP-01)', async () => {
  await status({ IPMASQBACKEND: 'other', Mtu: 1400 })
  await assert.rejects(status({ IPMasq: true, ipMasqBackend: 'other' }), {
    code: 7,
    message: 'unknown ipmasq backend "other"',
  })
  await assert.rejects(status({ mtu: '1400' }), { code: 7, message: /"mtu" is a string, want a number/ })
})
