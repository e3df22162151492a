// SPDX-License-Identifier: Apache-2.0

import { describeErrno, errnoName } from '#libc'
import { attributes, string, u32 } from './attribute.ts'
import { type Message, NLMSG_DONE, type Request } from './message.ts'

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

/**
 * Reads an NLMSG_ERROR (linux/netlink.h, struct nlmsgerr), or the errno with which NLMSG_DONE ends a dump that was cut
 * short. @returns undefined for an acknowledgement (errno 0)
 */
export function decodeError(message: Message, request: Request): NetlinkError | undefined {
  if (message.body.length < 4) return undefined
  const view = new DataView(message.body.buffer, message.body.byteOffset, message.body.byteLength)
  const errno = -view.getInt32(0, true)
  if (errno === 0) return undefined
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return new NetlinkError(request.about, errno)
  const { message: text, offset } = extackAttributes.decode(message.body.subarray(4 + echoedBytes(message, view)))
  return new NetlinkError(request.about, errno, text, offset)
}

/** What stands between errno and attributes: the refused message, or its header alone where NETLINK_CAP_ACK is set. */
function echoedBytes({ type, flags }: Message, view: DataView): number {
  if (type === NLMSG_DONE) return 0
  return (flags & NLM_F_CAPPED) !== 0 ? 16 : (view.getUint32(4, true) + 3) & ~3
}
