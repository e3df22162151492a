// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { tryEnterLane } from './lane.ts'

test('tryEnterLane() lets one at a time in, and no attachment waits for another', t => {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-lane-'))
  t.after(() => rmSync(directory, { recursive: true }))
  using all = new DisposableStack()
  const enter = (containerId: string) => tryEnterLane(directory, { type: 'veth-route', containerId, ifName: 'eth0' })
  const lanes = Array.from({ length: 500 }, (_, id) => enter(`c${id}`))
  assert.ok(lanes.every(lane => lane !== undefined))
  for (const lane of lanes.slice(1)) all.use(lane)
  assert.equal(enter('c0'), undefined)
  lanes[0]![Symbol.dispose]()
  using again = enter('c0')
  assert.ok(again)
})
