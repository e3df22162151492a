// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Request } from '#netlink'
import { addPortVlans, decodePortVlans, deletePortVlans, dumpPortVlans } from './vlan.ts'

// Bytes captured from bridge of iproute2 6.1.0 (strace of its sendmsg), without the netlink header. The answer is what a
// kernel with VLAN filtering sends (Linux 6.1).
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
function assertRequest(request: Request, type: number, flags: number, body: Uint8Array): void {
  assert.deepEqual([request.type, request.flags | 1, request.body.toHex()], [type, flags, body.toHex()])
}

test('addPortVlans: writes one VLAN as bridge does', () => {
  // bridge vlan add dev v0 vid 100 pvid untagged
  const bytes = golden(
    '07000000040000000000000000000000', // ifinfomsg: AF_BRIDGE, index 4
    '0c001a00', // IFLA_AF_SPEC
    '0800020006006400', //   IFLA_BRIDGE_VLAN_INFO: PVID, UNTAGGED, 100
  )
  assertRequest(addPortVlans(4, { from: 100, to: 100, pvid: true, untagged: true }), 19, 0x5, bytes)
})

test('addPortVlans: writes a range as bridge does', () => {
  // bridge vlan add dev v0 vid 10-20
  const bytes = golden(
    '07000000040000000000000000000000',
    '14001a00',
    '0800020008000a00', //   RANGE_BEGIN, 10
    '0800020010001400', //   RANGE_END, 20
  )
  assertRequest(addPortVlans(4, { from: 10, to: 20 }), 19, 0x5, bytes)
})

test('deletePortVlans: writes as bridge does', () => {
  // bridge vlan del dev v0 vid 1
  const bytes = golden('07000000040000000000000000000000', '0c001a00', '0800020000000100')
  assertRequest(deletePortVlans(4, { from: 1, to: 1 }), 17, 0x5, bytes)
})

test('dumpPortVlans: writes as bridge does', () => {
  // bridge vlan show
  assertRequest(dumpPortVlans(), 18, 0x301, golden('07000000000000000000000000000000', '08001d0002000000'))
})

test('decodePortVlans: ranges and flags', () => {
  const body = golden(
    '07000000040000000000000000000000',
    '070003007630000000', // IFLA_IFNAME v0
  )
  const spec = golden('1c001a00', '0800020006006400', '0800020008000a00', '0800020010001400')
  const padded = new Uint8Array(24 + spec.length)
  padded.set(body.subarray(0, 24))
  padded.set(spec, 24)
  assert.deepEqual(decodePortVlans({ type: 16, flags: 0, seq: 0, body: padded }), {
    index: 4,
    vlans: [
      { from: 100, to: 100, pvid: true, untagged: true },
      { from: 10, to: 20, pvid: false, untagged: false },
    ],
  })
})
