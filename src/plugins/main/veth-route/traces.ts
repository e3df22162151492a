// SPDX-License-Identifier: Apache-2.0

import { formatPrefix, type Prefix, parsePrefix } from '#base'
import type { FirewallPod } from '#host'

/** What an attachment has on the node: all that DEL must know, when nothing else is left to ask. */
export type Traces = {
  hostLink: string
  owner: string
  /** With their prefix lengths. */
  addresses: string[]
  /** Where the node answers for the addresses; left out: nowhere. */
  uplinkIndex?: number
  /** Networks towards which the addresses stay what they are; left out: they always do. */
  masquerade?: string[]
  metadata: boolean
}

export const prefixesOf = (texts: readonly string[]): Prefix[] => texts.map(parsePrefix)
export const textsOf = (prefixes: readonly Prefix[]): string[] => prefixes.map(formatPrefix)

/** What the firewall knows of the pod. */
export const firewallPod = (traces: Omit<Traces, 'owner' | 'uplinkIndex'>): FirewallPod => ({
  link: traces.hostLink,
  addresses: prefixesOf(traces.addresses).map(({ ip }) => ip),
  masquerade: traces.masquerade === undefined ? undefined : prefixesOf(traces.masquerade),
  metadata: traces.metadata,
})
