// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { listen } from './server.ts'
import { encodeRequest } from './wire.ts'

/** Connects, waits for leave, sends, and says that it has. */
const CLIENT = `
const { connect } = require('node:net')
const { path, frame, flags } = require('node:worker_threads').workerData
const socket = connect(path, () => {
  Atomics.wait(flags, 0, 0)
  socket.write(frame, () => {
    Atomics.store(flags, 1, 1)
    Atomics.notify(flags, 1)
  })
})`

test('listen() serves a request that lay there in time although this process came to it late', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-server-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const readMs = 100
  const path = join(directory, 'agent.sock')
  const outcome = Promise.withResolvers<string>()
  const server = await listen(
    path,
    async ({ type }) => {
      outcome.resolve(type)
      return { exitCode: 0, stdout: new Uint8Array(0), stderr: '' }
    },
    outcome.reject,
    { readMs },
  )
  t.after(() => server.close())
  const flags = new Int32Array(new SharedArrayBuffer(8))
  const frame = encodeRequest({ type: 'veth-route', env: {}, stdin: new Uint8Array(0) })
  const accepted = new Promise(resolve => server.once('connection', resolve))
  const client = new Worker(CLIENT, { eval: true, workerData: { path, frame, flags } })
  t.after(() => client.terminate())
  await accepted
  // From here this thread gets no turn until the time for reading is over.
  Atomics.store(flags, 0, 1)
  Atomics.notify(flags, 0)
  Atomics.wait(flags, 1, 0)
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2 * readMs)
  assert.equal(await outcome.promise, 'veth-route')
})
