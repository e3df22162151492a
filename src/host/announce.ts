// SPDX-License-Identifier: Apache-2.0

import { type Ip, isV4, parseIp } from '#base'
import { SystemError, sendPacket } from '#libc'
import { concat } from '#netlink'
import { arpRequest, broadcastMac, ETH_P_ARP } from './arp.ts'
import type { HostContext } from './context.ts'

const ETH_P_IPV6 = 0x86dd
const allNodes = parseIp('ff02::1')
const allNodesMac = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1)

/**
 * Tells the segment that an address is now at the uplink's MAC: an ARP announcement (RFC 5227, section 3) or an
 * unsolicited neighbour advertisement (RFC 4861, section 7.2.6). Whoever knew its last owner learns the new one.
 *
 * A courtesy: what cannot be sent, because the uplink is down or its queue is full, is no failure of the pod.
 */
export function announce(
  context: Pick<HostContext, 'packet'>,
  uplink: { index: number; mac: Uint8Array },
  addresses: readonly Ip[],
): void {
  try {
    for (const address of addresses) {
      if (isV4(address))
        sendPacket(context.packet, uplink.index, ETH_P_ARP, broadcastMac, arpAnnouncement(address, uplink.mac))
      else
        sendPacket(context.packet, uplink.index, ETH_P_IPV6, allNodesMac, neighbourAdvertisement(address, uplink.mac))
    }
  } catch (error) {
    if (!(error instanceof SystemError)) throw error
  }
}

export const arpAnnouncement = (address: Ip, mac: Uint8Array): Uint8Array =>
  arpRequest({ address, target: address }, mac)

/** IPv6 header and ICMPv6 type 136 with the override flag and the target's link-layer address. */
export function neighbourAdvertisement(address: Ip, mac: Uint8Array): Uint8Array {
  const icmp = concat([Uint8Array.of(136, 0, 0, 0, 0x20, 0, 0, 0), address, Uint8Array.of(2, 1), mac])
  const sum = checksum(concat([address, allNodes, Uint8Array.of(0, 0, 0, icmp.length, 0, 0, 0, 58), icmp]))
  icmp[2] = sum >> 8
  icmp[3] = sum & 0xff
  // Hop limit 255, else it is ignored.
  return concat([Uint8Array.of(0x60, 0, 0, 0, 0, icmp.length, 58, 255), address, allNodes, icmp])
}

/** RFC 1071. */
function checksum(data: Uint8Array): number {
  let sum = 0
  for (let index = 0; index < data.length; index += 2) sum += data[index]! * 256 + (data[index + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}
