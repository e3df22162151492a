// SPDX-License-Identifier: Apache-2.0

import { attributes, nested, u32be } from '#netlink'
import { data, type Verdict, verdictData } from '../data.ts'

// linux/netfilter/nf_tables.h, enum nft_immediate_attributes
const NFTA_IMMEDIATE_DREG = 1
const NFTA_IMMEDIATE_DATA = 2
const NFT_REG_VERDICT = 0

/** Puts a constant into a register: bytes, or into register 0 a verdict. */
export const immediateAttributes = nested(
  attributes({ register: [NFTA_IMMEDIATE_DREG, u32be], data: [NFTA_IMMEDIATE_DATA, data] }),
)

/** Ends the rule with the packet's fate. */
export const give = (verdict: Verdict) => ({
  kind: 'immediate' as const,
  data: { register: NFT_REG_VERDICT, data: verdictData(verdict) },
})

/** Puts bytes into a register. */
export const loadValue = (register: number, value: Uint8Array) => ({
  kind: 'immediate' as const,
  data: { register, data: { value } },
})
