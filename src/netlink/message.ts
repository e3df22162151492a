// SPDX-License-Identifier: Apache-2.0

import { concat } from './attribute.ts'

// linux/netlink.h
export const NLM_F_REQUEST = 0x1
export const NLM_F_ACK = 0x4
export const NLM_F_ECHO = 0x8
export const NLM_F_DUMP_INTR = 0x10
export const NLM_F_REPLACE = 0x100
export const NLM_F_EXCL = 0x200
export const NLM_F_CREATE = 0x400
export const NLM_F_APPEND = 0x800
export const NLM_F_DUMP = 0x300
export const NLMSG_ERROR = 2
export const NLMSG_DONE = 3

const HEADER = 16
const align = (length: number) => (length + 3) & ~3

/** One message to the kernel. */
export type Request = {
  readonly type: number
  /** Besides NLM_F_REQUEST, which is always set. Without NLM_F_ACK or NLM_F_DUMP no answer is waited for. */
  readonly flags: number
  /** Family header and attributes. */
  readonly body: Uint8Array
  /** What it does, for errors: `add route 10.0.0.0/8 via 10.99.0.1`. */
  readonly about: string
  /** Errno values that mean "nothing to do", not failure: ENODEV for a removal. */
  readonly tolerate?: readonly number[]
}

/** One message from the kernel, without its header. */
export type Message = { readonly type: number; readonly flags: number; readonly seq: number; readonly body: Uint8Array }

/** Requests as one datagram, numbered from `seq` on. */
export function encodeBatch(requests: readonly Request[], seq: number): Uint8Array {
  return concat(
    requests.map((request, index) => {
      const out = new Uint8Array(align(HEADER + request.body.length))
      const header = new DataView(out.buffer)
      header.setUint32(0, HEADER + request.body.length, true)
      header.setUint16(4, request.type, true)
      header.setUint16(6, request.flags | NLM_F_REQUEST, true)
      header.setUint32(8, (seq + index) >>> 0, true)
      out.set(request.body, HEADER)
      return out
    }),
  )
}

/** The messages of one datagram. @throws {RangeError} on a length that cannot be. */
export function* decodeMessages(datagram: Uint8Array): Generator<Message> {
  for (let offset = 0; offset + HEADER <= datagram.length; ) {
    const header = new DataView(datagram.buffer, datagram.byteOffset + offset, HEADER)
    const length = header.getUint32(0, true)
    if (length < HEADER || offset + length > datagram.length)
      throw new RangeError(`Cannot decode netlink message: length ${length} at offset ${offset} of ${datagram.length}`)
    yield {
      type: header.getUint16(4, true),
      flags: header.getUint16(6, true),
      seq: header.getUint32(8, true),
      body: datagram.subarray(offset + HEADER, offset + length),
    }
    offset += align(length)
  }
}
