// SPDX-License-Identifier: Apache-2.0

import type { Journal } from '../journal.ts'
import { OWNER, ownerKey } from '../owners.ts'
import type { Owner, Want } from './plan.ts'

type WantRow = {
  id: number
  port_id: string
  subnet_id: string
  fallbacks: string
  address: string
  network: string
  container_id: string
  if_name: string
  expires_ms: number
}

const fromWantRow = (row: WantRow): Want => ({
  id: row.id,
  portId: row.port_id,
  subnetIds: [row.subnet_id, ...(JSON.parse(row.fallbacks) as string[])],
  address: row.address === '' ? undefined : row.address,
  owner: { network: row.network, containerId: row.container_id, ifName: row.if_name },
  expiresMs: row.expires_ms,
})

/** Records that an attachment waits for an address. */
export function recordWant(journal: Journal, { portId, subnetIds, address, owner, expiresMs }: Omit<Want, 'id'>): void {
  const [subnetId = '', ...fallbacks] = subnetIds
  journal
    .sql(
      `INSERT INTO port_want (port_id, subnet_id, fallbacks, address, network, container_id, if_name, expires_ms)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
    )
    .run(portId, subnetId, JSON.stringify(fallbacks), address ?? '', ...ownerKey(owner), expiresMs)
}

/** Who waits for addresses of a port, the longest first, without those whose caller gave up. */
export function listWants(journal: Journal, portId: string): Want[] {
  const rows = journal
    .sql('SELECT * FROM port_want WHERE port_id = ? AND expires_ms >= ? ORDER BY id')
    .all(portId, Date.now()) as WantRow[]
  return rows.map(fromWantRow)
}

/** Forgets those whose caller gave up. */
export function forgetExpiredWants(journal: Journal, portId: string): void {
  journal.sql('DELETE FROM port_want WHERE port_id = ? AND expires_ms < ?').run(portId, Date.now())
}

/** True while an attachment waits. */
export const isWanting = (journal: Journal, owner: Owner): boolean =>
  journal.sql(`SELECT 1 FROM port_want WHERE ${OWNER} LIMIT 1`).get(...ownerKey(owner)) !== undefined

/** Ends a wait that was served. */
export function forgetWant(journal: Journal, id: number): void {
  journal.sql('DELETE FROM port_want WHERE id = ?').run(id)
}

/** Ends all waits of an attachment. */
export function forgetWantsOf(journal: Journal, owner: Owner): void {
  journal.sql(`DELETE FROM port_want WHERE ${OWNER}`).run(...ownerKey(owner))
}
