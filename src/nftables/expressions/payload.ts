// SPDX-License-Identifier: Apache-2.0

import { attributes, nested, u32be } from '#netlink'

// linux/netfilter/nf_tables.h, enum nft_payload_attributes and nft_payload_bases
const NFTA_PAYLOAD_DREG = 1
const NFTA_PAYLOAD_BASE = 2
const NFTA_PAYLOAD_OFFSET = 3
const NFTA_PAYLOAD_LEN = 4
const NFTA_PAYLOAD_SREG = 5
const NFTA_PAYLOAD_CSUM_TYPE = 6
const NFTA_PAYLOAD_CSUM_OFFSET = 7
const NFTA_PAYLOAD_CSUM_FLAGS = 8
const NFT_PAYLOAD_CSUM_INET = 1
const NFT_PAYLOAD_L4CSUM_PSEUDOHDR = 1
const LINK_HEADER = 0
const NETWORK_HEADER = 1
const TRANSPORT_HEADER = 2

/** Loads bytes of the packet into a register, or writes them from one. */
export const payloadAttributes = nested(
  attributes({
    register: [NFTA_PAYLOAD_DREG, u32be],
    base: [NFTA_PAYLOAD_BASE, u32be],
    offset: [NFTA_PAYLOAD_OFFSET, u32be],
    bytes: [NFTA_PAYLOAD_LEN, u32be],
    source: [NFTA_PAYLOAD_SREG, u32be],
    checksumType: [NFTA_PAYLOAD_CSUM_TYPE, u32be],
    checksumOffset: [NFTA_PAYLOAD_CSUM_OFFSET, u32be],
    checksumFlags: [NFTA_PAYLOAD_CSUM_FLAGS, u32be],
  }),
)

/** Header fields by nft's names. Those of `ip`, `ip6` and `arp` only after the packet's family or protocol was matched. */
const fields = {
  'ether daddr': { base: LINK_HEADER, offset: 0, bytes: 6 },
  'ether saddr': { base: LINK_HEADER, offset: 6, bytes: 6 },
  /** Kinds and lengths of both addresses, and the operation. */
  'arp header': { base: NETWORK_HEADER, offset: 0, bytes: 8 },
  'arp operation': { base: NETWORK_HEADER, offset: 6, bytes: 2 },
  /** MAC and IP address. */
  'arp sender': { base: NETWORK_HEADER, offset: 8, bytes: 10 },
  'arp saddr ether': { base: NETWORK_HEADER, offset: 8, bytes: 6 },
  'arp saddr ip': { base: NETWORK_HEADER, offset: 14, bytes: 4 },
  /** MAC and IP address. */
  'arp target': { base: NETWORK_HEADER, offset: 18, bytes: 10 },
  'arp daddr ip': { base: NETWORK_HEADER, offset: 24, bytes: 4 },
  'ip saddr': { base: NETWORK_HEADER, offset: 12, bytes: 4 },
  'ip daddr': { base: NETWORK_HEADER, offset: 16, bytes: 4 },
  'ip6 saddr': { base: NETWORK_HEADER, offset: 8, bytes: 16 },
  'ip6 daddr': { base: NETWORK_HEADER, offset: 24, bytes: 16 },
  'ip6 length nexthdr': { base: NETWORK_HEADER, offset: 4, bytes: 3 },
  'nd type code': { base: TRANSPORT_HEADER, offset: 0, bytes: 2 },
  'nd flags': { base: TRANSPORT_HEADER, offset: 4, bytes: 4 },
  'nd target': { base: TRANSPORT_HEADER, offset: 8, bytes: 16 },
  /** Kind and length of the first option, then its MAC address. */
  'nd option': { base: TRANSPORT_HEADER, offset: 24, bytes: 2 },
  'nd option ether': { base: TRANSPORT_HEADER, offset: 26, bytes: 6 },
  'th sport': { base: TRANSPORT_HEADER, offset: 0, bytes: 2 },
  'th dport': { base: TRANSPORT_HEADER, offset: 2, bytes: 2 },
} as const

/** Loads a header field, or its first bytes. */
export const loadField = (name: keyof typeof fields, register: number, bytes: number = fields[name].bytes) => ({
  kind: 'payload' as const,
  data: { register, ...fields[name], bytes },
})

/** Which checksum a field is part of, for it to be made good: that of ICMPv6, or, for addresses, that of what follows. */
const checksums = {
  none: {},
  icmpv6: { checksumType: NFT_PAYLOAD_CSUM_INET, checksumOffset: 2 },
  pseudoHeader: { checksumFlags: NFT_PAYLOAD_L4CSUM_PSEUDOHDR },
} as const

/** Writes a header field from a register. */
export const storeField = (name: keyof typeof fields, source: number, checksum: keyof typeof checksums = 'none') => ({
  kind: 'payload' as const,
  data: { source, ...fields[name], ...checksums[checksum] },
})
