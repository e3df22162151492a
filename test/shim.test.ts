// SPDX-License-Identifier: Apache-2.0
// Promise: what the shim answers when the agent goes away in the middle of a call. Method: a listener that hangs up.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'

const shim = join(import.meta.dirname, '../build/shim')
const CONFIG = '{"cniVersion":"1.0.0","name":"n","type":"veth-route"}'

/** Calls the shim while something listens that takes the request and hangs up. */
async function callWithoutAnswer(t: TestContext, mode: string, command: string) {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-shim-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const socket = join(directory, 'agent.sock')
  const server = createServer(connection => connection.once('data', () => connection.destroy()))
  await new Promise<void>(resolve => server.listen(socket, resolve))
  t.after(() => server.close())
  const env = {
    CNI_COMMAND: command,
    CNI_CONTAINERID: 'c1',
    CNI_IFNAME: 'eth0',
    CNI_NETNS: '/run/netns/none',
    CNI_PATH: directory,
    MOORING_CONFIG: '/dev/null',
    MOORING_MODE: mode,
    MOORING_SOCKET: socket,
    MOORING_DATA_DIR: directory,
  }
  const child = spawn(shim, { env, argv0: '/opt/cni/bin/veth-route' })
  child.stdin.end(CONFIG)
  let stdout = ''
  child.stdout.on('data', data => (stdout += data))
  const code = await new Promise<number | null>(resolve => child.once('close', resolve))
  const spooled = readdirSync(directory).includes('spool') ? readdirSync(join(directory, 'spool')).length : 0
  return { code, stdout, spooled }
}

test('mode agent: a DEL whose agent goes away is promised', async t => {
  assert.deepEqual(await callWithoutAnswer(t, 'agent', 'DEL'), { code: 0, stdout: '', spooled: 1 })
})

test('mode standalone: a DEL whose agent goes away is error 11, since nobody might ever work a spool off', async t => {
  const { code, stdout, spooled } = await callWithoutAnswer(t, 'standalone', 'DEL')
  assert.deepEqual([code, JSON.parse(stdout).code, JSON.parse(stdout).cniVersion, spooled], [1, 11, '1.0.0', 0])
})

test('ERR-12 mode agent: an ADD whose agent goes away is error 11', async t => {
  const { code, stdout, spooled } = await callWithoutAnswer(t, 'agent', 'ADD')
  assert.deepEqual([code, JSON.parse(stdout).code, spooled], [1, 11, 0])
})
