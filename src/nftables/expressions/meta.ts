// SPDX-License-Identifier: Apache-2.0

import { attributes, nested, u32be } from '#netlink'

// linux/netfilter/nf_tables.h, enum nft_meta_attributes
const NFTA_META_DREG = 1
const NFTA_META_KEY = 2
const NFTA_META_SREG = 3

/** Loads what is known of a packet beside its bytes, or sets it. */
export const metaAttributes = nested(
  attributes({
    key: [NFTA_META_KEY, u32be],
    register: [NFTA_META_DREG, u32be],
    source: [NFTA_META_SREG, u32be],
  }),
)

/** enum nft_meta_keys. `iifname` is known in postrouting too, for forwarded packets, since Linux 5.7. */
const metaKeys = { protocol: 1, mark: 3, iifname: 6, oifname: 7, nfproto: 15, l4proto: 16 } as const

/** Loads a property of the packet. */
export const loadMeta = (key: keyof typeof metaKeys, register: number) => ({
  kind: 'meta' as const,
  data: { key: metaKeys[key], register },
})

/** Sets the packet's mark from a register. */
export const setMark = (source: number) => ({ kind: 'meta' as const, data: { key: metaKeys.mark, source } })
