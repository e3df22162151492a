// SPDX-License-Identifier: Apache-2.0

import { readFileSync } from 'node:fs'
import { formatMac, tryParseMac } from '#base'
import { type Call, lookup, type Result } from '#cni'
import type { At } from './interface.ts'

// What upstream's plugins did to a container: those of the same name, before ours took their place on the node, and others
// of the chain. There is no record of ours of it.

type Interfaces = NonNullable<Result['interfaces']>

/** The node's end of a pair as a result tells it: it stands right before the pod's. */
export const toldHostLink = (interfaces: Interfaces, podIndex: number): Interfaces[number] | undefined =>
  interfaces.slice(0, Math.max(0, podIndex)).findLast(({ sandbox }) => (sandbox ?? '') === '')

/**
 * The pair of an attachment: the result of its ADD tells the name and the MAC of the node's link, and a link of ours has an
 * owner. With `ipMasq` there may be rules although the link went with the container: then without a name.
 */
export async function findUpstreamPair({ call, world }: At): Promise<{ hostLink: string; mac: string } | undefined> {
  const { interfaces = [] } = call.prevResult ?? {}
  const podIndex = interfaces.findIndex(({ name, sandbox }) => name === call.ifName && (sandbox ?? '') !== '')
  const told = toldHostLink(interfaces, podIndex)
  const mac = tryParseMac(told?.mac ?? '')
  const found = told === undefined || mac === undefined ? undefined : await world.host.describeLink({ name: told.name })
  // A result is what a runtime kept: whatever it tells, only a pair is removed, never a bridge or a NIC.
  const isPair = found?.kind === 'veth' && found.owner === undefined
  if (isPair && formatMac(found.mac) === formatMac(mac!)) return { hostLink: told!.name, mac: formatMac(mac!) }
  return lookup(call.config, 'ipMasq') === true ? { hostLink: '', mac: '' } : undefined
}

/** Where upstream's tuning keeps what an interface had before, unless its `dataDir` says otherwise. */
const TUNING_DIRECTORY = '/run/cni/tuning'

/** True where upstream's tuning, later in the chain, gave the container's interface an MTU. No result tells of it. */
export function isMtuTuned({ containerId, ifName }: Pick<Call, 'containerId' | 'ifName'>): boolean {
  try {
    const text = readFileSync(`${TUNING_DIRECTORY}/${containerId}_${ifName}.json`, 'utf8')
    return (JSON.parse(text) as { mtu?: number } | null)?.mtu !== undefined
  } catch {
    // None, or one that it would not understand either.
    return false
  }
}
