// SPDX-License-Identifier: Apache-2.0

import type { AttachmentKey } from '#allocator'
import { formatIp, formatPrefix, parseIp, parsePrefix, sha256Hex } from '#base'
import type { Condition, HostPorts } from '#host'

/** What an attachment has on the node. Without its ports, where only the owner is known: DEL without a record. */
export type Traces = {
  owner: string
  ports?: { protocol: number; hostPort: number; hostIp?: string; pod: string; podPort: number }[]
  masquerade?: { bit: number; all: boolean; near: string[] }
  conditions?: { v4: ConditionText[]; v6: ConditionText[] }
}
type ConditionText = { end: Condition['end']; negated: boolean; network: string }

/** For the journal. */
export function tracesOf({ owner, ports, masquerade, conditions }: HostPorts): Traces {
  const text = ({ network, ...rest }: Condition) => ({ ...rest, network: formatPrefix(network) })
  return {
    owner,
    ports: ports.map(({ hostIp, pod, ...rest }) => ({
      ...{ ...rest, pod: formatIp(pod) },
      ...(hostIp === undefined ? {} : { hostIp: formatIp(hostIp) }),
    })),
    ...(masquerade === undefined ? {} : { masquerade: { ...masquerade, near: masquerade.near.map(formatPrefix) } }),
    conditions: { v4: conditions.v4.map(text), v6: conditions.v6.map(text) },
  }
}

/** From the journal; undefined where only the owner is known. */
export function hostPortsOf({ owner, ports, masquerade, conditions }: Traces): HostPorts | undefined {
  if (ports === undefined) return undefined
  const condition = ({ network, ...rest }: ConditionText) => ({ ...rest, network: parsePrefix(network) })
  return {
    owner,
    ports: ports.map(({ hostIp, pod, ...rest }) => ({
      ...{ ...rest, pod: parseIp(pod) },
      ...(hostIp === undefined ? {} : { hostIp: parseIp(hostIp) }),
    })),
    masquerade: masquerade === undefined ? undefined : { ...masquerade, near: masquerade.near.map(parsePrefix) },
    conditions: {
      v4: conditions?.v4.map(condition) ?? [],
      v6: conditions?.v6.map(condition) ?? [],
    },
  }
}

/** The room of a comment in nf_tables as `nft` reads it. */
const OWNER_BYTES_MAX = 127

/** What stands beside each element. A key that is too long is told by its hash. */
export function ownerOf({ network, containerId, ifName }: AttachmentKey): string {
  const written = `${network} ${containerId} ${ifName}`
  if (Buffer.byteLength(written) <= OWNER_BYTES_MAX) return written
  return sha256Hex(written)
}

/** The owner for a message. */
export function describeOwner(owner: string): string {
  const [network, containerId, ifName] = owner.split(' ')
  return ifName === undefined
    ? `the attachment "${owner}"`
    : `container ${containerId} (network ${network}, interface ${ifName})`
}
