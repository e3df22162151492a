// SPDX-License-Identifier: Apache-2.0

import { concat } from '#netlink'

/**
 * Bytes that the kernel keeps for user space (NFTA_*_USERDATA): type, length and value, one byte each for the first two.
 * The types are those of libnftnl (udata.h), so that `nft list` shows what we write.
 */
export function encodeUserdata(entries: readonly (readonly [type: number, value: Uint8Array])[]): Uint8Array {
  return concat(entries.map(([type, value]) => concat([Uint8Array.of(type, value.length), value])))
}

/** NFTNL_UDATA_{TABLE,CHAIN,RULE}_COMMENT are all 0. */
const COMMENT = 0
/** NFTNL_UDATA_COMMENT_MAXLEN, without the terminating zero. */
const COMMENT_BYTES_MAX = 127

/** The comment of a table, chain or rule. @throws {RangeError} above 127 bytes, which `nft` refuses to read. */
export function encodeComment(text: string): Uint8Array {
  const value = new TextEncoder().encode(`${text}\0`)
  if (value.length > COMMENT_BYTES_MAX + 1) throw new RangeError(`Cannot encode comment "${text}": too long`)
  return encodeUserdata([[COMMENT, value]])
}

/** The comment within userdata; undefined where there is none. */
export function decodeComment(userdata: Uint8Array | undefined): string | undefined {
  if (userdata === undefined) return undefined
  for (let offset = 0; offset + 2 <= userdata.length; offset += 2 + userdata[offset + 1]!) {
    if (userdata[offset] !== COMMENT) continue
    return new TextDecoder()
      .decode(userdata.subarray(offset + 2, offset + 2 + userdata[offset + 1]!))
      .replace(/\0$/, '')
  }
  return undefined
}
