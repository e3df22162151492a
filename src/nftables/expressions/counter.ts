// SPDX-License-Identifier: Apache-2.0

import { attributes, nested, u64be } from '#netlink'

// linux/netfilter/nf_tables.h, enum nft_counter_attributes
const NFTA_COUNTER_BYTES = 1
const NFTA_COUNTER_PACKETS = 2

/** Counts the packets that come so far. */
export const counterAttributes = nested(
  attributes({ bytes: [NFTA_COUNTER_BYTES, u64be], packets: [NFTA_COUNTER_PACKETS, u64be] }),
)

/** Counts. */
export const count = () => ({ kind: 'counter' as const, data: {} })
