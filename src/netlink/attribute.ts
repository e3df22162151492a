// SPDX-License-Identifier: Apache-2.0

import { formatIp, type Ip } from '#base'

/**
 * Netlink attributes (linux/netlink.h, struct nlattr) as tables: types, encoder and decoder of a family follow from one
 * table, so they cannot drift apart. Scalars are in host order, which on every supported machine is little-endian;
 * network order is part of the type's name (`u32be`).
 */
export type Codec<T> = {
  readonly encode: (value: T) => Uint8Array
  readonly decode: (bytes: Uint8Array) => T
  /** Bits to set in nla_type: NLA_F_NESTED, where the family's own tools set it. */
  readonly typeFlags?: number
}

const NLA_F_NESTED = 0x8000
const NLA_TYPE_MASK = 0x3fff
const HEADER = 4
const align = (length: number) => (length + 3) & ~3

const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

// Byte by byte: a DataView for each of the hundred integers of an attachment would cost more than all of them.
function writeInteger(out: Uint8Array, offset: number, bytes: number, littleEndian: boolean, value: number): void {
  for (let index = 0; index < bytes; index++, value >>>= 8)
    out[offset + (littleEndian ? index : bytes - 1 - index)] = value
}

function readInteger(data: Uint8Array, offset: number, bytes: number, littleEndian: boolean): number {
  let value = 0
  for (let index = 0; index < bytes; index++)
    value = (value << 8) | data[offset + (littleEndian ? bytes - 1 - index : index)]!
  return value >>> 0
}

function integer(bytes: 1 | 2 | 4, littleEndian: boolean, signed = false): Codec<number> {
  return {
    encode: value => {
      const out = new Uint8Array(bytes)
      writeInteger(out, 0, bytes, littleEndian, value)
      return out
    },
    decode: data => {
      if (data.length < bytes) throw new RangeError(`Cannot decode ${bytes} byte integer: attribute has ${data.length}`)
      const value = readInteger(data, 0, bytes, littleEndian)
      return signed ? value | 0 : value
    },
  }
}

export const u8 = integer(1, true)
export const u16 = integer(2, true)
export const u32 = integer(4, true)
export const s32 = integer(4, true, true)
export const u16be = integer(2, false)
export const u32be = integer(4, false)

function integer64(littleEndian: boolean): Codec<bigint> {
  return {
    encode: value => {
      const out = new Uint8Array(8)
      view(out).setBigUint64(0, value, littleEndian)
      return out
    },
    decode: data => view(data).getBigUint64(0, littleEndian),
  }
}

export const u64 = integer64(true)
export const u64be = integer64(false)

/** Bytes as they are: addresses, MACs, opaque data. Decoding copies, since receive buffers are used again. */
export const bytes: Codec<Uint8Array> = { encode: value => value, decode: data => data.slice() }

/** An address of either family; its length says which. */
export const ip: Codec<Ip> = {
  encode: value => value,
  decode: data => {
    if (data.length !== 4 && data.length !== 16) throw new RangeError(`Cannot decode address of ${data.length} bytes`)
    return data.slice()
  },
}

/** NLA_NUL_STRING, at most `max` bytes with its terminating zero. */
export function string(max = 65_000): Codec<string> {
  return {
    encode: value => {
      const text = new TextEncoder().encode(`${value}\0`)
      if (text.length > max) throw new RangeError(`Cannot encode "${value}": longer than ${max - 1} bytes`)
      return text
    },
    decode: data => {
      const end = data.indexOf(0)
      return new TextDecoder().decode(end < 0 ? data : data.subarray(0, end))
    },
  }
}

/** NLA_FLAG: present or not. Encode `true` only; leave the key out for "no". */
export const flag: Codec<true> = { encode: () => new Uint8Array(0), decode: () => true }

/** A table: per attribute its number and codec. */
// biome-ignore lint/suspicious/noExplicitAny: the codec's own type is what `Infer` recovers
export type Rows = { readonly [key: string]: readonly [number, Codec<any>] }

/** What a table encodes and decodes. Attributes that the table does not name are kept under `unknown`. */
export type Values<R extends Rows> = {
  -readonly [K in keyof R]?: R[K] extends readonly [number, Codec<infer T>] ? T : never
} & {
  unknown?: ReadonlyMap<number, Uint8Array>
}
/** The value type of a codec. */
export type Infer<C> = C extends Codec<infer T> ? T : never

/**
 * A codec for a sequence of attributes, from its table. Written in the order of the value's keys: the order matters to
 * nobody but the golden tests.
 */
export function attributes<const R extends Rows>(rows: R): Codec<Values<R>> {
  const names = new Map(Object.entries(rows).map(([name, [type]]) => [type, name]))
  return {
    encode: values => {
      const parts: Uint8Array[] = []
      for (const [name, value] of Object.entries(values)) {
        if (value === undefined || name === 'unknown') continue
        const row = rows[name]
        if (row === undefined) throw new TypeError(`Cannot encode attribute "${name}": not in the table`)
        parts.push(encodeAttribute(row[0], row[1], value))
      }
      return concat(parts)
    },
    decode: data => {
      const values: Record<string, unknown> = {}
      const unknown = new Map<number, Uint8Array>()
      for (const [type, payload] of walk(data)) {
        const name = names.get(type)
        if (name === undefined) unknown.set(type, payload.slice())
        else values[name] = rows[name]![1].decode(payload)
      }
      if (unknown.size > 0) values['unknown'] = unknown
      return values as Values<R>
    },
  }
}

/** One attribute: header, payload, padding. */
export function encodeAttribute<T>(type: number, codec: Codec<T>, value: T): Uint8Array {
  const payload = codec.encode(value)
  const out = new Uint8Array(align(HEADER + payload.length))
  writeInteger(out, 0, 2, true, HEADER + payload.length)
  writeInteger(out, 2, 2, true, type | (codec.typeFlags ?? 0))
  out.set(payload, HEADER)
  return out
}

/** The attributes of a payload: number (flags masked off) and bytes. @throws {RangeError} on a length that cannot be. */
export function* walk(data: Uint8Array): Generator<[type: number, payload: Uint8Array]> {
  for (let offset = 0; offset + HEADER <= data.length; ) {
    const length = readInteger(data, offset, 2, true)
    if (length < HEADER || offset + length > data.length)
      throw new RangeError(`Cannot decode attributes: length ${length} at offset ${offset} of ${data.length}`)
    const type = readInteger(data, offset + 2, 2, true) & NLA_TYPE_MASK
    yield [type, data.subarray(offset + HEADER, offset + length)]
    offset += align(length)
  }
}

/** Attributes within an attribute, flagged NLA_F_NESTED as nf_tables and newer families want it. */
export const nested = <T>(codec: Codec<T>): Codec<T> => ({ ...codec, typeFlags: NLA_F_NESTED })

/** Repeated attributes of one number within a nest (`NFTA_LIST_ELEM`, `IFLA_VLAN_QOS_MAPPING`, ...). */
export function list<T>(type: number, codec: Codec<T>): Codec<T[]> {
  return {
    encode: values => concat(values.map(value => encodeAttribute(type, codec, value))),
    decode: data => Array.from(walk(data), ([, payload]) => codec.decode(payload)),
  }
}

/**
 * A pair of attributes of which the first, a string, says what the second holds: IFLA_INFO_KIND and IFLA_INFO_DATA,
 * NFTA_EXPR_NAME and NFTA_EXPR_DATA. A kind without a row keeps its data as bytes.
 */
// biome-ignore lint/suspicious/noExplicitAny: as above
export function tagged<const K extends { readonly [kind: string]: Codec<any> }>(
  tag: number,
  data: number,
  kinds: K,
): Codec<
  { [N in keyof K & string]: { kind: N; data?: Infer<K[N]> } }[keyof K & string] | { kind: string; raw?: Uint8Array }
> {
  return {
    encode: value => {
      const parts = [encodeAttribute(tag, string(), value.kind)]
      const known = kinds[value.kind]
      if ('data' in value && value.data !== undefined && known !== undefined)
        parts.push(encodeAttribute(data, known, value.data))
      else if ('raw' in value && value.raw !== undefined) parts.push(encodeAttribute(data, bytes, value.raw))
      return concat(parts)
    },
    decode: payload => {
      const found = new Map(walk(payload))
      const kind = string().decode(found.get(tag) ?? new Uint8Array(0))
      const content = found.get(data)
      if (content === undefined) return { kind }
      const known = kinds[kind]
      return known === undefined ? { kind, raw: content.slice() } : { kind, data: known.decode(content) }
    },
  }
}

/** A fixed C struct before the attributes, or inside one: the fields in order, without padding of its own. */
export type Field = readonly [name: string, type: 'u8' | 'u16' | 'u16be' | 'u32' | 's32' | 'pad8' | 'pad16']
const fieldBytes = { u8: 1, pad8: 1, u16: 2, u16be: 2, pad16: 2, u32: 4, s32: 4 } as const

/** A value of each field that is no padding; left out means zero. */
export type StructValue<F extends readonly Field[]> = {
  [K in F[number] as K[1] extends 'pad8' | 'pad16' ? never : K[0]]?: number
}

/** The size and codec of a struct. */
export function struct<const F extends readonly Field[]>(fields: F): Codec<StructValue<F>> & { readonly size: number } {
  const size = fields.reduce((sum, [, type]) => sum + fieldBytes[type], 0)
  return {
    size,
    encode: value => {
      const out = new Uint8Array(size)
      let offset = 0
      for (const [name, type] of fields) {
        const field = (value as Record<string, number>)[name]
        if (field !== undefined) writeInteger(out, offset, fieldBytes[type], type !== 'u16be', field)
        offset += fieldBytes[type]
      }
      return out
    },
    decode: data => {
      if (data.length < size) throw new RangeError(`Cannot decode ${size} byte struct: message has ${data.length}`)
      const value: Record<string, number> = {}
      let offset = 0
      for (const [name, type] of fields) {
        const field = readInteger(data, offset, fieldBytes[type], type !== 'u16be')
        if (!type.startsWith('pad')) value[name] = type === 's32' ? field | 0 : field
        offset += fieldBytes[type]
      }
      return value as StructValue<F>
    },
  }
}

/** Byte strings one after the other. */
export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let offset = 0
  for (const part of parts) {
    out.set(part, offset)
    offset += part.length
  }
  return out
}

/** For messages: the address, or `default` for none. */
export const describeIp = (address: Ip | undefined): string => (address === undefined ? 'default' : formatIp(address))
