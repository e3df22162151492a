// SPDX-License-Identifier: Apache-2.0

// The bundle that a node runs reads what the sources read. Needs no root.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { nodeDirectory } from './node.ts'

const mooring = fileURLToPath(new URL('../../mooring', import.meta.url))

test('a bundled plugin reads clouds.yaml', t => {
  const directory = nodeDirectory(t)
  const clouds = join(directory, 'clouds.yaml')
  // Port 1 of loopback: nobody listens, so the attempt is what shows that the file was read.
  const auth = 'auth: {auth_url: "http://127.0.0.1:1/v3", username: u, password: p, project_name: x}'
  writeFileSync(clouds, `clouds:\n  here:\n    ${auth}\n`, { mode: 0o600 })
  const config = { cniVersion: '1.1.0', name: 'n', type: 'tcnp-ipam', ipam: { type: 'tcnp-ipam', cloud: 'here' } }
  const { stdout, stderr } = spawnSync(mooring, ['plugin', 'tcnp-ipam'], {
    encoding: 'utf8',
    input: JSON.stringify(config),
    env: {
      PATH: process.env['PATH'],
      CNI_COMMAND: 'STATUS',
      CNI_PATH: directory,
      MOORING_DATA_DIR: directory,
      OS_CLIENT_CONFIG_FILE: clouds,
    },
  })
  assert.equal(JSON.parse(stdout).code, 50)
  assert.match(JSON.parse(stdout).msg, /127\.0\.0\.1:1\b/)
  assert.equal(stderr, '')
})
