// SPDX-License-Identifier: Apache-2.0

import type { Journal } from '../journal.ts'
import { OWNER, ownerKey } from '../owners.ts'
import type { AddressState, Known, Owner, PortAddress } from './plan.ts'

type AddressRow = {
  port_id: string
  address: string
  subnet_id: string
  state: AddressState
  network: string
  container_id: string
  if_name: string
  boot_id: string
  floating_ip: string | null
  usable_ms: number
  settling: number
  changed_ms: number
}

const COLUMNS =
  'port_id, address, subnet_id, state, network, container_id, if_name, boot_id, floating_ip, usable_ms, settling, changed_ms'

function fromRow(row: AddressRow): PortAddress {
  return {
    portId: row.port_id,
    address: row.address,
    subnetId: row.subnet_id,
    state: row.state,
    owner:
      row.container_id === ''
        ? undefined
        : { network: row.network, containerId: row.container_id, ifName: row.if_name },
    bootId: row.boot_id,
    floatingIp: row.floating_ip ?? undefined,
    usableMs: row.usable_ms,
    settling: row.settling !== 0,
    changedMs: row.changed_ms,
  }
}

/** The addresses of a port, oldest state first. */
export function listPortAddresses(journal: Journal, portId: string): PortAddress[] {
  return (
    journal
      .sql(`SELECT ${COLUMNS} FROM port_address WHERE port_id = ? ORDER BY changed_ms, address`)
      .all(portId) as AddressRow[]
  ).map(fromRow)
}

/** The same, without what only a reader or a plan wants to know: a port may have hundreds. */
export function listKnownAddresses(journal: Journal, portId: string): Known[] {
  const rows = journal.sql('SELECT address, state FROM port_address WHERE port_id = ?').all(portId) as {
    address: string
    state: AddressState
  }[]
  return rows.map(({ address, state }) => ({ portId, address, state }))
}

/** The addresses of a port that no attachment holds and that may be given or removed, oldest state first. */
export function listLooseAddresses(journal: Journal, portId: string): PortAddress[] {
  const rows = journal
    .sql(
      `SELECT ${COLUMNS} FROM port_address WHERE port_id = ? AND state IN ('free', 'releasing') ORDER BY changed_ms, address`,
    )
    .all(portId) as AddressRow[]
  return rows.map(fromRow)
}

/** The free address of a subnet that is the first to be usable, if it is so by then. */
export function findFreeAddress(
  journal: Journal,
  { portId, subnetId, usableByMs }: { portId: string; subnetId: string; usableByMs: number },
): PortAddress | undefined {
  const row = journal
    .sql(
      `SELECT ${COLUMNS} FROM port_address WHERE port_id = ? AND state = 'free' AND subnet_id = ? AND usable_ms <= ?
       AND floating_ip IS NULL ORDER BY usable_ms LIMIT 1`,
    )
    .get(portId, subnetId, usableByMs) as AddressRow | undefined
  return row === undefined ? undefined : fromRow(row)
}

/** The addresses of a port that are nobody's any more, or of an earlier boot, and that Neutron may not have heard of yet. */
export function listUnreleased(journal: Journal, portId: string, bootId: string): PortAddress[] {
  const rows = journal
    .sql(
      `SELECT ${COLUMNS} FROM port_address WHERE port_id = ?
       AND (state = 'releasing' OR (state = 'assigned' AND boot_id <> ?)) ORDER BY changed_ms, address`,
    )
    .all(portId, bootId) as AddressRow[]
  return rows.map(fromRow)
}

/** The ports with addresses that are on their way out. */
export const listPortsReleasing = (journal: Journal): string[] =>
  journal
    .sql("SELECT DISTINCT port_id FROM port_address WHERE state = 'releasing'")
    .all()
    .map(row => row['port_id'] as string)

/** True while addresses are on their way out. */
export const hasReleasing = (journal: Journal, portId: string): boolean =>
  journal.sql("SELECT 1 FROM port_address WHERE port_id = ? AND state = 'releasing' LIMIT 1").get(portId) !== undefined

/** The addresses that an attachment holds. */
export function listOwnedAddresses(journal: Journal, owner: Owner): PortAddress[] {
  return (
    journal
      .sql(`SELECT ${COLUMNS} FROM port_address WHERE ${OWNER} AND state = 'assigned'`)
      .all(...ownerKey(owner)) as AddressRow[]
  ).map(fromRow)
}

/** Every address that an attachment holds, of one network or of all. */
export function listAssignedAddresses(journal: Journal, network?: string): PortAddress[] {
  const rows =
    network === undefined
      ? journal.sql(`SELECT ${COLUMNS} FROM port_address WHERE state = 'assigned'`).all()
      : journal.sql(`SELECT ${COLUMNS} FROM port_address WHERE state = 'assigned' AND network = ?`).all(network)
  return (rows as AddressRow[]).map(fromRow)
}

/** Every address that nobody can attribute. */
export function listQuarantined(journal: Journal): PortAddress[] {
  return (
    journal
      .sql(`SELECT ${COLUMNS} FROM port_address WHERE state = 'quarantined' ORDER BY port_id, address`)
      .all() as AddressRow[]
  ).map(fromRow)
}

/** One address, undefined where the journal does not know it. */
export function findPortAddress(journal: Journal, portId: string, address: string): PortAddress | undefined {
  const row = journal
    .sql(`SELECT ${COLUMNS} FROM port_address WHERE port_id = ? AND address = ?`)
    .get(portId, address) as AddressRow | undefined
  return row === undefined ? undefined : fromRow(row)
}

/** Records an address that appeared on a port, nobody's so far. */
export function recordAddress(
  journal: Journal,
  {
    portId,
    subnetId,
    address,
    state,
    floatingIp,
    usableMs,
    settling,
  }: Omit<PortAddress, 'owner' | 'bootId' | 'changedMs'>,
): void {
  journal
    .sql(`INSERT OR REPLACE INTO port_address (${COLUMNS}) VALUES (?, ?, ?, ?, '', '', '', '', ?, ?, ?, ?)`)
    .run(portId, address, subnetId, state, floatingIp ?? null, usableMs, settling ? 1 : 0, Date.now())
}

/** Gives an address to an attachment. */
export function assignAddress(journal: Journal, address: PortAddress, owner: Owner, bootId: string): void {
  journal
    .sql(
      `UPDATE port_address SET state = 'assigned', network = ?, container_id = ?, if_name = ?, boot_id = ?, changed_ms = ?
       WHERE port_id = ? AND address = ?`,
    )
    .run(...ownerKey(owner), bootId, Date.now(), address.portId, address.address)
}

/** Takes an address from whoever has it: it is nobody's, or on its way out. */
export function disownAddress(
  journal: Journal,
  { portId, address }: { portId: string; address: string },
  state: 'free' | 'releasing',
  usableMs: number,
): void {
  journal
    .sql(
      `UPDATE port_address SET state = ?, network = '', container_id = '', if_name = '', boot_id = '', usable_ms = ?,
       settling = 0, changed_ms = ? WHERE port_id = ? AND address = ?`,
    )
    .run(state, usableMs, Date.now(), portId, address)
}

/** Takes an address back that its attachment never used: it is as it was before. */
export function returnAddress(journal: Journal, { portId, address }: { portId: string; address: string }): void {
  journal
    .sql(
      `UPDATE port_address SET state = 'free', network = '', container_id = '', if_name = '', boot_id = '', changed_ms = ?
       WHERE port_id = ? AND address = ?`,
    )
    .run(Date.now(), portId, address)
}

/** Notes that a new address works on the wire. */
export function noteUsable(journal: Journal, { portId, address }: { portId: string; address: string }): void {
  journal
    .sql('UPDATE port_address SET usable_ms = ?, settling = 0 WHERE port_id = ? AND address = ? AND settling = 1')
    .run(Date.now(), portId, address)
}

/** Ends the cool-down of an address that works on the wire. */
export function endCoolDown(journal: Journal, { portId, address }: { portId: string; address: string }): void {
  journal
    .sql('UPDATE port_address SET usable_ms = 0 WHERE port_id = ? AND address = ? AND settling = 0')
    .run(portId, address)
}

/** Takes addresses from the attachments of earlier boots, which do not live any more. */
export function disownEarlierBoots(journal: Journal, portId: string, bootId: string): void {
  journal
    .sql(
      `UPDATE port_address SET state = 'releasing', network = '', container_id = '', if_name = '', boot_id = '',
       usable_ms = 0, settling = 0, changed_ms = ? WHERE port_id = ? AND state = 'assigned' AND boot_id <> ?`,
    )
    .run(Date.now(), portId, bootId)
}

/** Counts from now what was changed later than now: the clock was set back, and a cool-down would last as long as it was ahead. */
export function resetTimes(journal: Journal, portId: string): void {
  const nowMs = Date.now()
  journal
    .sql(
      `UPDATE port_address SET usable_ms = max(0, usable_ms - changed_ms + ?), changed_ms = ?
       WHERE port_id = ? AND changed_ms > ?`,
    )
    .run(nowMs, nowMs, portId, nowMs)
}

/** Notes which floating IPs lead to addresses of a port, by address, and to no others. */
export function noteFloatingIps(journal: Journal, portId: string, bindings: ReadonlyMap<string, string>): void {
  journal.sql('UPDATE port_address SET floating_ip = NULL WHERE port_id = ? AND floating_ip IS NOT NULL').run(portId)
  for (const [address, floatingIp] of bindings)
    journal
      .sql('UPDATE port_address SET floating_ip = ? WHERE port_id = ? AND address = ?')
      .run(floatingIp, portId, address)
}

/** Forgets an address that is not on the port any more. */
export function forgetAddress(journal: Journal, { portId, address }: { portId: string; address: string }): void {
  journal.sql('DELETE FROM port_address WHERE port_id = ? AND address = ?').run(portId, address)
}
