// SPDX-License-Identifier: Apache-2.0
// Promise: ours beside the current Go plugins is ahead by at least half of each ratio that the design wants (`mooring bench --quick`).
// For each main plugin that is here and upstream (`--mains`): by a third of its ratio.
// Method: a run of lab/peers bench, the sides taking turns; the table is in the output. Needs root and lab/peers.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const bench = fileURLToPath(new URL('../bench/bench.ts', import.meta.url))

for (const options of [[], ['--mains', 'all']])
  test(`${['mooring bench --quick', ...options].join(' ')} meets its goals`, { skip, timeout: 600_000 }, t => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [bench, '--quick', ...options], { encoding: 'utf8' })
    t.diagnostic(stdout)
    assert.equal(status, 0, `${stdout}${stderr.slice(-4000)}`)
  })
