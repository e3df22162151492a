// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NetlinkError, type Request } from '#netlink'
import {
  addElement,
  deleteElement,
  destroyElements,
  elementListAttributes,
  hasElements,
  listElements,
  listKeys,
  readElements,
} from './element.ts'

// Bytes captured from nft 1.0.6 (strace of its sendmsg), from the family header on, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const table = { family: 'inet', name: 'mooring' } as const

// nft numbers the set within its batch (SET_ID); for a named set the kernel does not ask, so ours leave it out.

test('addElement: writes a concatenated key as nft does', () => {
  // nft 'add element inet mooring s { "veth1" . 10.99.0.2 }'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_SET_ELEM_LIST_TABLE mooring
    '0600020073000000', // NFTA_SET_ELEM_LIST_SET
    '0800040000000001', // NFTA_SET_ELEM_LIST_SET_ID 0x1
    '24000380', // NFTA_SET_ELEM_LIST_ELEMENTS
    '20000180', //   NFTA_LIST_ELEM
    '1c000180', //     NFTA_SET_ELEM_KEY
    '18000100766574683100000000000000000000000a630002', //       NFTA_DATA_VALUE
  )
  const set = { table, name: 's', key: ['ifname', 'ipv4_addr'] } as const
  const element = { key: ['veth1', Uint8Array.of(10, 99, 0, 2)] }
  const change = addElement(set, element)
  assert.deepEqual(elementListAttributes.encode(elementListAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  const { setId: _, ...expected } = elementListAttributes.decode(bytes.subarray(4))
  assert.deepEqual(elementListAttributes.decode(change.body.subarray(4)), expected)
  assert.equal(change.about, 'add element veth1 . 10.99.0.2 of set inet mooring s')
})

test('deleteElement: writes what nft writes', () => {
  // nft 'delete element inet mooring s { "veth1" . 10.99.0.2 }'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_SET_ELEM_LIST_TABLE mooring
    '0600020073000000', // NFTA_SET_ELEM_LIST_SET
    '24000380', // NFTA_SET_ELEM_LIST_ELEMENTS
    '20000180', //   NFTA_LIST_ELEM
    '1c000180', //     NFTA_SET_ELEM_KEY
    '18000100766574683100000000000000000000000a630002', //       NFTA_DATA_VALUE
  )
  const set = { table, name: 's', key: ['ifname', 'ipv4_addr'] } as const
  const element = { key: ['veth1', Uint8Array.of(10, 99, 0, 2)] }
  assert.deepEqual(deleteElement(set, element).body, bytes)
  const [destroyed] = destroyElements([{ set, element }])
  assert.deepEqual(destroyed!.body, bytes)
  assert.equal(destroyed!.type, 0x0a1e)
})

test('addElement: writes key and value of a map as nft does', () => {
  // nft 'add element inet mooring m { tcp . 80 : 10.0.0.1 . 8080 }'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_SET_ELEM_LIST_TABLE mooring
    '060002006d000000', // NFTA_SET_ELEM_LIST_SET
    '0800040000000001', // NFTA_SET_ELEM_LIST_SET_ID 0x1
    '28000380', // NFTA_SET_ELEM_LIST_ELEMENTS
    '24000180', //   NFTA_LIST_ELEM
    '10000180', //     NFTA_SET_ELEM_KEY
    '0c0001000600000000500000', //       NFTA_DATA_VALUE
    '10000280', //     NFTA_SET_ELEM_DATA
    '0c0001000a0000011f900000', //       NFTA_DATA_VALUE
  )
  const key = ['inet_proto', 'inet_service'] as const
  const map = { table, name: 'm', key, data: ['ipv4_addr', 'inet_service'] } as const
  const change = addElement(map, { key: [6, 80], value: [Uint8Array.of(10, 0, 0, 1), 8080] })
  assert.deepEqual(elementListAttributes.encode(elementListAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  const { setId: _, ...expected } = elementListAttributes.decode(bytes.subarray(4))
  assert.deepEqual(elementListAttributes.decode(change.body.subarray(4)), expected)
})

test('addElement: writes the comment as nft does, and exclusively where asked', () => {
  // nft 'add element inet mooring portmap_any_v4 { udp . 8081 comment "v1" : 10.0.0.1 . 80 }'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_SET_ELEM_LIST_TABLE mooring
    '13000200706f72746d61705f616e795f76340000', // NFTA_SET_ELEM_LIST_SET portmap_any_v4
    '0800040000000001', // NFTA_SET_ELEM_LIST_SET_ID 0x1
    '34000380', // NFTA_SET_ELEM_LIST_ELEMENTS
    '30000180', //   NFTA_LIST_ELEM
    '100001800c000100110000001f910000', //     NFTA_SET_ELEM_KEY
    '100002800c0001000a00000100500000', //     NFTA_SET_ELEM_DATA
    '090006000003763100000000', //     NFTA_SET_ELEM_USERDATA
  )
  const key = ['inet_proto', 'inet_service'] as const
  const map = { table, name: 'portmap_any_v4', key, data: ['ipv4_addr', 'inet_service'] } as const
  const element = { key: [17, 8081], value: [Uint8Array.of(10, 0, 0, 1), 80], comment: 'v1' }
  const change = addElement(map, element)
  const { setId: _, ...expected } = elementListAttributes.decode(bytes.subarray(4))
  assert.deepEqual(elementListAttributes.decode(change.body.subarray(4)), expected)
  assert.equal(change.flags, 0x400)
  assert.equal(addElement(map, element, { exclusive: true }).flags, 0x600)
  const message = { type: 0x0a0c, flags: 2, seq: 1, body: bytes }
  const kernel = { execute: () => [{ messages: [message], tolerated: undefined }] }
  assert.deepEqual(listElements(kernel, map), [element])
  assert.deepEqual(readElements(kernel, [{ set: map, element: { key: element.key } }]), [element])
  assert.deepEqual(readElements({ execute: () => [{ messages: [], tolerated: 2 }] }, [{ set: map, element }]), [
    undefined,
  ])
})

test('addElement: writes a verdict as nft does', () => {
  // nft 'add element inet mooring m { 10.0.0.1 : jump c }'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_SET_ELEM_LIST_TABLE mooring
    '060002006d000000', // NFTA_SET_ELEM_LIST_SET
    '0800040000000001', // NFTA_SET_ELEM_LIST_SET_ID 0x1
    '2c000380', // NFTA_SET_ELEM_LIST_ELEMENTS
    '28000180', //   NFTA_LIST_ELEM
    '0c000180', //     NFTA_SET_ELEM_KEY
    '080001000a000001', //       NFTA_DATA_VALUE 0xa000001
    '18000280', //     NFTA_SET_ELEM_DATA
    '14000280', //       NFTA_DATA_VERDICT
    '08000100fffffffd', //         NFTA_VERDICT_CODE 0xfffffffd
    '0600020063000000', //         NFTA_VERDICT_CHAIN
  )
  const map = { table, name: 'm', key: ['ipv4_addr'], data: 'verdict' } as const
  const change = addElement(map, { key: [Uint8Array.of(10, 0, 0, 1)], value: { jump: 'c' } })
  assert.deepEqual(elementListAttributes.encode(elementListAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  const { setId: _, ...expected } = elementListAttributes.decode(bytes.subarray(4))
  assert.deepEqual(elementListAttributes.decode(change.body.subarray(4)), expected)
})

test('addElement: writes ranges of a concatenation as nft does', () => {
  // nft 'add element inet mooring s { 10.0.0.0/8 . 80-90 }'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_SET_ELEM_LIST_TABLE mooring
    '0600020073000000', // NFTA_SET_ELEM_LIST_SET
    '0800040000000001', // NFTA_SET_ELEM_LIST_SET_ID 0x1
    '28000380', // NFTA_SET_ELEM_LIST_ELEMENTS
    '24000180', //   NFTA_LIST_ELEM
    '10000180', //     NFTA_SET_ELEM_KEY
    '0c0001000a00000000500000', //       NFTA_DATA_VALUE
    '10000a80', //     NFTA_SET_ELEM_KEY_END
    '0c0001000affffff005a0000', //       NFTA_DATA_VALUE
  )
  const set = { table, name: 's', key: ['ipv4_addr', 'inet_service'], interval: true } as const
  const element = { key: [Uint8Array.of(10, 0, 0, 0), 80], end: [Uint8Array.of(10, 255, 255, 255), 90] }
  const change = addElement(set, element)
  assert.deepEqual(elementListAttributes.encode(elementListAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
  const { setId: _, ...expected } = elementListAttributes.decode(bytes.subarray(4))
  assert.deepEqual(elementListAttributes.decode(change.body.subarray(4)), expected)
})

test('addElement: writes a range of one field as two elements, nft with one more for what lies before', () => {
  // nft 'add element inet mooring s { 10.0.0.0/8 }'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_SET_ELEM_LIST_TABLE mooring
    '0600020073000000', // NFTA_SET_ELEM_LIST_SET
    '0800040000000001', // NFTA_SET_ELEM_LIST_SET_ID 0x1
    '44000380', // NFTA_SET_ELEM_LIST_ELEMENTS
    '18000180', //   NFTA_LIST_ELEM
    '0800030000000001', //     NFTA_SET_ELEM_FLAGS 0x1
    '0c000180', //     NFTA_SET_ELEM_KEY
    '0800010000000000', //       NFTA_DATA_VALUE 0x0
    '10000280', //   NFTA_LIST_ELEM
    '0c000180', //     NFTA_SET_ELEM_KEY
    '080001000a000000', //       NFTA_DATA_VALUE 0xa000000
    '18000380', //   NFTA_LIST_ELEM
    '0800030000000001', //     NFTA_SET_ELEM_FLAGS 0x1
    '0c000180', //     NFTA_SET_ELEM_KEY
    '080001000b000000', //       NFTA_DATA_VALUE 0xb000000
  )
  const set = { table, name: 's', key: ['ipv4_addr'], interval: true } as const
  const change = addElement(set, { key: [Uint8Array.of(10, 0, 0, 0)], end: [Uint8Array.of(11, 0, 0, 0)] })
  const expected = elementListAttributes.decode(bytes.subarray(4)).elements?.slice(1)
  assert.deepEqual(elementListAttributes.decode(change.body.subarray(4)).elements, expected)
})

test('addElement: refuses a key that does not fit the set, by name', () => {
  const set = { table, name: 's', key: ['ifname', 'ipv4_addr'] } as const
  assert.throws(() => addElement(set, { key: ['veth1'] }), /key of 1 fields: want ifname \. ipv4_addr/)
  assert.throws(() => addElement(set, { key: ['veth1', new Uint8Array(16)] }), /"?::"? as an address of 4 bytes/)
  assert.throws(() => addElement(set, { key: ['a-name-of-16-byte', new Uint8Array(4)] }), /interface name/)
  assert.throws(() => addElement(set, { key: ['veth1', new Uint8Array(4)], value: [1] }), /it holds none/)
})

test('listKeys: decodes the elements of all answers; undefined without the set', () => {
  const set = { table, name: 's', key: ['ifname', 'ipv4_addr'] } as const
  const element = { key: ['veth1', Uint8Array.of(10, 99, 0, 2)] }
  const body = addElement(set, element).body
  const message = { type: 0x0a0c, flags: 2, seq: 1, body }
  const found = { execute: () => [{ messages: [message, message], tolerated: undefined }] }
  assert.deepEqual(listKeys(found, set), [element.key, element.key])
  assert.equal(listKeys({ execute: () => [{ messages: [], tolerated: 2 }] }, set), undefined)
})

test('hasElements: asks for all in one send and tolerates ENOENT alone', () => {
  const set = { table, name: 's', key: ['ifname'] } as const
  const sent: Request[][] = []
  const transport = {
    execute: (requests: readonly Request[]) => {
      sent.push([...requests])
      return requests.map((_, index) => ({ messages: [], tolerated: index === 1 ? 2 : undefined }))
    },
  }
  const asked = ['a', 'b'].map(name => ({ set, element: { key: [name] } }))
  assert.deepEqual(hasElements(transport, asked), [true, false])
  assert.deepEqual(
    sent[0]?.map(request => request.tolerate),
    [[2], [2]],
  )
  const refused = {
    execute: () => {
      throw new NetlinkError('read element a', 1)
    },
  }
  assert.throws(() => hasElements(refused, asked), /EPERM/)
})
