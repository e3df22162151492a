// SPDX-License-Identifier: Apache-2.0

import { attributes, nested, u32be } from '#netlink'
import { data } from '../data.ts'

// linux/netfilter/nf_tables.h, enum nft_bitwise_attributes
const NFTA_BITWISE_SREG = 1
const NFTA_BITWISE_DREG = 2
const NFTA_BITWISE_LEN = 3
const NFTA_BITWISE_MASK = 4
const NFTA_BITWISE_XOR = 5
const NFTA_BITWISE_OP = 6

/** destination = (register & mask) ^ xor. Operands from registers exist only since Linux 6.13, so there are none here. */
export const bitwiseAttributes = nested(
  attributes({
    register: [NFTA_BITWISE_SREG, u32be],
    destination: [NFTA_BITWISE_DREG, u32be],
    operator: [NFTA_BITWISE_OP, u32be],
    bytes: [NFTA_BITWISE_LEN, u32be],
    mask: [NFTA_BITWISE_MASK, data],
    xor: [NFTA_BITWISE_XOR, data],
  }),
)

/** Keeps the mask's bits of a register and flips those of `xor` (by default none). */
export const mask = (register: number, bits: Uint8Array, xor: Uint8Array = new Uint8Array(bits.length)) => ({
  kind: 'bitwise' as const,
  data: { register, destination: register, bytes: bits.length, mask: { value: bits }, xor: { value: xor } },
})
