// SPDX-License-Identifier: Apache-2.0

import { attributes, nested, u8, u32be } from '#netlink'

// linux/netfilter/nf_tables.h, enum nft_ct_attributes
const NFTA_CT_DREG = 1
const NFTA_CT_KEY = 2
const NFTA_CT_DIRECTION = 3
const NFTA_CT_SREG = 4

/** Loads what connection tracking knows of a packet's connection, or sets its mark. */
export const ctAttributes = nested(
  attributes({
    key: [NFTA_CT_KEY, u32be],
    register: [NFTA_CT_DREG, u32be],
    direction: [NFTA_CT_DIRECTION, u8],
    source: [NFTA_CT_SREG, u32be],
  }),
)

/** enum nft_ct_keys. */
const ctKeys = { state: 0, direction: 1, status: 2, mark: 3, 'ip saddr': 19, 'ip6 saddr': 21 } as const
const IP_CT_DIR_ORIGINAL = 0

/** Loads a property of the connection. */
export const loadConnection = (key: 'state' | 'direction' | 'status' | 'mark', register: number) => ({
  kind: 'ct' as const,
  data: { key: ctKeys[key], register },
})

/** Loads an address of the packet that began the connection, before any translation. Linux 4.17. */
export const loadOriginal = (key: 'ip saddr' | 'ip6 saddr', register: number) => ({
  kind: 'ct' as const,
  data: { key: ctKeys[key], register, direction: IP_CT_DIR_ORIGINAL },
})

/** Sets the connection's mark from a register. */
export const setConnectionMark = (source: number) => ({ kind: 'ct' as const, data: { key: ctKeys.mark, source } })
