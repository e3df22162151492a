// SPDX-License-Identifier: Apache-2.0

import { formatPrefix, isV4, type Prefix, parseIp, parsePrefix } from '#base'
import type { JsonObject } from '#cni'
import type { VethHostRules } from '#host'

/** What an attachment has on the node and in the pod: all that DEL must know, when nothing else is left to ask. */
export type Traces = {
  hostLink: string
  owner: string
  /** The pod's end. */
  ifName: string
  table: number
  mark: number
  /** With their prefix lengths. */
  addresses: string[]
  /** The first of each family stands for the pod. */
  nodeAddresses: string[]
  /** To which there are routes of their own. */
  services: string[]
  plain: boolean
  metadata: boolean
  /** Not from the journal: what the node's rules know of the link is not known here. */
  isFound?: boolean
}

/** What the node's rules know of the pod. */
export function vethHostRules(traces: Traces): VethHostRules {
  const { hostLink: link, mark, plain, metadata } = traces
  const nodes = traces.nodeAddresses.map(parseIp)
  const addresses = traces.addresses.flatMap(text => {
    const { ip: address } = parsePrefix(text)
    const node = nodes.find(each => isV4(each) === isV4(address))
    return node === undefined ? [] : [{ address, node }]
  })
  return { link, mark, addresses, plain, metadata }
}

/** Traces of what was found by its link alone; the configuration need not be valid. */
export function tracesAsFound(
  found: Pick<Traces, 'hostLink' | 'owner' | 'table' | 'mark'> & { addresses: Prefix[] },
  config: JsonObject,
): Traces {
  const [, ifName] = Object.entries(config).find(([key]) => key.toLowerCase() === 'containerinterface') ?? []
  return {
    ...found,
    addresses: found.addresses.map(formatPrefix),
    nodeAddresses: [],
    services: [],
    ifName: typeof ifName === 'string' ? ifName : 'veth0',
    plain: false,
    metadata: false,
    isFound: true,
  }
}
