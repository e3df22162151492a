// SPDX-License-Identifier: Apache-2.0

import { attributes, nested, u32be } from '#netlink'

// linux/netfilter/nf_tables.h, enum nft_fwd_attributes
const NFTA_FWD_SREG_DEV = 1

/** Sends the packet out of a link as it is, past all other rules. */
export const forwardAttributes = nested(attributes({ link: [NFTA_FWD_SREG_DEV, u32be] }))

/** Sends the packet out of the link whose number the register holds, in host order. Family netdev alone. */
export const forward = (register: number) => ({ kind: 'fwd' as const, data: { link: register } })
