// SPDX-License-Identifier: Apache-2.0

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import {
  adoptAddress,
  listKnownPorts,
  listPortAddresses,
  openJournal,
  type PortAddress,
  releaseAddress,
} from '#allocator'
import { formatIp, parseIp } from '#base'
import { readBootId } from '#host'
import { listWaitingForCredentials } from '#plugins'

export type AddressOptions = { readonly dataDir: string }

export type AddressList = {
  readonly table: readonly string[]
  /** What the user has to do something about. */
  readonly warnings: readonly string[]
}

/** Where an adopted address might still be known to somebody, it is not given out at once. */
const COOL_DOWN_MS = 30_000

/** @throws {Error} where nothing was ever recorded there */
function journalOf(dataDir: string) {
  if (!existsSync(join(dataDir, 'journal.db')))
    throw new Error(`Cannot look for addresses: there is no journal in ${dataDir}. Name the agent's --data-dir`)
  return openJournal(dataDir)
}

/** What the journal knows of the addresses on the node's Neutron ports. */
export function listAddresses({ dataDir }: AddressOptions): AddressList {
  using journal = journalOf(dataDir)
  const waiting = listWaitingForCredentials(journal, readBootId())
  const isWaiting = ({ portId, address }: PortAddress) =>
    waiting.some(({ addresses }) => addresses.some(each => each.portId === portId && each.address === address))
  const rows = listKnownPorts(journal)
    .flatMap(({ portId }) => listPortAddresses(journal, portId))
    .map(each => {
      const { address, state, portId, owner } = each
      const whose = owner === undefined ? '-' : `${owner.network} ${owner.containerId} ${owner.ifName}`
      return [address, state, portId, isWaiting(each) ? `${whose} (waits for credentials)` : whose]
    })
  const table = [['ADDRESS', 'STATE', 'PORT', 'OWNER'], ...rows]
  const widths = [0, 1, 2].map(column => Math.max(...table.map(row => row[column]!.length)))
  return {
    table: table.map(row =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    ),
    warnings: waiting.map(({ text }) => text),
  }
}

/**
 * Ends the quarantine of an address: `adopt` takes it for ours and nobody's, `release` takes it off its port.
 * @returns a line for the user @throws {Error} where it is not in quarantine
 */
export function endQuarantine(verb: 'adopt' | 'release', text: string, { dataDir }: AddressOptions): string {
  using journal = journalOf(dataDir)
  const address = formatIp(parseIp(text))
  const found = listKnownPorts(journal)
    .flatMap(({ portId }) => listPortAddresses(journal, portId))
    .find((each: PortAddress) => each.address === address && each.state === 'quarantined')
  if (found === undefined) throw new Error(`Cannot ${verb} ${address}: it is not in quarantine. See mooring ip list`)
  const { portId } = found
  if (verb === 'adopt') {
    adoptAddress(journal, { portId, address, coolDownMs: COOL_DOWN_MS })
    return `${address} is in the reserve of port ${portId}, and can be a pod's in ${COOL_DOWN_MS / 1000} s`
  }
  releaseAddress(journal, { portId, address })
  return `${address} goes off port ${portId} with the next change of the port, or with mooring drain`
}
