// SPDX-License-Identifier: Apache-2.0

import { attributes, nested, u32be } from '#netlink'

// linux/netfilter/nf_tables.h, enum nft_masq_attributes
const NFTA_MASQ_FLAGS = 1
const NFTA_MASQ_REG_PROTO_MIN = 2
const NFTA_MASQ_REG_PROTO_MAX = 3

/** Rewrites the source to the address of the interface that the packet leaves by. Only in postrouting, type nat. */
export const masqueradeAttributes = nested(
  attributes({
    flags: [NFTA_MASQ_FLAGS, u32be],
    port: [NFTA_MASQ_REG_PROTO_MIN, u32be],
    portMax: [NFTA_MASQ_REG_PROTO_MAX, u32be],
  }),
)

/** Masquerades. */
export const masquerade = () => ({ kind: 'masq' as const, data: {} })
