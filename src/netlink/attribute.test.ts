// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp } from '#base'
import {
  attributes,
  bytes,
  concat,
  encodeAttribute,
  flag,
  type Infer,
  ip,
  list,
  nested,
  s32,
  string,
  struct,
  tagged,
  u8,
  u16,
  u16be,
  u32,
  u32be,
  u64,
  u64be,
  walk,
} from './attribute.ts'

const hex = (text: string) => Uint8Array.fromHex(text.replaceAll(' ', ''))

const inner = attributes({ depth: [1, u8], label: [2, string(8)] })
const table = attributes({
  small: [1, u8],
  port: [2, u16be],
  mark: [3, u32be],
  signed: [4, s32],
  count: [5, u64],
  counter: [6, u64be],
  name: [7, string(16)],
  raw: [8, bytes],
  address: [9, ip],
  on: [10, flag],
  nest: [11, nested(inner)],
  many: [12, nested(list(1, u16))],
  index: [13, u32],
})

test('attributes: every type comes back as it went in', () => {
  const values: Infer<typeof table> = {
    small: 255,
    port: 443,
    mark: 0xdeadbeef,
    signed: -1,
    count: 2n ** 63n,
    counter: 1n,
    name: 'eth0',
    raw: hex('c0ffee'),
    address: parseIp('fd00::1'),
    on: true,
    nest: { depth: 3, label: 'seven77' },
    many: [1, 2, 65535],
    index: 4_294_967_295,
  }
  assert.deepEqual(table.decode(table.encode(values)), values)
})

test('attributes: numbers are in host order, and in network order where the type says so', () => {
  assert.equal(table.encode({ index: 0x0102 }).toHex(), '08000d0002010000')
  assert.equal(table.encode({ mark: 0x0102 }).toHex(), '0800030000000102')
  assert.equal(table.encode({ port: 443 }).toHex(), '0600020001bb0000')
})

test('attributes: payloads are padded to four bytes, their length is not', () => {
  assert.equal(table.encode({ small: 7 }).toHex(), '0500010007000000')
  assert.equal(table.encode({ name: 'eth' }).toHex(), '0800070065746800')
  assert.equal(table.encode({ on: true }).toHex(), '04000a00')
})

test('attributes: a nest carries its flag where the family wants it, and is read with and without', () => {
  assert.equal(table.encode({ nest: { depth: 3 } }).toHex(), '0c000b80' + '0500010003000000')
  assert.deepEqual(table.decode(hex('0c000b80 0500010003000000')), { nest: { depth: 3 } })
  assert.deepEqual(table.decode(hex('0c000b00 0500010003000000')), { nest: { depth: 3 } })
})

test('attributes: what no table names is passed over', () => {
  assert.deepEqual(table.decode(hex('0800630001020304 0500010007000000')), { small: 7 })
})

test('attributes: undefined is left out', () => {
  assert.equal(table.encode({ small: 7, index: undefined } as never).toHex(), '0500010007000000')
})

test('attributes: pick reads one of them, and nothing of the others', () => {
  const data = table.encode({ small: 7, index: 9 })
  assert.deepEqual([table.pick(data, 'index'), table.pick(data, 'small')], [9, 7])
  assert.equal(table.pick(table.encode({ small: 7 }), 'index'), undefined)
})

test('attributes: a name that the table does not have is refused', () => {
  assert.throws(() => table.encode({ nonsense: 1 } as never), /Cannot encode attribute "nonsense": not in the table/)
})

test('attributes: what is decoded does not change with the buffer it came from', () => {
  const buffer = table.encode({ raw: hex('c0ffee'), address: parseIp('10.0.0.1') })
  const values = table.decode(buffer)
  buffer.fill(0)
  assert.deepEqual([values.raw, values.address], [hex('c0ffee'), parseIp('10.0.0.1')])
})

for (const [what, data] of [
  ['shorter than its own header', '03000100'],
  ['longer than what is there', '0900010007000000'],
  ['zero', '00000000'],
] as const)
  test(`walk: refuses an attribute whose length is ${what}`, () => {
    assert.throws(() => Array.from(walk(hex(data))), /Cannot decode attributes: length \d+ at offset 0 of \d/)
  })

test('walk: refuses the second attribute, and says where it stands', () => {
  assert.throws(() => Array.from(walk(hex('0500010007000000 0200010000000000'))), /length 2 at offset 8 of 16/)
})

test('walk: takes a last attribute without padding, and ignores a rest too short for a header', () => {
  assert.deepEqual(Array.from(walk(hex('0500010007'))), [[1, hex('07')]])
  assert.deepEqual(Array.from(walk(hex('0500010007000000 0400'))), [[1, hex('07')]])
})

test('integers: refuse an attribute with fewer bytes', () => {
  assert.throws(() => table.decode(hex('05000d0007000000')), /Cannot decode 4 byte integer: attribute has 1/)
  assert.throws(() => u16.decode(hex('07')), /Cannot decode 2 byte integer/)
})

test('ip: refuses what is neither four nor sixteen bytes', () => {
  assert.throws(() => table.decode(hex('0700090001020300')), /Cannot decode address of 3 bytes/)
})

test('string: counts bytes, not letters, and the zero with them', () => {
  assert.equal(string(4).encode('eth').toHex(), '65746800')
  assert.throws(() => string(4).encode('eth0'), /Cannot encode "eth0": longer than 3 bytes/)
  assert.throws(() => string(4).encode('éé'), /longer than 3 bytes/)
})

test('string: ends at the zero, or where the kernel writes none', () => {
  assert.equal(string().decode(hex('65746800ff')), 'eth')
  assert.equal(string().decode(hex('657468')), 'eth')
})

test('struct: fields follow one another without padding, and what is left out is zero', () => {
  const codec = struct([
    ['family', 'u8'],
    ['pad', 'pad8'],
    ['port', 'u16be'],
    ['index', 's32'],
  ])
  assert.equal(codec.size, 8)
  assert.equal(codec.encode({ family: 2, port: 80, index: -2 }).toHex(), '02000050feffffff')
  assert.equal(codec.encode({}).toHex(), '0000000000000000')
  assert.deepEqual(codec.decode(hex('02ff0050feffffff')), { family: 2, port: 80, index: -2 })
})

test('struct: refuses a message that is too short for it', () => {
  assert.throws(() => struct([['index', 's32']]).decode(hex('0102')), /Cannot decode 4 byte struct: message has 2/)
})

test('tagged: the first attribute says what the second holds', () => {
  const codec = tagged(1, 2, { inner })
  const value = { kind: 'inner', data: { depth: 1 } } as const
  assert.equal(codec.encode(value).toHex(), '0a000100696e6e657200' + '0000' + '0c000200' + '0500010001000000')
  assert.deepEqual(codec.decode(codec.encode(value)), value)
  assert.deepEqual(codec.decode(codec.encode({ kind: 'other', raw: hex('01') })), { kind: 'other', raw: hex('01') })
  assert.deepEqual(codec.decode(codec.encode({ kind: 'inner' })), { kind: 'inner' })
})

test('encodeAttribute: writes one attribute outside of any table', () => {
  assert.equal(
    concat([encodeAttribute(4, u8, 1), encodeAttribute(5, flag, true)]).toHex(),
    '0500040001000000' + '04000500',
  )
})
