// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { deadlineIn } from '#base'
import type { Call, JsonObject } from '#cni'
import type { World } from '../../world.ts'
import { hostLocal } from './host-local.ts'

const scratch = mkdtempSync(join(tmpdir(), 'mooring-host-local-'))
after(() => rmSync(scratch, { recursive: true }))

/** A node whose journal cannot be opened: every call reads the files. */
const world = {
  get journal(): never {
    throw new Error('no journal here')
  },
  longLived: true,
} as unknown as World

const callOf = (ipam: JsonObject, more: Partial<Call> = {}): Call => ({
  command: 'ADD',
  containerId: 'c1',
  ifName: 'eth0',
  netns: '',
  netnsFd: undefined,
  args: '',
  path: [],
  stdin: new Uint8Array(),
  config: { ipam: { subnet: '10.1.2.0/24', ...ipam } },
  network: 'net',
  cniVersion: '1.1.0',
  prevResult: undefined,
  env: {},
  deadline: deadlineIn(1000),
  signal: new AbortController().signal,
  ...more,
})

test('a network name that is no file name is error 7, and its DEL is done (ENV-12, DEL-02)', async () => {
  const call = callOf({ dataDir: scratch }, { network: 'n'.repeat(256) })
  const wanted = { code: 7, message: /^Cannot keep reservations of network n{256}: .* 255 bytes$/ }
  await assert.rejects(hostLocal.add(call, world), wanted)
  await assert.rejects(hostLocal.status(call, world), wanted)
  await hostLocal.del(call, world)
  const longest = callOf({ dataDir: scratch }, { network: 'n'.repeat(255) })
  assert.equal((await hostLocal.add(longest, world)).ips?.length, 1)
  await hostLocal.del(longest, world)
})

test('DEL is done where ADD could not have reserved anything: dataDir relative, of a wrong type, below a file', async () => {
  const file = join(scratch, 'file')
  writeFileSync(file, '')
  for (const dataDir of ['leases', 7, {}, file, join(file, 'below')]) {
    await assert.rejects(hostLocal.add(callOf({ dataDir }), world))
    await hostLocal.del(callOf({ dataDir }), world)
  }
  assert.ok(!existsSync('leases'))
})
