// SPDX-License-Identifier: Apache-2.0

import type { Journal } from './journal.ts'

/** What identifies an attachment: one plugin's work for one interface of one container in one network. */
export type AttachmentKey = { network: string; containerId: string; ifName: string; type: string }

/** An attachment as the journal knows it. */
export type Attachment = AttachmentKey & {
  /** `adding`: begun and perhaps half done; `deleting`: DEL was promised; both are finished by whoever finds them. */
  state: 'adding' | 'ready' | 'deleting'
  /** The boot in which it was made: kernel state does not outlive it. */
  bootId: string
  /** CNI_NETNS of the ADD, and what the path led to. */
  netns: string
  netnsDevice: number | undefined
  netnsInode: number | undefined
  /** The network configuration without secrets: enough to release what the IPAM holds. */
  config: string
  /** What the plugin must know to remove its work: link, addresses, uplink. JSON, the plugin's own. */
  traces: string
  /** What the ADD answered, as JSON; empty until it has. */
  result: string
  changedMs: number
}

type Row = {
  network: string
  container_id: string
  if_name: string
  type: string
  state: Attachment['state']
  boot_id: string
  netns: string
  netns_device: number | null
  netns_inode: number | null
  config: string
  traces: string
  result: string
  changed_ms: number
}

const COLUMNS =
  'network, container_id, if_name, type, state, boot_id, netns, netns_device, netns_inode, config, traces, result, changed_ms'
// A type that is compared with a mere parameter might be that of a partial index (`WHERE type = 'ipvlan'`): SQLite would prepare
// the statement again for each value, which takes longer than to carry it out.
const KEY = "network = ? AND container_id = ? AND if_name = ? AND type = ? || ''"
const IN_ORDER = 'ORDER BY network, container_id, if_name, type'
const keyOf = ({ network, containerId, ifName, type }: AttachmentKey) => [network, containerId, ifName, type] as const

function fromRow(row: Row): Attachment {
  return {
    network: row.network,
    containerId: row.container_id,
    ifName: row.if_name,
    type: row.type,
    state: row.state,
    bootId: row.boot_id,
    netns: row.netns,
    netnsDevice: row.netns_device ?? undefined,
    netnsInode: row.netns_inode ?? undefined,
    config: row.config,
    traces: row.traces,
    result: row.result,
    changedMs: row.changed_ms,
  }
}

// Texts that are made once: the journal finds its statement by them.
const VALUES = `INTO attachment (${COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?)`
const PUT = `INSERT OR REPLACE ${VALUES}`
const ADD = `INSERT ${VALUES} ON CONFLICT (network, container_id, if_name, type) DO NOTHING`
const FIND = `SELECT ${COLUMNS} FROM attachment WHERE ${KEY}`
const NOTE = `UPDATE attachment SET traces = ?, changed_ms = ? WHERE ${KEY}`
const FINISH = `UPDATE attachment SET state = 'ready', result = ?, changed_ms = ? WHERE ${KEY}`

type Begun = Omit<Attachment, 'result' | 'changedMs'>

/** Records an attachment, instead of what was known of it. */
export const putAttachment = (journal: Journal, attachment: Begun): void => void insert(journal, PUT, attachment)

/** Records an attachment of which nothing is known. @returns false where something is, and stays as it is */
export const tryAddAttachment = (journal: Journal, attachment: Begun): boolean => insert(journal, ADD, attachment) > 0

function insert(journal: Journal, statement: string, attachment: Begun): number | bigint {
  const { network, containerId, ifName, type, state, bootId, netns, netnsDevice, netnsInode, config, traces } =
    attachment
  return journal
    .sql(statement)
    .run(
      network,
      containerId,
      ifName,
      type,
      state,
      bootId,
      netns,
      netnsDevice ?? null,
      netnsInode ?? null,
      config,
      traces,
      Date.now(),
    ).changes
}

/** One attachment, undefined where none is known. */
export function findAttachment(journal: Journal, key: AttachmentKey): Attachment | undefined {
  const row = journal.sql(FIND).get(...keyOf(key)) as Row | undefined
  return row === undefined ? undefined : fromRow(row)
}

/** All attachments, or those of a network. */
export function listAttachments(journal: Journal, filter: { network?: string } = {}): Attachment[] {
  const rows =
    filter.network === undefined
      ? journal.sql(`SELECT ${COLUMNS} FROM attachment ${IN_ORDER}`).all()
      : journal.sql(`SELECT ${COLUMNS} FROM attachment WHERE network = ? ${IN_ORDER}`).all(filter.network)
  return (rows as Row[]).map(fromRow)
}

/** The types that have attachments, in all networks or in one. */
export function listAttachmentTypes(journal: Journal, network?: string): string[] {
  const rows =
    network === undefined
      ? journal.sql('SELECT DISTINCT type FROM attachment').all()
      : journal.sql('SELECT DISTINCT type FROM attachment WHERE network = ?').all(network)
  return rows.map(row => row['type'] as string)
}

/** Notes what there will be to remove of an attachment. @returns false where it is not known any more */
export function noteTraces(journal: Journal, key: AttachmentKey, traces: string): boolean {
  return journal.sql(NOTE).run(traces, Date.now(), ...keyOf(key)).changes > 0
}

/** Notes that an attachment is finished, and what its ADD answers. @returns false where it is not known any more */
export function finishAttachment(journal: Journal, key: AttachmentKey, result: string): boolean {
  return journal.sql(FINISH).run(result, Date.now(), ...keyOf(key)).changes > 0
}

/** Notes how far an attachment is. @returns false where it is not known any more */
export function setAttachmentState(journal: Journal, key: AttachmentKey, state: Attachment['state']): boolean {
  const update = journal.sql(`UPDATE attachment SET state = ?, changed_ms = ? WHERE ${KEY}`)
  return update.run(state, Date.now(), ...keyOf(key)).changes > 0
}

/** Forgets an attachment of which nothing is left. */
export function forgetAttachment(journal: Journal, key: AttachmentKey): void {
  journal.sql(`DELETE FROM attachment WHERE ${KEY}`).run(...keyOf(key))
}
