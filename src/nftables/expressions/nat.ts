// SPDX-License-Identifier: Apache-2.0

import { attributes, nested, u32be } from '#netlink'
import { families } from '../message.ts'

// linux/netfilter/nf_tables.h, enum nft_nat_attributes and nft_nat_types
const NFTA_NAT_TYPE = 1
const NFTA_NAT_FAMILY = 2
const NFTA_NAT_REG_ADDR_MIN = 3
const NFTA_NAT_REG_ADDR_MAX = 4
const NFTA_NAT_REG_PROTO_MIN = 5
const NFTA_NAT_REG_PROTO_MAX = 6
const NFTA_NAT_FLAGS = 7
const natTypes = { snat: 0, dnat: 1 } as const
// linux/netfilter/nf_nat.h
const NF_NAT_RANGE_PROTO_SPECIFIED = 2

/** Rewrites source or destination to what stands in registers. Only in chains of type nat. */
export const natAttributes = nested(
  attributes({
    type: [NFTA_NAT_TYPE, u32be],
    family: [NFTA_NAT_FAMILY, u32be],
    address: [NFTA_NAT_REG_ADDR_MIN, u32be],
    addressMax: [NFTA_NAT_REG_ADDR_MAX, u32be],
    port: [NFTA_NAT_REG_PROTO_MIN, u32be],
    portMax: [NFTA_NAT_REG_PROTO_MAX, u32be],
    flags: [NFTA_NAT_FLAGS, u32be],
  }),
)

/** Translates to the address in a register and, where given, the port in another. */
export const translate = (
  type: keyof typeof natTypes,
  family: 'ip' | 'ip6',
  registers: { readonly address: number; readonly port?: number },
) => ({
  kind: 'nat' as const,
  data: {
    type: natTypes[type],
    family: families[family],
    ...registers,
    ...(registers.port === undefined ? {} : { flags: NF_NAT_RANGE_PROTO_SPECIFIED }),
  },
})
