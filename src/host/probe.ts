// SPDX-License-Identifier: Apache-2.0

import { type Ip, ipEquals, isV4 } from '#base'
import { receive, sendPacket } from '#libc'
import { arpRequest, broadcastMac, ETH_P_ARP } from './arp.ts'
import type { HostContext } from './context.ts'

const ARP_REPLY = 2
const ARP_BYTES = 28

/** A question that only who may use `address` can ask: who has `target`? */
export type ArpProbe = { readonly address: Ip; readonly target: Ip }

/** Answers that were heard and that nobody has asked for yet, with the time. Several callers share one listener. */
const heard = new WeakMap<HostContext, Map<string, number>>()
/** An older answer says little about now. */
const HEARD_MS = 2_000

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
  const asked = probes.filter(({ address, target }) => isV4(address) && isV4(target))
  const answers = collectAnswers(context, uplink)
  const answered = asked.filter(probe => answers.delete(nameOf(probe)))
  for (const probe of asked)
    if (!answered.includes(probe))
      sendPacket(context.packet, uplink.index, ETH_P_ARP, broadcastMac, arpRequest(probe, uplink.mac))
  return answered.map(({ address }) => address)
}

const nameOf = ({ address, target }: ArpProbe) => `${address.join('.')} ${target.join('.')}`

/** What came in since the last call, whoever asked, beside what is still of use from before. */
function collectAnswers(context: HostContext, uplink: { index: number; mac: Uint8Array }): Map<string, number> {
  const now = performance.now()
  const answers = new Map([...(heard.get(context) ?? [])].filter(([, atMs]) => now - atMs < HEARD_MS))
  heard.set(context, answers)
  const listener = context.arpListener(uplink.index)
  const buffer = new Uint8Array(1500)
  for (let packet = receive(listener, buffer, 0); packet !== undefined; packet = receive(listener, buffer, 0)) {
    const probe = readReply(packet, uplink.mac)
    if (probe !== undefined) answers.set(nameOf(probe), now)
  }
  return answers
}

/** The question that a packet answers; undefined if it is no answer to us. */
export function readReply(packet: Uint8Array, mac: Uint8Array): ArpProbe | undefined {
  if (packet.length < ARP_BYTES || packet[6] !== 0 || packet[7] !== ARP_REPLY) return undefined
  if (!ipEquals(packet.subarray(18, 24), mac)) return undefined
  return { address: packet.slice(24, 28), target: packet.slice(14, 18) }
}
