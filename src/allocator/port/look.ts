// SPDX-License-Identifier: Apache-2.0

import type { Port, Ports } from '#openstack'
import type { Journal } from '../journal.ts'
import { AllocationError } from './error.ts'
import { type Limits, pause } from './lock.ts'
import { findKnownPort, type KnownPort, type PortSettings } from './port-store.ts'
import { listKnownAddresses } from './store.ts'

export type LookOptions = {
  readonly journal: Journal
  readonly neutron: { readonly ports: Pick<Ports, 'get'> }
  readonly portId: string
  readonly settings: Pick<PortSettings, 'nic'>
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
 * port has that was never seen before is nobody's to lose: the first answer has to be given twice as well.
 *
 * What cannot be is not believed however often it is said: see `untruthOf`. A list is written as a whole, so what a wrong
 * one lacks would be taken from whoever has it.
 *
 * @throws {AllocationError} `gone` where Neutron does not know the port; `strange` where what it shows cannot be
 * @throws {OpenStackError}
 */
export async function lookAtPort({ journal, neutron, portId, settings, limits }: LookOptions): Promise<Look> {
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
    const doubt = known === undefined ? addressesOf(port).join(' ') : missedBy(port, journal).join(' ')
    const isSame = doubt === before || (known !== undefined && doubt === '')
    const untruth = untruthOf(port, known, journal, settings)
    if (again === LOOKS_MAX && untruth !== undefined) throw untruth
    if ((isSame && !isOlder && untruth === undefined) || again === LOOKS_MAX) return { port, isOlder }
    before = doubt
    // Nothing speaks against the first answer.
    if (known !== undefined || again > 0 || untruth !== undefined) await pause(AGAIN_MS * 2 ** again, limits)
  }
}

/** It has the addresses of its NIC; a port of our own has none at first. */
const isServers = ({ device_owner }: Port) => device_owner.startsWith('compute:')

const addressesOf = ({ fixed_ips }: Port) => fixed_ips.map(each => each.ip_address)

/** The addresses that the journal has on a port and an answer does not. */
function missedBy(
  port: Port,
  journal: Journal,
  isMeant: (each: ReturnType<typeof listKnownAddresses>[number]) => boolean = () => true,
): string[] {
  const present = new Set(addressesOf(port))
  return listKnownAddresses(journal, port.id)
    .filter(each => !present.has(each.address) && isMeant(each))
    .map(each => each.address)
    .sort()
}

/**
 * Why an answer is wrong, whatever is recorded: it shows a server's port without any address; it shows none of those that
 * the NIC has, as this node's kernel says; it lacks what others have and an earlier answer had, although every change since
 * would have made another revision of the port. An address of ours may be missed so: it is put back, or its pod is gone.
 */
function untruthOf(
  port: Port,
  known: KnownPort | undefined,
  journal: Journal,
  { nic }: LookOptions['settings'],
): AllocationError | undefined {
  const { id, revision_number: revision } = port
  const untruth = (what: string, remedy: string) =>
    new AllocationError(
      'strange',
      `Cannot use what Neutron shows of port ${id}: ${what}; nothing is written on such ground`,
      { remedy },
    )
  if (port.fixed_ips.length === 0 && isServers(port))
    return untruth('it has no address at all, and is a server’s', `see openstack port show ${id}`)
  const own = nic?.mac === port.mac_address.toLowerCase() ? nic.addresses : []
  if (own.length > 0 && !addressesOf(port).some(address => own.includes(address)))
    return untruth(
      `it lacks ${own.join(', ')}, which its NIC has (${nic!.mac})`,
      `if that is so, give the port the address, or take it off the NIC: openstack port show ${id}`,
    )
  if (known === undefined || revision === undefined || revision !== known.revision) return undefined
  const missed = missedBy(port, journal, isOthers)
  if (missed.length === 0) return undefined
  return untruth(
    `it lacks ${missed.join(', ')}, which it had at the same revision ${revision}`,
    `if that is so, any change of the port makes it believed: openstack port set --name NAME ${id}`,
  )
}

/** True for what is, or may be, somebody else's. */
export const isOthers = ({ state }: { readonly state: string }) => state === 'foreign' || state === 'quarantined'
