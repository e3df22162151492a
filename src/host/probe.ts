// SPDX-License-Identifier: Apache-2.0

import { type Ip, ipEquals, isV4 } from '#base'
import { receive, sendPacket } from '#libc'
import { concat } from '#netlink'
import type { HostContext } from './context.ts'

const ETH_P_ARP = 0x0806
const ARP_REPLY = 2
const ARP_BYTES = 28
const broadcast = new Uint8Array(6).fill(0xff)

/** A question that only who may use `address` can ask: who has `target`? */
export type ArpProbe = { readonly address: Ip; readonly target: Ip }

/**
 * Tells which addresses may be used on the uplink's segment, without having them: an ARP request with the address as its
 * sender passes the cloud's port security only if the port has the address, and only then the target answers. Answers to
 * earlier calls are collected, then those without an answer are asked again. Waits for nothing. IPv4 only.
 */
export function probeArp(
  context: HostContext,
  uplink: { index: number; mac: Uint8Array },
  probes: readonly ArpProbe[],
): Ip[] {
  const listener = context.arpListener(uplink.index)
  const asked = probes.filter(({ address, target }) => isV4(address) && isV4(target))
  const answered = new Set<ArpProbe>()
  const buffer = new Uint8Array(1500)
  for (let packet = receive(listener, buffer, 0); packet !== undefined; packet = receive(listener, buffer, 0))
    for (const probe of asked) if (isReply(packet, probe, uplink.mac)) answered.add(probe)
  for (const probe of asked)
    if (!answered.has(probe))
      sendPacket(context.packet, uplink.index, ETH_P_ARP, broadcast, arpRequest(probe, uplink.mac))
  return [...answered].map(({ address }) => address)
}

/** RFC 826: Ethernet, IPv4, request. */
export function arpRequest({ address, target }: ArpProbe, mac: Uint8Array): Uint8Array {
  return concat([Uint8Array.of(0, 1, 8, 0, 6, 4, 0, 1), mac, address, new Uint8Array(6), target])
}

/** True for the target's answer to the probe. */
export function isReply(packet: Uint8Array, { address, target }: ArpProbe, mac: Uint8Array): boolean {
  if (packet.length < ARP_BYTES || packet[6] !== 0 || packet[7] !== ARP_REPLY) return false
  return (
    ipEquals(packet.subarray(14, 18), target) &&
    ipEquals(packet.subarray(18, 24), mac) &&
    ipEquals(packet.subarray(24, 28), address)
  )
}
