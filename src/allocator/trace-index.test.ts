// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { putAttachment, setAttachmentState } from './attachment.ts'
import { type Journal, memoryJournal } from './journal.ts'
import { findOtherIpvlanMode, firstFreeRoutingTable } from './trace-index.ts'

function put(journal: Journal, containerId: string, type: string, traces: object | null): void {
  const key = { network: 'net', containerId, ifName: 'eth0', type }
  const rest = { bootId: 'boot', netns: '', netnsDevice: undefined, netnsInode: undefined, config: '{}' }
  putAttachment(journal, { ...key, ...rest, state: 'adding', traces: JSON.stringify(traces) })
  setAttachmentState(journal, key, 'ready')
}
const planOf = (journal: Journal, query: string): string =>
  journal
    .sql(`EXPLAIN QUERY PLAN ${query}`)
    .all()
    .map(row => row['detail'])
    .join()

test('firstFreeRoutingTable() finds the first gap from a number on, and reads an index', () => {
  using journal = memoryJournal()
  assert.equal(firstFreeRoutingTable(journal, 256), 256)
  for (const table of [256, 259, 257]) put(journal, `c${table}`, 'veth-host', { table })
  put(journal, 'early', 'veth-host', null)
  put(journal, 'other', 'bridge', { table: 258 })
  for (const [start, free] of [
    [256, 258],
    [258, 258],
    [259, 260],
    [1000, 1000],
  ])
    assert.equal(firstFreeRoutingTable(journal, start!), free)
  const query = "SELECT 1 FROM attachment WHERE type = 'veth-host' AND json_extract(traces, '$.table') >= 256"
  assert.match(planOf(journal, query), /USING COVERING INDEX attachment_table/)
})

test('findOtherIpvlanMode() finds a link of the same master of the node in another mode, of this boot', () => {
  using journal = memoryJournal()
  const traces = { master: 4, masterInPod: false, mode: 1, flags: 0 }
  put(journal, 'c1', 'ipvlan', traces)
  put(journal, 'c2', 'ipvlan', null)
  put(journal, 'c3', 'ipvlan', { ...traces, masterInPod: true, mode: 2 })
  put(journal, 'c4', 'ipvlan', { ...traces, master: 5, mode: 2 })
  put(journal, 'c5', 'macvlan', { ...traces, mode: 2 })
  const find = (mode: number, flags: number, bootId = 'boot') =>
    findOtherIpvlanMode(journal, { master: 4, mode, flags }, bootId)
  assert.equal(find(1, 0), undefined)
  assert.deepEqual(find(2, 0), { network: 'net', containerId: 'c1', mode: 1, flags: 0 })
  assert.equal(find(1, 1)?.containerId, 'c1')
  assert.equal(find(2, 0, 'another'), undefined)
  const query = "SELECT 1 FROM attachment WHERE type = 'ipvlan' AND json_extract(traces, '$.master') = 4"
  assert.match(planOf(journal, query), /USING COVERING INDEX attachment_master/)
})
