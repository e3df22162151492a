// SPDX-License-Identifier: Apache-2.0

import { atMost } from '#base'
import type { AddressPair, Port, Ports } from '#openstack'
import { coverOf, nameOfPrefix, prefixOf } from './cover.ts'
import type { ListDriver, ListView } from './list.ts'

/** How long a write of a port may take; then the answer is lost, and a look tells more than waiting. */
const WRITE_MS = 40_000

/** What a write has to name again as it was; whichever driver looked, for a later call brings another. */
const ports = new WeakMap<ListView, Port>()

export type PairsNeutron = { readonly ports: Pick<Ports, 'get' | 'update'> }

/**
 * `allowed_address_pairs` of a port: addresses and prefixes that may pass although they are not its own. An entry of ours
 * is an address or prefix with the port's own MAC. Neutron replaces the whole list with each write.
 */
export function pairsDriver(portId: string, neutron: () => Promise<PairsNeutron>): ListDriver {
  const viewOf = (port: Port): ListView => {
    const view: ListView = {
      entries: (port.allowed_address_pairs ?? []).map(pair => entryOf(pair, port.mac_address)),
      revision: port.revision_number,
      // Everything passes: Neutron refuses pairs there.
      isMoot: port.port_security_enabled === false,
    }
    ports.set(view, port)
    return view
  }

  return {
    kind: 'pairs',
    objectId: portId,
    writesWhole: true,
    lockName: `port-${portId}`,
    title: `address pairs of port ${portId}`,
    remedy:
      'free pairs of the port, let pods have addresses of one prefix ("neutronConf.blockSize"), or raise max_allowed_address_pair ' +
      'in Neutron and "neutronConf.maxAddressPairs"; binding "fixed_ips" needs no pairs',
    entriesOf: coverOf,
    async look(limits) {
      const port = await (await neutron()).ports.get(portId, limits)
      return port === undefined ? undefined : viewOf(port)
    },
    async write(view, { add, remove }, limits) {
      const port = ports.get(view)!
      const gone = new Set(remove)
      const staying = (port.allowed_address_pairs ?? []).filter(pair => !gone.has(entryOf(pair, port.mac_address)))
      const pairs: AddressPair[] = [...staying, ...add.map(ip_address => ({ ip_address }))]
      const within = { ...limits, deadline: atMost(limits.deadline, WRITE_MS), ifRevision: view.revision }
      return viewOf(await (await neutron()).ports.update(portId, { allowed_address_pairs: pairs }, within))
    },
    // Neutron removes the rows that it saw and inserts all that we name: one that another write has inserted meanwhile is in
    // the way, and is called a duplicate in our request, where there is none.
    isOverlap: error => error.kind === 'conflict' || error.type === 'DuplicateAddressPairInRequest',
  }
}

/** A pair with another MAC than the port's is never one of ours. */
function entryOf({ ip_address, mac_address }: AddressPair, portMac: string): string {
  const address = nameOfPrefix(prefixOf(ip_address))
  return mac_address === undefined || mac_address.toLowerCase() === portMac.toLowerCase()
    ? address
    : `${address} ${mac_address.toLowerCase()}`
}
