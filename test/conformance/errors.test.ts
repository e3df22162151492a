// SPDX-License-Identifier: Apache-2.0
// Shape and codes of errors: items ERR of the conformance list.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { codes } from '#cni'
import {
  errorOf,
  execute,
  folder,
  mainPlugin,
  missing,
  type Outcome,
  plugin,
  pluginDirectory,
  pod,
  resultOf,
  stateEnv,
} from './harness.ts'

const environment: Record<string, string> = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'c1',
  CNI_IFNAME: 'eth0',
  CNI_NETNS: pod(),
}
const config = (more: object = {}) => ({
  cniVersion: '1.1.0',
  name: 'n',
  type: 'host-local',
  ipam: { type: 'host-local', subnet: '10.80.0.0/24', dataDir: folder('data') },
  ...more,
})
const call = (env: Record<string, string>, text: object | string = config()) =>
  plugin('host-local', { ...environment, ...env }, text)

/** Runs the plugin by a shell that connects its streams as told. */
const shell = (redirect: string, text: object = config()): Promise<Outcome> =>
  execute(['/bin/sh', '-c', `${join(pluginDirectory(), 'host-local')} ${redirect}`], {
    env: { PATH: '/usr/bin:/bin', ...stateEnv(), ...environment, CNI_PATH: pluginDirectory() },
    stdin: JSON.stringify(text),
  })

suite('ERR errors of a plugin', { skip: missing, concurrency: 2 }, () => {
  test('ERR-01 the error is one JSON object on stdout, exit code 1', async () => {
    const error = errorOf(await call({ CNI_COMMAND: 'X' }))
    assert.deepEqual(Object.keys(error).sort(), ['cniVersion', 'code', 'msg'])
  })

  test('ERR-02 cniVersion of the error is that of the configuration', async () => {
    for (const cniVersion of ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'])
      assert.equal(errorOf(await call({}, config({ cniVersion, ipam: 5 }))).cniVersion, cniVersion)
  })

  test('ERR-03 four spaces, no newline at the end, details only where there are some', async () => {
    const { stdout } = await call({ CNI_COMMAND: 'X' })
    assert.equal(stdout, '{\n    "cniVersion": "1.1.0",\n    "code": 4,\n    "msg": "unknown CNI_COMMAND: X"\n}')
    const { stdout: detailed } = await call({ CNI_CONTAINERID: '-a' })
    assert.match(detailed, /"msg": "invalid characters in containerID",\n {4}"details": "-a"\n}$/)
  })

  test('ERR-04 error 1 names what was asked and what is supported', async () => {
    const { code, details } = errorOf(await call({}, config({ cniVersion: '9.9.9' })))
    assert.equal(code, 1)
    assert.match(details ?? '', /config is "9\.9\.9", plugin supports \["0\.1\.0" .*"1\.1\.0"\]/)
  })

  test('ERR-05 a key that no plugin knows is let be, never error 2', async () => {
    const { ipam, ...rest } = config() as { ipam: object }
    resultOf(await call({}, { ...rest, ipam, foo: { bar: [1] } }))
    resultOf(await call({ CNI_COMMAND: 'DEL' }, { ...rest, ipam, foo: 1 }))
    const unknown = errorOf(await call({ CNI_CONTAINERID: 'c9' }, { ...rest, ipam: { ...ipam, subnet: 'x', foo: 1 } }))
    assert.notEqual(unknown.code, 2)
  })

  test('ERR-07 error 4 names the variable', async () => {
    assert.match(errorOf(await call({ CNI_IFNAME: '' })).msg, /CNI_IFNAME/)
  })

  test('ERR-08 stdin that cannot be read is error 5, stdin that is closed 5 or 6', async () => {
    assert.equal(errorOf(await shell('< /tmp')).code, 5)
    assert.ok([5, 6].includes(errorOf(await shell('<&-')).code))
  })

  test('ERR-09 what cannot be decoded is error 6', async () => {
    for (const text of ['{', '', 'x', '[]', '{"name":"n"', `${'['.repeat(10_000)}${']'.repeat(10_000)}`])
      assert.equal(errorOf(await call({}, text)).code, 6, text.slice(0, 20))
    assert.equal(errorOf(await call({ CNI_COMMAND: 'CHECK' }, config({ cniVersion: 'abc' }))).code, 6)
  })

  test('ERR-10 a configuration that is not valid is error 7', async () => {
    assert.equal(errorOf(await call({}, {})).code, 7)
    assert.equal(errorOf(await call({}, config({ ipam: { type: 'host-local', subnet: 'x' } }))).code, 7)
    assert.equal(errorOf(await plugin(mainPlugin, environment, config({ type: mainPlugin, mtu: 'x' }))).code, 7)
  })

  test('ERR-11 a path that is no namespace is error 8', async () => {
    const text = { ...config(), type: mainPlugin }
    for (const path of ['/tmp', '/etc/hostname', '/run/netns/none', '/dev/null'])
      assert.equal(errorOf(await plugin(mainPlugin, { ...environment, CNI_NETNS: path }, text)).code, 8)
  })

  test('ERR-14 no code of ours lies in what the specification reserves', () => {
    const own = [0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51]
    for (const code of Object.values(codes)) assert.ok(own.includes(code) || code >= 100, `${code}`)
  })

  test('ERR-15 an address range that is full has a code from 100 on, or 11', async () => {
    const text = config({ ipam: { type: 'host-local', subnet: '10.80.0.0/30', dataDir: folder('data') } })
    await call({ CNI_CONTAINERID: 'first' }, text)
    const { code, msg } = errorOf(await call({ CNI_CONTAINERID: 'second' }, text))
    assert.ok(code >= 100 || code === 11, `${code} ${msg}`)
  })

  test('ERR-17 an answer that cannot be written is an exit code other than 0', async () => {
    assert.notEqual((await shell('> /dev/full')).rc, 0)
    // The reader of the pipe is gone when the plugin writes.
    assert.notEqual((await closedPipe()).rc, 0)
  })

  test('ERR-18 an agent that goes away in the middle is an error object, not silence', async () => {
    const socket = join(folder('agent'), 's')
    const server = createServer(connection => connection.once('data', () => connection.destroy()))
    await new Promise<void>(resolve => server.listen(socket, resolve))
    const outcome = await call({ MOORING_MODE: 'agent', MOORING_SOCKET: socket })
    server.close()
    const { code } = errorOf(outcome)
    assert.ok(code === 11 || code === 999, `${code}`)
  })

  test('ROB-09 hostile JSON crashes nothing and pollutes nothing', async () => {
    const dataDir = folder('data')
    const hostile = [
      `{"cniVersion":"1.0.0","name":"n","__proto__":{"ipam":{}},"ipam":{"type":"host-local","subnet":"10.80.0.0/24","dataDir":"${dataDir}"}}`,
      `{"cniVersion":"1.0.0","name":"n","constructor":{"prototype":{"x":1}},"x":123456789012345678901234567890,"ipam":{"type":"host-local","subnet":"10.80.0.0/24","dataDir":"${dataDir}"}}`,
    ]
    for (const [index, text] of hostile.entries())
      assert.equal((await call({ CNI_CONTAINERID: `c${index}` }, text)).rc, 0)
    const deep = `{"cniVersion":"1.0.0","name":"n","x":${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}}`
    assert.equal(errorOf(await call({}, deep)).code, 6)
  })

  test('the password is in no error about a broken configuration', async () => {
    const secret = 'b974a1991171'
    const broken = [
      `{"cniVersion":"0.3.1","name":"n","ipam":{"openstackConf":{"password":"${secret}"`,
      `{"cniVersion":"0.3.1","name":"n","ipam":{"openstackConf":{"password":${secret}}}}`,
      `{"cniVersion":"0.3.1","name":"n","ipam":{"openstackConf":{"password":"${secret}","x":}}}`,
    ]
    for (const text of broken) {
      const outcome = await call({}, text)
      assert.equal(errorOf(outcome).code, 6)
      assert.ok(!`${outcome.stdout}${outcome.stderr}`.includes(secret))
    }
  })
})

function closedPipe(): Promise<{ rc: number | null }> {
  const child = spawn(join(pluginDirectory(), 'host-local'), {
    env: { ...stateEnv(), ...environment, CNI_PATH: pluginDirectory() },
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  child.stdout.destroy()
  child.stdin.end(JSON.stringify(config()))
  return new Promise(resolve => child.on('close', rc => resolve({ rc })))
}
