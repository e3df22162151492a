// SPDX-License-Identifier: Apache-2.0

import type { Journal } from '../journal.ts'
import type { PortIntent } from './plan.ts'

/** A port on which we have, or had, addresses. */
export type KnownPort = {
  readonly portId: string
  /** How its cloud is reached, without secrets; JSON of whoever made the session. */
  readonly access: string
  readonly settings: PortSettings
  /** The boot in which the port was last compared with the journal. */
  readonly seenBootId: string
  /** The newest revision that Neutron showed. An answer with an older one is stale. */
  readonly revision: number
}

/** What an operator chose for the addresses of a port. */
export type PortSettings = {
  /** Subnets of which a reserve is kept: the first of each, one per IP version, until it is full. */
  readonly subnetIds: readonly string[]
  /** For some of them: the subnets that serve when it is full, in order. An earlier release recorded none. */
  readonly fallbacks?: Readonly<Record<string, readonly string[]>>
  /** After a subnet was found full, until it is tried again while another serves. An earlier release recorded none. */
  readonly retryFullMs?: number
  /** Addresses kept ahead of need, per subnet. */
  readonly reserve: number
  /** After Neutron's answer, until an address works on the wire. */
  readonly usableAfterMs: number
  /** After a release, until an address may be somebody else's. */
  readonly coolDownMs: number
  /** Where the port's lock lies. */
  readonly lockDirectory: string
  /** Addresses of ours that the port may have. Default: as many as Neutron gives. */
  readonly maxAddresses?: number | undefined
  /** After a write, until the port is read again to see whether an overlapping one has undone it. */
  readonly verifyAfterMs?: number | undefined
  /**
   * The NIC of the port, with those of its addresses that are of the port's subnets, as the kernel had them: what Neutron
   * shows of the port has at least one of them, and none is ever a pod's. Left out where the port is on no machine, and in
   * what an earlier release recorded.
   */
  readonly nic?: { readonly mac: string; readonly addresses: readonly string[] } | undefined
  /** Set for a port that is on no machine: where its addresses are made to work. */
  readonly holder?: HolderSettings | undefined
}

/** A port that only holds addresses, which pass at another port, and may need a route to get there. */
export type HolderSettings = {
  readonly hostPortId: string
  readonly networkId: string
  /** Addresses are asked for in aligned blocks of so many, a power of two: one pair, and one route, stands for a block. */
  readonly blockSize: number
  readonly maxAddressPairs: number
  /** Undefined where the addresses are of the host port's own subnet. */
  readonly route?:
    | { readonly routerId: string; readonly nexthops: readonly string[]; readonly maxRoutes: number }
    | undefined
}

type PortRow = { port_id: string; access: string; settings: string; seen_boot_id: string; revision: number }

const fromPortRow = (row: PortRow): KnownPort => ({
  portId: row.port_id,
  access: row.access,
  settings: JSON.parse(row.settings) as PortSettings,
  seenBootId: row.seen_boot_id,
  revision: row.revision,
})

/** One port, undefined before the first look at it. */
export function findKnownPort(journal: Journal, portId: string): KnownPort | undefined {
  const row = journal.sql('SELECT * FROM port WHERE port_id = ?').get(portId) as PortRow | undefined
  return row === undefined ? undefined : fromPortRow(row)
}

/** Every port on which we have, or had, addresses. */
export const listKnownPorts = (journal: Journal): KnownPort[] =>
  (journal.sql('SELECT * FROM port').all() as PortRow[]).map(fromPortRow)

/** Records a port, instead of what was known of it. */
export function putKnownPort(journal: Journal, { portId, access, settings, seenBootId, revision }: KnownPort): void {
  journal
    .sql('INSERT OR REPLACE INTO port (port_id, access, settings, seen_boot_id, revision) VALUES (?, ?, ?, ?, ?)')
    .run(portId, access, JSON.stringify(settings), seenBootId, revision)
}

/**
 * Notes the revision that a write has made: also one below those seen before, where the database was restored. For an
 * answer that shows everything that others have: by it later ones are measured.
 */
export function noteRevision(journal: Journal, portId: string, revision: number | undefined): void {
  if (revision !== undefined) journal.sql('UPDATE port SET revision = ? WHERE port_id = ?').run(revision, portId)
}

/** Forgets a port that is gone, with everything on it. */
export function forgetPort(journal: Journal, portId: string): void {
  for (const table of ['port', 'port_address', 'port_intent', 'port_want', 'port_full'])
    journal.sql(`DELETE FROM ${table} WHERE port_id = ?`).run(portId)
}

type IntentRow = {
  id: number
  port_id: string
  before: string
  adding: string
  naming: string
  removing: string
  created_ms: number
}

/** Records a write that is about to be sent. @returns its id. */
export function recordIntent(journal: Journal, intent: Omit<PortIntent, 'id' | 'createdMs'>): number {
  const { lastInsertRowid } = journal
    .sql('INSERT INTO port_intent (port_id, before, adding, naming, removing, created_ms) VALUES (?, ?, ?, ?, ?, ?)')
    .run(
      intent.portId,
      JSON.stringify(intent.before),
      JSON.stringify(intent.adding),
      JSON.stringify(intent.naming),
      JSON.stringify(intent.removing),
      Date.now(),
    )
  return Number(lastInsertRowid)
}

/** The writes to a port whose outcome is not recorded, oldest first. */
export function listIntents(journal: Journal, portId: string): PortIntent[] {
  const rows = journal.sql('SELECT * FROM port_intent WHERE port_id = ? ORDER BY id').all(portId) as IntentRow[]
  return rows.map(row => ({
    id: row.id,
    portId: row.port_id,
    before: JSON.parse(row.before),
    adding: JSON.parse(row.adding),
    naming: JSON.parse(row.naming),
    removing: JSON.parse(row.removing),
    createdMs: row.created_ms,
  }))
}

/** Forgets a write whose outcome is recorded. */
export function forgetIntent(journal: Journal, id: number): void {
  journal.sql('DELETE FROM port_intent WHERE id = ?').run(id)
}

/** What is kept about how a host port was found. `lookup` is what was looked for, `place` what was found; both JSON. */
export function findLookup(journal: Journal, lookup: string): { place: string; lookedMs: number } | undefined {
  const row = journal.sql('SELECT place, looked_ms FROM port_lookup WHERE lookup = ?').get(lookup) as
    | { place: string; looked_ms: number }
    | undefined
  return row === undefined ? undefined : { place: row.place, lookedMs: row.looked_ms }
}

/** What is in use is looked for every few minutes. The rest is of networks and addresses that the node had once. */
const LOOKUP_MS = 30 * 86_400_000

/** Keeps how a host port was found. */
export function putLookup(journal: Journal, lookup: string, place: string): void {
  const nowMs = Date.now()
  journal
    .sql('INSERT OR REPLACE INTO port_lookup (lookup, place, looked_ms) VALUES (?, ?, ?)')
    .run(lookup, place, nowMs)
  journal.sql('DELETE FROM port_lookup WHERE looked_ms < ?').run(nowMs - LOOKUP_MS)
}

/** Forgets it: it is not true any more. */
export function forgetLookup(journal: Journal, lookup: string): void {
  journal.sql('DELETE FROM port_lookup WHERE lookup = ?').run(lookup)
}

/** The subnets of a port that were found full a while ago. */
export function listFullSubnets(journal: Journal, portId: string): Set<string> {
  const rows = journal
    .sql('SELECT subnet_id FROM port_full WHERE port_id = ? AND until_ms > ?')
    .all(portId, Date.now()) as { subnet_id: string }[]
  return new Set(rows.map(row => row.subnet_id))
}

/** Notes that a subnet had no address left: until then it is asked last. */
export function noteFull(journal: Journal, portId: string, subnetId: string, untilMs: number): void {
  journal
    .sql('INSERT OR REPLACE INTO port_full (port_id, subnet_id, until_ms) VALUES (?, ?, ?)')
    .run(portId, subnetId, untilMs)
}

/** Notes that a subnet had an address. */
export function noteNotFull(journal: Journal, portId: string, subnetId: string): void {
  journal.sql('DELETE FROM port_full WHERE port_id = ? AND subnet_id = ?').run(portId, subnetId)
}
