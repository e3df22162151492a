// SPDX-License-Identifier: Apache-2.0

import type { Ip } from '#base'
import { concat } from '#netlink'

// linux/if_ether.h
export const ETH_P_ARP = 0x0806
export const broadcastMac = new Uint8Array(6).fill(0xff)

/** Who has `target`, asked as `address` (RFC 826: Ethernet, IPv4, request). Where both are the same, an announcement. */
export const arpRequest = ({ address, target }: { address: Ip; target: Ip }, mac: Uint8Array): Uint8Array =>
  concat([Uint8Array.of(0, 1, 8, 0, 6, 4, 0, 1), mac, address, new Uint8Array(6), target])
