// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Host } from '#host'
import { giveNicAway } from './nic.ts'
import type { Target } from './target.ts'

const nic = { name: 'dev23', index: 3, permanentMac: 'fa:16:3e:95:e5:b5' }
const target = {
  path: '/run/netns/pod',
  netnsFd: 9,
  identity: { device: 4, inode: 5 },
  attachments: [],
} as unknown as Target

test('giveNicAway: what the NIC had is kept where the way back failed too, and only there', async () => {
  for (const [isOnNode, kept] of [
    [true, []],
    [false, ['dev23.json']],
  ] as const) {
    const dataDir = mkdtempSync(join(tmpdir(), 'mooring-nic-'))
    let looks = 0
    const host = {
      findNic: async () => (looks++ === 0 || isOnNode ? { nic } : undefined),
      findUplink: async () => undefined,
      moveNicIn: async () => {
        throw new Error('no memory')
      },
    } as unknown as Host
    await assert.rejects(giveNicAway(host, target, { device: 'dev23', dataDir }), /no memory/)
    assert.deepEqual(readdirSync(join(dataDir, 'nics')), kept)
    rmSync(dataDir, { recursive: true })
  }
})
