// SPDX-License-Identifier: Apache-2.0

import { createHash } from 'node:crypto'
import { ENOENT } from '#libc'
import type { Transport } from '#netlink'
import {
  type Chain,
  type Change,
  commit,
  deleteChain,
  deleteRules,
  findRules,
  getChains,
  NftablesError,
} from '#nftables'

/** By what upstream's plugin of the name portmap knows a pod. */
export type UpstreamPod = { readonly network: string; readonly containerId: string }

/**
 * Removes what upstream's plugin made for a pod, of both its back ends, for a DEL on a node that changed over to ours;
 * absence is success. Rules of the old iptables back end (iptables-legacy) are not seen.
 * @throws {NftablesError}
 */
export function removeUpstreamPorts(transport: Transport, pod: UpstreamPod): void {
  for (const family of ['ip', 'ip6'] as const)
    for (const changes of [
      iptablesRules(transport, { family, name: 'nat' }, pod),
      nftablesRules(transport, { family, name: 'cni_hostport' }, pod),
    ])
      try {
        commit(transport, changes)
      } catch (error) {
        // Upstream's plugin runs beside us, and removes the same where a runtime calls twice.
        if (!(error instanceof NftablesError && error.errno === ENOENT)) throw error
      }
}

/** A chain per pod, named by a hash, and rules that lead to it. */
function iptablesRules(transport: Transport, table: Chain['table'], { network, containerId }: UpstreamPod): Change[] {
  const hash = createHash('sha512').update(`${network}${containerId}`).digest('hex')
  const chain = { table, name: `CNI-DN-${hash.slice(0, 21)}` }
  if (getChains(transport, [chain])[0] === undefined) return []
  const dispatcher = { table, name: 'CNI-HOSTPORT-DNAT' }
  return [
    ...findRules(transport, dispatcher, chain.name).map(handle => deleteRules(dispatcher, handle)),
    deleteRules(chain),
    deleteChain(chain),
  ]
}

/** Rules whose comment is the container, whatever the network. */
function nftablesRules(transport: Transport, table: Chain['table'], { containerId }: UpstreamPod): Change[] {
  const chains = ['hostports', 'hostip_hostports', 'masquerading'].map(name => ({ table, name }))
  const present = getChains(transport, chains)
  // The comment with its type, length and end, so that no longer name is meant.
  const comment = `\0${String.fromCharCode(containerId.length + 1)}${containerId}\0`
  return chains
    .filter((_, index) => present[index] !== undefined)
    .flatMap(chain => findRules(transport, chain, comment).map(handle => deleteRules(chain, handle)))
}
