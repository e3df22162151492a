// SPDX-License-Identifier: Apache-2.0

import { formatPrefix, type Prefix, parsePrefix } from '#base'
import type { FirewallPod } from '#host'

/** What an attachment has on the node: all that DEL must know, when nothing else is left to ask. */
export type Traces = {
  hostLink: string
  owner: string
  addresses: Prefix[]
  /** Where the node answers for the addresses. */
  uplinkIndex: number | undefined
  ipMasq: boolean
  metadata: boolean
}

/** For the journal. */
export const encodeTraces = (traces: Traces): string =>
  JSON.stringify({ ...traces, addresses: traces.addresses.map(formatPrefix) })

/** From the journal. */
export function decodeTraces(text: string): Traces {
  const traces = JSON.parse(text) as Omit<Traces, 'addresses'> & { addresses: string[] }
  return { ...traces, uplinkIndex: traces.uplinkIndex, addresses: traces.addresses.map(parsePrefix) }
}

/** What the firewall knows of the pod. */
export const firewallPod = ({ hostLink, addresses, ipMasq, metadata }: Traces): FirewallPod => ({
  link: hostLink,
  addresses: addresses.map(({ ip }) => ip),
  masquerade: ipMasq ? addresses : undefined,
  metadata,
})
