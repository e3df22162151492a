// SPDX-License-Identifier: Apache-2.0

import { bodyEncoder, type Codec, type Request, struct } from '#netlink'

// linux/netfilter/nfnetlink.h
const NFNL_SUBSYS_NFTABLES = 10
const NFNETLINK_V0 = 0

// linux/netfilter/nf_tables.h, enum nf_tables_msg_types
export const NFT_MSG_NEWTABLE = 0
export const NFT_MSG_DELTABLE = 2
export const NFT_MSG_NEWCHAIN = 3
export const NFT_MSG_GETCHAIN = 4
export const NFT_MSG_DELCHAIN = 5
export const NFT_MSG_NEWRULE = 6
export const NFT_MSG_GETRULE = 7
export const NFT_MSG_DELRULE = 8
export const NFT_MSG_NEWSET = 9
export const NFT_MSG_GETSET = 10
export const NFT_MSG_NEWSETELEM = 12
export const NFT_MSG_GETSETELEM = 13
export const NFT_MSG_DELSETELEM = 14
export const NFT_MSG_GETGEN = 16
/** Linux 6.3 and newer: a delete to which absence is success. Older kernels answer EINVAL. */
export const NFT_MSG_DESTROYSETELEM = 30

/** NFPROTO_*, by the names that `nft` gives the families. `any` is for dumps only. */
export const families = { any: 0, inet: 1, ip: 2, arp: 3, netdev: 5, bridge: 7, ip6: 10 } as const
export type Family = keyof typeof families

/** The name of a family's number; what the kernel may add later stays a number. */
export const familyName = (number: number): string =>
  Object.entries(families).find(([, value]) => value === number)?.[0] ?? `${number}`

/** A request that names what it touches, so that an error can. */
export type Change = Request & {
  /** `set inet mooring pod_links`, `element veth1 of set inet mooring pod_links`. */
  readonly object: string
}

/** linux/netfilter/nfnetlink.h, struct nfgenmsg. The resource id is in network order. */
export const nfgenmsg = struct([
  ['family', 'u8'],
  ['version', 'u8'],
  ['resourceId', 'u16be'],
])

/** One message of the nf_tables subsystem. `about` becomes `verb object`. */
export function message<T>(type: number, family: Family, codec: Codec<T>, values: T, options: MessageOptions): Change {
  return {
    type: (NFNL_SUBSYS_NFTABLES << 8) | type,
    flags: options.flags ?? 0,
    body: bodyEncoder(nfgenmsg, codec)({ family: families[family], version: NFNETLINK_V0 }, values),
    about: `${options.verb} ${options.object}`,
    object: options.object,
    ...(options.tolerate === undefined ? {} : { tolerate: options.tolerate }),
  }
}

export type MessageOptions = {
  readonly verb: string
  readonly object: string
  readonly flags?: number
  readonly tolerate?: readonly number[]
}

/** The attributes of an answer, and the family that its header names. */
export function decodeAnswer<T>(body: Uint8Array, codec: Codec<T>): { family: number; values: T } {
  return { family: nfgenmsg.decode(body).family ?? 0, values: codec.decode(body.subarray(nfgenmsg.size)) }
}
