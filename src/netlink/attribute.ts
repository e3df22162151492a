// SPDX-License-Identifier: Apache-2.0

import type { Ip } from '#base'

/**
 * Netlink attributes (linux/netlink.h, struct nlattr) as tables: types, encoder and decoder of a family follow from one
 * table, so they cannot drift apart. Scalars are in host order, which on every supported machine is little-endian;
 * network order is part of the type's name (`u32be`).
 */
export type Codec<T> = {
  readonly encode: (value: T) => Uint8Array
  /** Appends what `encode` would return. A codec without it is encoded and copied. */
  readonly write?: (to: Writer, value: T) => void
  readonly decode: (bytes: Uint8Array) => T
  /** Bits to set in nla_type: NLA_F_NESTED, where the family's own tools set it. */
  readonly typeFlags?: number
}

const NLA_F_NESTED = 0x8000
const NLA_TYPE_MASK = 0x3fff
const HEADER = 4
const align = (length: number) => (length + 3) & ~3

const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const textEncoder = new TextEncoder()
const textDecoder = new TextDecoder()

/** Where codecs write, one after the other: an array for each of the hundred values of an attachment would cost more than all of them. */
export class Writer {
  #bytes = new Uint8Array(4096)
  length = 0

  /** Makes room for so many bytes, whose values are not set. @returns where they begin */
  #grow(bytes: number): number {
    const offset = this.length
    this.length += bytes
    if (this.length > this.#bytes.length) {
      const larger = new Uint8Array(2 * this.length)
      larger.set(this.#bytes)
      this.#bytes = larger
    }
    return offset
  }

  integer(bytes: number, littleEndian: boolean, value: number): void {
    this.#put(this.#grow(bytes), bytes, littleEndian, value)
  }

  #put(offset: number, bytes: number, littleEndian: boolean, value: number): void {
    const out = this.#bytes
    for (let index = 0; index < bytes; index++, value >>>= 8)
      out[offset + (littleEndian ? index : bytes - 1 - index)] = value
  }

  bytes(value: Uint8Array): void {
    const offset = this.#grow(value.length)
    this.#bytes.set(value, offset)
  }

  /** UTF-8 and a zero. @returns how many bytes */
  text(value: string): number {
    const offset = this.#grow(3 * value.length + 1)
    const { written } = textEncoder.encodeInto(value, this.#bytes.subarray(offset))
    this.#bytes[offset + written] = 0
    this.length = offset + written + 1
    return written + 1
  }

  /** One attribute: header, payload, padding. */
  attribute<T>(type: number, codec: Codec<T>, value: T): void {
    const start = this.#grow(HEADER)
    this.value(codec, value)
    const length = this.length - start
    this.#put(start, 2, true, length)
    this.#put(start + 2, 2, true, type | (codec.typeFlags ?? 0))
    this.integer(align(length) - length, true, 0)
  }

  value<T>(codec: Codec<T>, value: T): void {
    if (codec.write === undefined) this.bytes(codec.encode(value))
    else codec.write(this, value)
  }

  /** Takes what was written since, which is the caller's. */
  take(since: number): Uint8Array {
    const taken = this.#bytes.slice(since, this.length)
    this.length = since
    return taken
  }
}

/** One per thread; who writes takes it back to where he found it. */
const writer = new Writer()

/** What is written, as bytes of its own. */
export function written(write: (to: Writer) => void): Uint8Array {
  const start = writer.length
  try {
    write(writer)
  } catch (error) {
    writer.length = start
    throw error
  }
  return writer.take(start)
}

/** A codec whose `encode` is what it writes. */
function codec<T, Rest extends object>(
  write: (to: Writer, value: T) => void,
  rest: Rest & Omit<Codec<T>, 'encode' | 'write'>,
): Codec<T> & Rest {
  return { ...rest, write, encode: value => written(to => write(to, value)) }
}

function readInteger(data: Uint8Array, offset: number, bytes: number, littleEndian: boolean): number {
  let value = 0
  for (let index = 0; index < bytes; index++)
    value = (value << 8) | data[offset + (littleEndian ? bytes - 1 - index : index)]!
  return value >>> 0
}

function integer(bytes: 1 | 2 | 4, littleEndian: boolean, signed = false): Codec<number> {
  return codec<number, object>((to, value) => to.integer(bytes, littleEndian, value), {
    decode: data => {
      if (data.length < bytes) throw new RangeError(`Cannot decode ${bytes} byte integer: attribute has ${data.length}`)
      const value = readInteger(data, 0, bytes, littleEndian)
      return signed ? value | 0 : value
    },
  })
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
  return codec<string, object>(
    (to, value) => {
      if (to.text(value) > max) throw new RangeError(`Cannot encode "${value}": longer than ${max - 1} bytes`)
    },
    {
      decode: data => {
        const end = data.indexOf(0)
        return textDecoder.decode(end < 0 ? data : data.subarray(0, end))
      },
    },
  )
}

/** NLA_FLAG: present or not. Encode `true` only; leave the key out for "no". */
export const flag: Codec<true> = { encode: () => new Uint8Array(0), decode: () => true }

/** A table: per attribute its number and codec. */
// biome-ignore lint/suspicious/noExplicitAny: the codec's own type is what `Infer` recovers
export type Rows = { readonly [key: string]: readonly [number, Codec<any>] }

/** What a table encodes and decodes. Attributes that it does not name are passed over: the kernel tells many that nobody asks for. */
export type Values<R extends Rows> = {
  -readonly [K in keyof R]?: R[K] extends readonly [number, Codec<infer T>] ? T : never
}
/** Decodes one attribute of a table and passes over the others. */
type Pick<R extends Rows> = {
  readonly pick: <K extends keyof R & string>(data: Uint8Array, name: K) => Values<R>[K] | undefined
}
/** The value type of a codec. */
export type Infer<C> = C extends Codec<infer T> ? T : never

/**
 * A codec for a sequence of attributes, from its table. Written in the order of the value's keys: the order matters to
 * nobody but the golden tests.
 */
export function attributes<const R extends Rows>(rows: R): Codec<Values<R>> & Pick<R> {
  const byType = new Map(Object.entries(rows).map(([name, [type, { decode }]]) => [type, { name, decode }]))
  return codec<Values<R>, Pick<R>>(
    (to, values) => {
      for (const name in values) {
        const value: unknown = values[name]
        if (value === undefined) continue
        const row = rows[name]
        if (row === undefined) throw new TypeError(`Cannot encode attribute "${name}": not in the table`)
        to.attribute(row[0], row[1], value)
      }
    },
    {
      decode: data => {
        const values: Record<string, unknown> = {}
        for (let offset = 0, length = 0; offset + HEADER <= data.length; offset += align(length)) {
          length = lengthAt(data, offset)
          const row = byType.get(typeAt(data, offset))
          if (row !== undefined) values[row.name] = row.decode(data.subarray(offset + HEADER, offset + length))
        }
        return values as Values<R>
      },
      pick: (data, name) => {
        const [wanted, { decode }] = rows[name]!
        for (let offset = 0, length = 0; offset + HEADER <= data.length; offset += align(length)) {
          length = lengthAt(data, offset)
          if (typeAt(data, offset) === wanted) return decode(data.subarray(offset + HEADER, offset + length))
        }
        return undefined
      },
    },
  )
}

/** One attribute: header, payload, padding. */
export const encodeAttribute = <T>(type: number, payload: Codec<T>, value: T): Uint8Array =>
  written(to => to.attribute(type, payload, value))

/** The attributes of a payload: number (flags masked off) and bytes. @throws {RangeError} on a length that cannot be. */
export function walk(data: Uint8Array): [type: number, payload: Uint8Array][] {
  const found: [number, Uint8Array][] = []
  for (let offset = 0, length = 0; offset + HEADER <= data.length; offset += align(length)) {
    length = lengthAt(data, offset)
    found.push([typeAt(data, offset), data.subarray(offset + HEADER, offset + length)])
  }
  return found
}

/** The payload of the first attribute of a type, from an offset on: where nothing else of many messages is asked for. */
export function findAttribute(data: Uint8Array, from: number, wanted: number): Uint8Array | undefined {
  for (let offset = from, length = 0; offset + HEADER <= data.length; offset += align(length)) {
    length = lengthAt(data, offset)
    if (typeAt(data, offset) === wanted) return data.subarray(offset + HEADER, offset + length)
  }
  return undefined
}

function lengthAt(data: Uint8Array, offset: number): number {
  const length = readInteger(data, offset, 2, true)
  if (length < HEADER || offset + length > data.length)
    throw new RangeError(`Cannot decode attributes: length ${length} at offset ${offset} of ${data.length}`)
  return length
}

const typeAt = (data: Uint8Array, offset: number): number => readInteger(data, offset + 2, 2, true) & NLA_TYPE_MASK

/** Attributes within an attribute, flagged NLA_F_NESTED as nf_tables and newer families want it. */
export const nested = <T>(of: Codec<T>): Codec<T> => ({ ...of, typeFlags: NLA_F_NESTED })

/** Repeated attributes of one number within a nest (`NFTA_LIST_ELEM`, `IFLA_VLAN_QOS_MAPPING`, ...). */
export function list<T>(type: number, item: Codec<T>): Codec<T[]> {
  return codec<T[], object>(
    (to, values) => {
      for (const value of values) to.attribute(type, item, value)
    },
    { decode: data => walk(data).map(([, payload]) => item.decode(payload)) },
  )
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
  type Value =
    | { [N in keyof K & string]: { kind: N; data?: Infer<K[N]> } }[keyof K & string]
    | { kind: string; raw?: Uint8Array }
  const kindName = string()
  return codec<Value, object>(
    (to, value) => {
      to.attribute(tag, kindName, value.kind)
      const known = kinds[value.kind]
      if ('data' in value && value.data !== undefined && known !== undefined) to.attribute(data, known, value.data)
      else if ('raw' in value && value.raw !== undefined) to.attribute(data, bytes, value.raw)
    },
    {
      decode: payload => {
        const found = new Map(walk(payload))
        const kind = kindName.decode(found.get(tag) ?? new Uint8Array(0))
        const content = found.get(data)
        if (content === undefined) return { kind }
        const known = kinds[kind]
        return known === undefined ? { kind, raw: content.slice() } : { kind, data: known.decode(content) }
      },
    },
  )
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
  return codec<StructValue<F>, { readonly size: number }>(
    (to, value) => {
      for (const [name, type] of fields)
        to.integer(fieldBytes[type], type !== 'u16be', (value as Record<string, number>)[name] ?? 0)
    },
    {
      size,
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
    },
  )
}

/** Encodes the bodies of a kind of messages: the header of the family, and the attributes after it. */
export const bodyEncoder =
  <H, A>(header: Codec<H>, attributes: Codec<A>) =>
  (head: H, values: A): Uint8Array =>
    written(to => {
      to.value(header, head)
      to.value(attributes, values)
    })

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
