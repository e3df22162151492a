// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatMac, type Ip } from '#base'

/** One field of a key: an interface name, an address (IP or MAC), a port, a protocol, a mark. */
export type Field = string | Ip | number

type DataType = {
  /** The number that `nft` gives the type (nftables, include/datatype.h, enum datatypes); the kernel only keeps it. */
  readonly id: number
  readonly bytes: number
  readonly order: 'host' | 'network'
  readonly encode: (value: Field) => Uint8Array
  readonly decode: (bytes: Uint8Array) => Field
}

function integer(id: number, bytes: 1 | 2 | 4, order: 'host' | 'network'): DataType {
  const little = order === 'host'
  const kind = `Uint${(bytes * 8) as 8 | 16 | 32}` as const
  return {
    id,
    bytes,
    order,
    encode: value => {
      if (typeof value !== 'number') throw new TypeError(`Cannot encode ${String(value)} as a number`)
      const out = new Uint8Array(bytes)
      new DataView(out.buffer)[`set${kind}`](0, value, little)
      return out
    },
    decode: data => new DataView(data.buffer, data.byteOffset, data.byteLength)[`get${kind}`](0, little),
  }
}

function address(id: number, bytes: 4 | 6 | 16): DataType {
  return {
    id,
    bytes,
    order: 'network',
    encode: value => {
      if (!(value instanceof Uint8Array) || value.length !== bytes)
        throw new TypeError(`Cannot encode ${formatField(value)} as an address of ${bytes} bytes`)
      return value
    },
    decode: data => data.slice(),
  }
}

const IFNAMSIZ = 16
const ifname: DataType = {
  id: 41,
  bytes: IFNAMSIZ,
  order: 'host',
  encode: value => {
    const text = new TextEncoder().encode(String(value))
    if (text.length === 0 || text.length >= IFNAMSIZ)
      throw new RangeError(`Cannot encode interface name "${String(value)}": want 1 to ${IFNAMSIZ - 1} bytes`)
    const out = new Uint8Array(IFNAMSIZ)
    out.set(text)
    return out
  },
  decode: data => {
    const end = data.indexOf(0)
    return new TextDecoder().decode(end < 0 ? data : data.subarray(0, end))
  },
}

/** The types of keys and data, by nft's names. */
export const dataTypes = {
  ipv4_addr: address(7, 4),
  ipv6_addr: address(8, 16),
  ether_addr: address(9, 6),
  inet_proto: integer(12, 1, 'network'),
  inet_service: integer(13, 2, 'network'),
  mark: integer(19, 4, 'host'),
  ifname,
} as const
export type DataTypeName = keyof typeof dataTypes

const align = (length: number) => (length + 3) & ~3

/** The bytes of a key or value: its own for one field; for a concatenation each field on a 32-bit boundary. */
export const sizeOf = (types: readonly DataTypeName[]): number =>
  types.length === 1 ? dataTypes[types[0]!].bytes : types.reduce((sum, name) => sum + align(dataTypes[name].bytes), 0)

/** nft's number for the type: six bits per field of a concatenation. */
export const typeId = (types: readonly DataTypeName[]): number =>
  types.reduce((id, name) => (id << 6) | dataTypes[name].id, 0)

/** The opposite of `typeId`; undefined where one of the types is none of `dataTypes`. */
export function typesOf(id: number): DataTypeName[] | undefined {
  const types: DataTypeName[] = []
  for (let rest = id; rest > 0; rest >>>= 6) {
    const found = Object.entries(dataTypes).find(([, type]) => type.id === (rest & 0x3f))
    if (found === undefined) return undefined
    types.unshift(found[0] as DataTypeName)
  }
  return types.length === 0 ? undefined : types
}

/** A key or value. @throws {TypeError} where a field does not fit its type. */
export function encodeFields(types: readonly DataTypeName[], fields: readonly Field[]): Uint8Array {
  if (fields.length !== types.length)
    throw new TypeError(`Cannot encode key of ${fields.length} fields: want ${types.join(' . ')}`)
  const out = new Uint8Array(sizeOf(types))
  let offset = 0
  for (const [index, name] of types.entries()) {
    out.set(dataTypes[name].encode(fields[index]!), offset)
    offset += align(dataTypes[name].bytes)
  }
  return out
}

/** The opposite of `encodeFields`. */
export function decodeFields(types: readonly DataTypeName[], bytes: Uint8Array): Field[] {
  let offset = 0
  return types.map(name => {
    const { bytes: length, decode } = dataTypes[name]
    const field = decode(bytes.subarray(offset, offset + length))
    offset += align(length)
    return field
  })
}

/** As nft writes it: `veth1 . 10.0.0.2`. */
export const formatFields = (fields: readonly Field[]): string => fields.map(formatField).join(' . ')

const formatField = (field: Field): string => {
  if (!(field instanceof Uint8Array)) return String(field)
  return field.length === 6 ? formatMac(field) : formatIp(field)
}
