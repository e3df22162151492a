// SPDX-License-Identifier: Apache-2.0

import { createHash } from 'node:crypto'
import { ENOENT } from '#libc'
import type { Transport } from '#netlink'
import { type Change, commit, deleteChain, deleteRules, findRules, getChains, NftablesError } from '#nftables'

/** What upstream's plugins name their masquerade rules after. */
export type ForeignAttachment = { network: string; containerId: string; ifName: string }

const hash = (text: string, length: number) => createHash('sha512').update(text).digest('hex').slice(0, length)

/**
 * Removes the rules by which upstream's ptp and bridge hide a container (`ipMasq`), of both their back ends; absence is
 * success. Rules of the old iptables back end (iptables-legacy) are not seen.
 * @throws {NftablesError}
 */
export function removeForeignMasquerade(transport: Transport, attachment: ForeignAttachment): void {
  // Upstream's plugins run beside us, and remove the same at the same time where a runtime calls twice.
  for (const changes of [iptablesRules(transport, attachment), nftablesRules(transport, attachment)])
    try {
      if (changes.length > 0) commit(transport, changes)
    } catch (error) {
      if (!(error instanceof NftablesError && error.errno === ENOENT)) throw error
    }
}

/** A chain per container, and rules that lead there: containernetworking/plugins, pkg/ip/ipmasq_iptables_linux.go. */
function iptablesRules(transport: Transport, { network, containerId }: ForeignAttachment): Change[] {
  const name = `CNI-${hash(network + containerId, 24)}`
  return (['ip', 'ip6'] as const).flatMap(family => {
    const table = { family, name: 'nat' }
    const [own] = getChains(transport, [{ table, name }])
    if (own === undefined) return []
    const postrouting = { table, name: 'POSTROUTING' }
    return [
      ...findRules(transport, postrouting, name).map(handle => deleteRules(postrouting, handle)),
      deleteRules({ table, name }),
      deleteChain({ table, name }),
    ]
  })
}

/** Rules whose comment begins with the attachment's hash: the same, ipmasq_nftables_linux.go. */
function nftablesRules(transport: Transport, { network, containerId, ifName }: ForeignAttachment): Change[] {
  const chain = { table: { family: 'inet', name: 'cni_plugins_masquerade' }, name: 'masq_checks' } as const
  if (getChains(transport, [chain])[0] === undefined) return []
  const comment = `${hash(network, 16)}-${hash(`${ifName}:${containerId}`, 16)}`
  return findRules(transport, chain, comment).map(handle => deleteRules(chain, handle))
}
