// SPDX-License-Identifier: Apache-2.0

import type { Port, Ports } from '#openstack'
import type { Journal } from '../journal.ts'
import { AllocationError } from './error.ts'
import { type Limits, pause } from './lock.ts'
import { findKnownPort, listKnownAddresses } from './store.ts'

export type LookOptions = {
  readonly journal: Journal
  readonly neutron: { readonly ports: Pick<Ports, 'get'> }
  readonly portId: string
  readonly limits: Limits
}

export type Look = {
  readonly port: Port
  /** It is older than one seen before, and stays so: a replica that lags far behind, or a database that was restored. */
  readonly isOlder: boolean
}

/** Looks after the first: nothing is destroyed on the ground of what is still in doubt then. */
const LOOKS_MAX = 3
const AGAIN_MS = 100

/**
 * The port as it is now. An answer that is older than one seen before comes from a replica that lags, and one that lacks
 * what is recorded may be wrong: it is asked again, and what is missing is believed where two answers miss the same. What a
 * port has that was never seen before is nobody's to lose: the first answer has to be given twice as well. A server's port
 * without any address is believed after the last look only: a wrong list is an empty one more often than not.
 *
 * @throws {AllocationError} `gone` where Neutron does not know the port
 * @throws {OpenStackError}
 */
export async function lookAtPort({ journal, neutron, portId, limits }: LookOptions): Promise<Look> {
  let before: string | undefined
  for (let again = 0; ; again++) {
    const port = await neutron.ports.get(portId, limits)
    if (port === undefined)
      throw new AllocationError(
        'gone',
        `Cannot use port ${portId}: Neutron does not know it; it was deleted, or belongs to another project`,
      )
    const known = findKnownPort(journal, portId)
    const isOlder = (port.revision_number ?? 0) < (known?.revision ?? 0) && port.revision_number !== undefined
    const doubt = known === undefined ? addressesOf(port).join(' ') : missedBy(port, journal)
    const isSame = doubt === before || (known !== undefined && doubt === '')
    const isBelieved = isSame && !isOlder && !(port.fixed_ips.length === 0 && isServers(port))
    if (isBelieved || again === LOOKS_MAX) return { port, isOlder }
    before = doubt
    // Nothing speaks against the first answer.
    if (known !== undefined || again > 0) await pause(AGAIN_MS * 2 ** again, limits)
  }
}

/** It has the addresses of its NIC; a port of our own has none at first. */
const isServers = ({ device_owner }: Port) => device_owner.startsWith('compute:')

const addressesOf = ({ fixed_ips }: Port) => fixed_ips.map(each => each.ip_address)

/** The addresses that the journal has on a port and an answer does not, in one text. */
function missedBy(port: Port, journal: Journal): string {
  const present = new Set(addressesOf(port))
  return listKnownAddresses(journal, port.id)
    .map(each => each.address)
    .filter(address => !present.has(address))
    .sort()
    .join(' ')
}
