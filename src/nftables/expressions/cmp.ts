// SPDX-License-Identifier: Apache-2.0

import { attributes, nested, u32be } from '#netlink'
import { data } from '../data.ts'

// linux/netfilter/nf_tables.h, enum nft_cmp_attributes
const NFTA_CMP_SREG = 1
const NFTA_CMP_OP = 2
const NFTA_CMP_DATA = 3

/** Goes on only if a register compares so with the data. */
export const cmpAttributes = nested(
  attributes({
    register: [NFTA_CMP_SREG, u32be],
    operator: [NFTA_CMP_OP, u32be],
    data: [NFTA_CMP_DATA, data],
  }),
)

/** enum nft_cmp_ops; the order is that of the bytes in memory. */
const operators = { '==': 0, '!=': 1, '<': 2, '<=': 3, '>': 4, '>=': 5 } as const

/** Compares a register with bytes. */
export const compare = (register: number, operator: keyof typeof operators, value: Uint8Array) => ({
  kind: 'cmp' as const,
  data: { register, operator: operators[operator], data: { value } },
})
