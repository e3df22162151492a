// SPDX-License-Identifier: Apache-2.0

import { describeErrno, errnoName } from '#libc'
import { attributes, string, u32 } from './attribute.ts'
import type { Message, Request } from './message.ts'

/** A request that the kernel refused. `errno` is positive; `extack` is the kernel's own sentence, where it gave one. */
export class NetlinkError extends Error {
  override readonly name: string = 'NetlinkError'
  readonly errno: number
  readonly code: string
  readonly request: string
  readonly extack: string | undefined
  /** Offset of the attribute at fault within the message. */
  readonly offset: number | undefined

  constructor(request: string, errno: number, extack?: string, offset?: number) {
    super(`Cannot ${request}: ${extack === undefined ? '' : `${extack}: `}${describeErrno(errno)}`)
    this.errno = errno
    this.code = errnoName(errno)
    this.request = request
    this.extack = extack
    this.offset = offset
  }
}

const NLM_F_CAPPED = 0x100
const NLM_F_ACK_TLVS = 0x200
const extackAttributes = attributes({ message: [1, string()], offset: [2, u32] }) // NLMSGERR_ATTR_*

/** Reads an NLMSG_ERROR: undefined for an acknowledgement (errno 0). linux/netlink.h, struct nlmsgerr. */
export function decodeError(message: Message, request: Request): NetlinkError | undefined {
  const view = new DataView(message.body.buffer, message.body.byteOffset, message.body.byteLength)
  const errno = -view.getInt32(0, true)
  if (errno === 0) return undefined
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return new NetlinkError(request.about, errno)
  // Capped: only the refused message's header stands before the attributes; else the whole message does.
  const echoed = (message.flags & NLM_F_CAPPED) !== 0 ? 16 : (view.getUint32(4, true) + 3) & ~3
  const { message: text, offset } = extackAttributes.decode(message.body.subarray(4 + echoed))
  return new NetlinkError(request.about, errno, text, offset)
}
