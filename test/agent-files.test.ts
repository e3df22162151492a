// SPDX-License-Identifier: Apache-2.0

// Promise: an update replaces the files of a running agent, and the agent goes on with those that it started from. Needs root.

import assert from 'node:assert/strict'
import { cpSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { errorOf, folder, makeLab, makeNetns, resultOf, root, skip } from './nodelab.ts'

test('an agent whose files are gone serves what it has not served before', { skip }, async () => {
  const copy = folder('release')
  cpSync(join(root, 'build'), join(copy, 'build'), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  const clouds = join(copy, 'clouds.yaml')
  // Port 1 of loopback: nobody listens, so the attempt is what shows that the file was read and a connection tried.
  const auth = 'auth: {auth_url: "http://127.0.0.1:1/v3", username: u, password: p, project_name: x}'
  writeFileSync(clouds, `clouds:\n  here:\n    ${auth}\n`)
  const node = makeLab({ mode: 'agent' }).nodes[0]!
  const start = `shift; exec ${process.execPath} ${copy}/build/agent.mjs "$@"`
  await using agent = await node.startAgent({
    prefix: ['/bin/sh', '-c', start, 'sh'],
    env: { OS_CLIENT_CONFIG_FILE: clouds },
  })
  rmSync(join(copy, 'build'), { recursive: true })
  const pod = { containerId: 'c1', netns: makeNetns('pod').path }
  resultOf(await node.call('ADD', pod))
  const ipam = { type: 'tcnp-ipam', cloud: 'here' }
  const { code, msg } = errorOf(await node.call('STATUS', pod, { more: { cniVersion: '1.1.0', ipam } }))
  assert.equal(code, 50)
  assert.match(msg, /127\.0\.0\.1:1\b/)
  resultOf(await node.call('DEL', pod))
  assert.equal((await agent.kill('SIGTERM')).code, 0)
})
