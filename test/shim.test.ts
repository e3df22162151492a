// SPDX-License-Identifier: Apache-2.0
// Promise: what the shim answers when the agent goes away in the middle of a call, and what it starts where there is none.
// Method: a listener that hangs up; a plugin that prints how it was started.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
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

test('STATUS without agent names the socket and the reason, as JSON whatever the path has', t => {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-shim-'))
  t.after(() => rmSync(directory, { recursive: true }))
  writeFileSync(join(directory, 'file'), '')
  for (const [name, said] of [
    ['none.sock', 'none.sock: No such file or directory'],
    ['file', 'file: Connection refused'],
    ['"\\\n', '???: No such file or directory'],
  ] as const) {
    const env = { CNI_COMMAND: 'STATUS', MOORING_MODE: 'agent', MOORING_SOCKET: join(directory, name) }
    const { stdout } = spawnSync(shim, { env, input: CONFIG, encoding: 'utf8' })
    const { code, msg, details } = JSON.parse(stdout)
    assert.deepEqual([code, msg], [50, 'Cannot serve: the agent does not run'])
    assert.equal(details, `start it: mooring agent. Its socket ${directory}/${said}`)
  }
})

test('mode agent: a DEL that would be promised under a cut path is refused', t => {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-shim-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const data = `${directory}${`/${'d'.repeat(200)}`.repeat(16)}`.slice(0, 3_068)
  mkdirSync(data, { recursive: true })
  const env = { CNI_COMMAND: 'DEL', MOORING_CONFIG: '/dev/null', MOORING_MODE: 'agent', MOORING_DATA_DIR: data }
  const { status, stdout } = spawnSync(shim, { env, argv0: '/opt/cni/bin/veth-route', input: CONFIG, encoding: 'utf8' })
  assert.deepEqual([status, readdirSync(data)], [1, []])
  assert.match(JSON.parse(stdout).msg, /path of the data directory is too long/)
})

/** Calls the shim without agent, with that text in PLUGIN.flags. */
function callOneShot(t: TestContext, flags: string | undefined, command = 'DEL') {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-shim-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const [plugin, settings] = [join(directory, 'plugin.cjs'), join(directory, 'mode')]
  writeFileSync(plugin, 'console.log(JSON.stringify([process.execArgv, process.argv.slice(2)]))')
  if (flags !== undefined) writeFileSync(`${plugin}.flags`, flags)
  writeFileSync(
    settings,
    `node=${process.execPath}\nplugin=${plugin}\nsocket=${directory}/none\ndata=${directory}/data\n`,
  )
  const { status, stdout, stderr } = spawnSync(shim, {
    env: { CNI_COMMAND: command, MOORING_CONFIG: settings },
    argv0: '/opt/cni/bin/veth-route',
    encoding: 'utf8',
  })
  assert.deepEqual([status, stderr], [0, ''], stdout)
  const [given, [type, starting]] = JSON.parse(stdout) as [string[], string[]]
  return { given, type, starting: starting !== undefined }
}
const { size } = statSync(process.execPath)

test('mode standalone: Node.js is given the flags that were found to suit it', t => {
  const given = ['--no-rehash-snapshot', '--v8-pool-size=1']
  const text = `${size} ${given.join(' ')}\n`
  assert.deepEqual(callOneShot(t, text), { given, type: 'veth-route', starting: false })
  assert.deepEqual(callOneShot(t, text, 'ADD'), { given, type: 'veth-route', starting: true })
})

for (const [what, text] of [
  ['missing', undefined],
  ['empty', ''],
  ['for another Node.js', `${size + 1} --flag-of-another\n`],
  ['cut off', `${size} --no-rehash-snap`],
  ['of zeros', '\0'.repeat(80)],
] as const)
  test(`mode standalone: the flags are ${what}: the call does without`, t => {
    assert.deepEqual(callOneShot(t, text), { given: [], type: 'veth-route', starting: false })
  })

test('mode standalone: of too many flags those are used for which there is room', t => {
  const { given, type } = callOneShot(t, `${size}${' --v8-pool-size=1'.repeat(50)}\n`, 'ADD')
  assert.deepEqual([new Set(given), type], [new Set(['--v8-pool-size=1']), 'veth-route'])
})
