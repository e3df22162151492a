// SPDX-License-Identifier: Apache-2.0

import { attributes, nested, u32be } from '#netlink'

// linux/netfilter/nf_tables.h, enum nft_fib_attributes, nft_fib_result and nft_fib_flags
const NFTA_FIB_DREG = 1
const NFTA_FIB_RESULT = 2
const NFTA_FIB_FLAGS = 3
const NFT_FIB_RESULT_ADDRTYPE = 3
const NFTA_FIB_F_DADDR = 2

/** Asks the routing table about the packet's source or destination. */
export const fibAttributes = nested(
  attributes({
    flags: [NFTA_FIB_FLAGS, u32be],
    result: [NFTA_FIB_RESULT, u32be],
    register: [NFTA_FIB_DREG, u32be],
  }),
)

/** Loads the destination's type (linux/rtnetlink.h, RTN_*: 1 unicast, 2 local), 4 bytes in host order. */
export const loadDestinationType = (register: number) => ({
  kind: 'fib' as const,
  data: { flags: NFTA_FIB_F_DADDR, result: NFT_FIB_RESULT_ADDRTYPE, register },
})
