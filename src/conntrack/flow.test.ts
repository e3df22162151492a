// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp } from '#base'
import { NetlinkError, type Request } from '#netlink'
import { deleteFlow, flowAttributes, listFlows } from './flow.ts'

// Captured from conntrack 1.4.7 (strace): what the kernel answered to -L, and what -D sent for it.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const answer4 = golden(
  '02000000', // nfgenmsg: AF_INET
  '34000180', // CTA_TUPLE_ORIG
  '14000180080001007f000001080002007f000001', //   127.0.0.1 to 127.0.0.1
  '1c000280050001001100000006000200115c00000600030014e90000', //   17, 4444 to 5353
  '34000280', // CTA_TUPLE_REPLY
  '14000180080001007f000001080002007f000001',
  '1c00028005000100110000000600020014e9000006000300115c0000',
  '0800030000000188', // CTA_STATUS
  '0800080000000000', // CTA_MARK
  '08000c0054cf3054', // CTA_ID
)
const answer6 = golden(
  '0a000000', // nfgenmsg: AF_INET6
  '4c000180', // CTA_TUPLE_ORIG
  '2c000180', //   CTA_TUPLE_IP
  '1400030000000000000000000000000000000001',
  '1400040000000000000000000000000000000001',
  '1c000280050001001100000006000200115d00000600030014ea0000', //   17, 4445 to 5354
  '08000c00f9bb58ef', // CTA_ID
)

function kernel(...bodies: Uint8Array[]) {
  const sent: Request[] = []
  const execute = (requests: readonly Request[]) => {
    sent.push(...requests)
    const messages = bodies.map(body => ({ type: 0x100, flags: 2, seq: 1, body }))
    return [{ messages, tolerated: undefined }]
  }
  return { sent, execute }
}

test('listFlows: reads both families, and lets the kernel compare protocol and port', () => {
  const transport = kernel(answer4)
  const loopback = parseIp('127.0.0.1')
  assert.deepEqual(listFlows(transport, { version: 'v4', protocol: 17, destinationPort: 5353 }), [
    {
      ...{ protocol: 17, source: loopback, destination: loopback, sourcePort: 4444, destinationPort: 5353 },
      ...{ id: 0x54cf3054, zone: 0, directionZone: 0 },
    },
  ])
  assert.equal(transport.sent[0]?.type, 0x101)
  const { original, filter } = flowAttributes.decode(transport.sent[0]!.body.subarray(4))
  assert.deepEqual(original, { protocol: { number: 17, destinationPort: 5353 } })
  assert.deepEqual(filter, { original: 0x28, reply: 0 })
  const [flow] = listFlows(kernel(answer6), { version: 'v6', protocol: 17 })
  assert.deepEqual([flow?.source, flow?.sourcePort], [parseIp('::1'), 4445])
})

test('listFlows: leaves out what an older kernel sends beyond the filter', () => {
  assert.deepEqual(listFlows(kernel(answer4), { version: 'v4', protocol: 17, destinationPort: 53 }), [])
  assert.deepEqual(listFlows(kernel(answer4), { version: 'v4', protocol: 132 }), [])
})

test('deleteFlow: writes the tuple as conntrack does, and the id that tells it from a later one', () => {
  const [flow] = listFlows(kernel(answer4), { version: 'v4', protocol: 17 })
  const request = deleteFlow(flow!)
  assert.equal(request.type, 0x102)
  assert.deepEqual(request.body, new Uint8Array([...answer4.subarray(0, 56), ...golden('08000c0054cf3054')]))
  assert.equal(request.about, 'forget connection from 127.0.0.1 port 4444 to 127.0.0.1 port 5353')
  assert.deepEqual(request.tolerate, [2])
})

test('deleteFlow: names the zones of a flow that has some', () => {
  const [flow] = listFlows(kernel(answer6), { version: 'v6', protocol: 17 })
  const { original, zone } = flowAttributes.decode(deleteFlow({ ...flow!, zone: 7, directionZone: 9 }).body.subarray(4))
  assert.deepEqual([zone, original?.zone], [7, 9])
})

test('listFlows: passes on what the kernel refuses', () => {
  const refusing = {
    execute: (requests: readonly Request[]) => {
      throw new NetlinkError(requests[0]!.about, 1)
    },
  }
  assert.throws(() => listFlows(refusing, { version: 'v4', protocol: 17 }), /Cannot list tracked connections: .*EPERM/)
})
