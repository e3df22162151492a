// SPDX-License-Identifier: Apache-2.0

// The node's long-lived sockets are of the node's namespace, wherever the thread is when they are first needed. Needs root.

import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { test } from 'node:test'
import { HostContext } from '#host'
import { sendPacket } from '#libc'
import { NETLINK_ROUTE, NetlinkSocket } from '#netlink'
import { addLink, decodeLink, dumpLinks } from '#rtnetlink'
import { makeNamespace } from './station.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const ETH_P_ARP = 0x0806
/** A number that no link of the pod's namespace has. */
const LINK = 4321

function linksHere(): (string | undefined)[] {
  using route = new NetlinkSocket(NETLINK_ROUTE)
  return route.execute([dumpLinks()])[0]!.messages.map(message => decodeLink(message).ifname)
}

test("HostContext: what is first opened during a visit to a pod is the node's", { skip }, () => {
  using context = new HostContext(makeNamespace())
  const pod = makeNamespace()
  context.onNode(() => {
    context.route.execute([addLink({ ifname: 'node0', linkinfo: { kind: 'bridge' } }, { index: LINK, up: true })])
    context.inNetns(pod, () => {
      // The pod has no such link: a socket of its namespace would be refused (ENXIO).
      sendPacket(context.packet, LINK, ETH_P_ARP, new Uint8Array(6).fill(0xff), new Uint8Array(28))
      assert.deepEqual(linksHere(), ['lo'], 'the visit goes on in the pod')
    })
    assert.deepEqual(linksHere().sort(), ['lo', 'node0'])
  })
  closeSync(pod)
})
