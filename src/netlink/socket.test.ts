// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadlineIn } from '#base'
import { NetlinkError } from './error.ts'
import { NLM_F_ACK, NLM_F_DUMP } from './message.ts'
import { NETLINK_ROUTE, NetlinkSocket } from './socket.ts'

// The kernel itself answers: whoever may open a socket may ask for links.
const RTM_GETLINK = 18
const allLinks = { type: RTM_GETLINK, flags: NLM_F_DUMP, body: new Uint8Array(16), about: 'list links' }
const link = (index: number) => {
  const body = new Uint8Array(16)
  new DataView(body.buffer).setInt32(4, index, true)
  return { type: RTM_GETLINK, flags: NLM_F_ACK, body, about: `find link ${index}` }
}

test('NetlinkSocket: lists links and finds one of them in the same batch as one that is not there', () => {
  using socket = new NetlinkSocket(NETLINK_ROUTE)
  const [all] = socket.execute([allLinks])
  assert.ok(all!.messages.length >= 1)
  const [loopback, none] = socket.execute([link(1), { ...link(0x7fff_ffff), tolerate: [19] }])
  assert.equal(loopback!.messages.length, 1)
  assert.deepEqual(none, { messages: [], tolerated: 19 })
})

test('NetlinkSocket: throws what the kernel refused, with the sentence of the kernel', () => {
  using socket = new NetlinkSocket(NETLINK_ROUTE)
  // NETLINK_GET_STRICT_CHK: padding that is not zero is refused in words.
  const body = new Uint8Array(16)
  body[1] = 1
  assert.throws(
    () => socket.execute([{ type: RTM_GETLINK, flags: NLM_F_DUMP, body, about: 'list links' }]),
    (error: unknown) =>
      error instanceof NetlinkError &&
      error.code === 'EINVAL' &&
      error.extack === 'Invalid values in header for link dump request',
  )
})

test('NetlinkSocket: stops waiting for a notification when the time is over', () => {
  using socket = new NetlinkSocket(NETLINK_ROUTE, 1)
  const begin = performance.now()
  assert.equal(socket.awaitNotification(deadlineIn(20)), false)
  assert.ok(performance.now() - begin < 1000)
})
