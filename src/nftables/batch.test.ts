// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NetlinkError, type Request } from '#netlink'
import { commit, NftablesError, readGeneration } from './batch.ts'
import { addElement } from './element.ts'
import { addTable } from './table.ts'

const table = { family: 'inet', name: 'mooring' } as const
const changes = [addTable(table), addElement({ table, name: 's', key: ['ifname'] }, { key: ['veth1'] })]

function recorder() {
  const sent: Request[] = []
  const execute = (requests: readonly Request[]) => {
    sent.push(...requests)
    return requests.map(() => ({ messages: [], tolerated: undefined }))
  }
  return { sent, execute }
}

test('commit: frames the changes as nft does and asks for one acknowledgement, of the last', () => {
  const transport = recorder()
  commit(transport, changes)
  assert.deepEqual(
    transport.sent.map(request => request.type),
    [0x10, 0x0a00, 0x0a0c, 0x11],
  )
  assert.deepEqual(
    transport.sent.map(request => request.flags & 4),
    [0, 0, 4, 0],
  )
  // Captured from nft 1.0.6: nfgenmsg of the frame, resource id NFNL_SUBSYS_NFTABLES in network order.
  assert.deepEqual(transport.sent[0]?.body, Uint8Array.fromHex('0000000a'))
  assert.deepEqual(transport.sent[3]?.body, Uint8Array.fromHex('0000000a'))
})

test('commit: binds the batch to a generation', () => {
  const transport = recorder()
  commit(transport, changes, { generation: 7 })
  assert.deepEqual(transport.sent[0]?.body, Uint8Array.fromHex('0000000a0800010000000007'))
})

test('commit: sends nothing for no change', () => {
  const transport = recorder()
  commit(transport, [])
  assert.deepEqual(transport.sent, [])
})

test('NftablesError: names the object at fault', () => {
  const transport = {
    execute: () => {
      throw new NetlinkError(changes[1]!.about, 2)
    },
  }
  assert.throws(
    () => commit(transport, changes),
    (error: unknown) =>
      error instanceof NftablesError &&
      error.object === 'element veth1 of set inet mooring s' &&
      error.code === 'ENOENT' &&
      error.message.startsWith('Cannot add element veth1 of set inet mooring s: '),
  )
})

test('readGeneration: reads the id of the answer', () => {
  // Captured from the kernel: nfgenmsg, NFTA_GEN_ID 4, NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME "nft".
  const body = Uint8Array.fromHex('0000000408000100000000040800020000003970080003006e667400')
  const message = { type: 0x0a0f, flags: 0, seq: 1, body }
  assert.equal(readGeneration({ execute: () => [{ messages: [message], tolerated: undefined }] }), 4)
})
