// SPDX-License-Identifier: Apache-2.0

import { attributes, nested, string, u32be } from '#netlink'

// linux/netfilter/nf_tables.h, enum nft_lookup_attributes
const NFTA_LOOKUP_SET = 1
const NFTA_LOOKUP_SREG = 2
const NFTA_LOOKUP_DREG = 3
const NFTA_LOOKUP_SET_ID = 4
const NFTA_LOOKUP_FLAGS = 5
const NFT_LOOKUP_F_INV = 1

/** Goes on only if a register's content is a key of the set; from a map, loads its value. */
export const lookupAttributes = nested(
  attributes({
    register: [NFTA_LOOKUP_SREG, u32be],
    destination: [NFTA_LOOKUP_DREG, u32be],
    set: [NFTA_LOOKUP_SET, string()],
    setId: [NFTA_LOOKUP_SET_ID, u32be],
    flags: [NFTA_LOOKUP_FLAGS, u32be],
  }),
)

/** Goes on if the content of the register on is in the set. */
export const isIn = (register: number, set: string) => ({ kind: 'lookup' as const, data: { register, set } })

/** Goes on if it is not. */
export const isNotIn = (register: number, set: string) => ({
  kind: 'lookup' as const,
  data: { register, set, flags: NFT_LOOKUP_F_INV },
})

/** Loads the map's value into `destination` (0: the verdict); goes on only if there is one. */
export const lookUp = (register: number, map: string, destination: number) => ({
  kind: 'lookup' as const,
  data: { register, destination, set: map },
})
