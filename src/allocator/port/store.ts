// SPDX-License-Identifier: Apache-2.0

import type { Journal } from '../journal.ts'
import { OWNER, ownerKey } from '../owners.ts'
import type { AddressState, Known, Owner, PortAddress, PortIntent, Want } from './plan.ts'

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
