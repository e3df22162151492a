// SPDX-License-Identifier: Apache-2.0

import { attributes, nested, u32be } from '#netlink'

// linux/netfilter/nf_tables.h, enum nft_payload_attributes and nft_payload_bases
const NFTA_PAYLOAD_DREG = 1
const NFTA_PAYLOAD_BASE = 2
const NFTA_PAYLOAD_OFFSET = 3
const NFTA_PAYLOAD_LEN = 4
const LINK_HEADER = 0
const NETWORK_HEADER = 1
const TRANSPORT_HEADER = 2

/** Loads bytes of the packet into a register. */
export const payloadAttributes = nested(
  attributes({
    register: [NFTA_PAYLOAD_DREG, u32be],
    base: [NFTA_PAYLOAD_BASE, u32be],
    offset: [NFTA_PAYLOAD_OFFSET, u32be],
    bytes: [NFTA_PAYLOAD_LEN, u32be],
  }),
)

/** Header fields by nft's names. Those of `ip`, `ip6`, `arp` and `icmp` only after the packet's family or protocol was matched. */
const fields = {
  'ether saddr': { base: LINK_HEADER, offset: 6, bytes: 6 },
  'arp saddr ip': { base: NETWORK_HEADER, offset: 14, bytes: 4 },
  'ip saddr': { base: NETWORK_HEADER, offset: 12, bytes: 4 },
  'ip daddr': { base: NETWORK_HEADER, offset: 16, bytes: 4 },
  'ip6 saddr': { base: NETWORK_HEADER, offset: 8, bytes: 16 },
  'ip6 daddr': { base: NETWORK_HEADER, offset: 24, bytes: 16 },
  'icmp type': { base: TRANSPORT_HEADER, offset: 0, bytes: 1 },
  'th sport': { base: TRANSPORT_HEADER, offset: 0, bytes: 2 },
  'th dport': { base: TRANSPORT_HEADER, offset: 2, bytes: 2 },
} as const

/** Loads a header field. */
export const loadField = (name: keyof typeof fields, register: number) => ({
  kind: 'payload' as const,
  data: { register, ...fields[name] },
})
