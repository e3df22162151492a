// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addAltname, deleteAltname } from './altname.ts'

// Bytes captured from ip of iproute2 6.1.0 (strace of its sendmsg), without the netlink header.
const body = [
  '00000000030000000000000000000000', // ifinfomsg
  '10003480', // IFLA_PROP_LIST, nested
  '0b003500656e703073390000', //   IFLA_ALT_IFNAME enp0s9
].join('')

test('addAltname: writes what ip does', () => {
  // ip link property add dev v1 altname enp0s9
  const request = addAltname(3, 'enp0s9')
  assert.deepEqual([request.type, request.flags | 1, request.body.toHex()], [108, 0xe05, body])
})

test('deleteAltname: writes what ip does', () => {
  // ip link property del dev v1 altname enp0s9
  const request = deleteAltname(3, 'enp0s9')
  assert.deepEqual([request.type, request.flags | 1, request.body.toHex()], [109, 0x5, body])
})
