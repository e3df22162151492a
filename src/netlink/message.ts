// SPDX-License-Identifier: Apache-2.0

import { written } from './attribute.ts'

// linux/netlink.h
export const NLM_F_REQUEST = 0x1
export const NLM_F_ACK = 0x4
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
  /** Besides NLM_F_REQUEST, which is always set. Without NLM_F_ACK, NLM_F_DUMP and `asks` no answer is waited for. */
  readonly flags: number
  /** The answer is one message, or an error; no acknowledgement follows it. */
  readonly asks?: true
  /** Family header and attributes. */
  readonly body: Uint8Array
  /** What it does, for errors: `add route 10.0.0.0/8 via 10.99.0.1`. A getter where many are made, since few fail. */
  readonly about: string
  /** Errno values that mean "nothing to do", not failure: ENODEV for a removal. */
  readonly tolerate?: readonly number[]
}

/** One message from the kernel, without its header. */
export type Message = { readonly type: number; readonly flags: number; readonly seq: number; readonly body: Uint8Array }

/** Requests as one datagram, numbered from `seq` on. Those that are not `awaited` ask for no acknowledgement. */
export const encodeBatch = (requests: readonly Request[], seq: number, awaited?: readonly boolean[]): Uint8Array =>
  written(to => {
    for (let index = 0; index < requests.length; index++) {
      const { type, flags, body } = requests[index]!
      const length = HEADER + body.length
      to.integer(4, true, length)
      to.integer(2, true, type)
      to.integer(2, true, (awaited?.[index] === false ? flags & ~NLM_F_ACK : flags) | NLM_F_REQUEST)
      to.integer(4, true, (seq + index) >>> 0)
      to.integer(4, true, 0) // port: the kernel fills it in
      to.bytes(body)
      to.integer(align(length) - length, true, 0)
    }
  })

/** True if one of the texts or bytes is somewhere in it: tells quickly which of a thousand answers are worth decoding. */
export const mentions = (body: Uint8Array, these: readonly (string | Uint8Array)[]): boolean => {
  const searched = Buffer.from(body.buffer, body.byteOffset, body.length)
  return these.some(each => searched.includes(each))
}

/** The messages of one datagram. @throws {RangeError} on a length that cannot be. */
export function decodeMessages(datagram: Uint8Array): Message[] {
  const messages: Message[] = []
  const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.length)
  for (let offset = 0, length = 0; offset + HEADER <= datagram.length; offset += align(length)) {
    length = view.getUint32(offset, true)
    if (length < HEADER || offset + length > datagram.length)
      throw new RangeError(`Cannot decode netlink message: length ${length} at offset ${offset} of ${datagram.length}`)
    messages.push({
      type: view.getUint16(offset + 4, true),
      flags: view.getUint16(offset + 6, true),
      seq: view.getUint32(offset + 8, true),
      body: datagram.subarray(offset + HEADER, offset + length),
    })
  }
  return messages
}
