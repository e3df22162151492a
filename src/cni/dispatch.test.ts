// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { deadlineIn } from '#base'
import { type DispatchOptions, dispatch, readValidAttachments } from './dispatch.ts'
import { CniError } from './error.ts'
import type { Call, Plugin, ValidAttachment } from './plugin.ts'
import type { Result } from './result.ts'

const directory = mkdtempSync(join(tmpdir(), 'cni-dispatch-'))
after(() => rmSync(directory, { recursive: true }))

type Log = { command: string; call: Call; valid: readonly ValidAttachment[] | undefined }[]

/** A plugin that writes down how it was called. */
function recorder(result: Result | (() => Result) = { ips: [{ address: '10.0.0.2/24' }] }): Plugin<Log> {
  const note = async (call: Call, log: Log, valid?: readonly ValidAttachment[]) => {
    log.push({ command: call.command, call, valid })
  }
  return {
    type: 'recorder',
    add: async (call, log) => {
      await note(call, log)
      return typeof result === 'function' ? result() : result
    },
    del: note,
    check: note,
    status: note,
    gc: note,
  }
}

const own = '/proc/self/ns/net'
const environment = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'c1',
  CNI_NETNS: own,
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/opt/cni/bin',
  CNI_NETNS_OVERRIDE: '1',
}

async function call(
  env: Record<string, string>,
  config: object | string,
  options: Partial<DispatchOptions> & { plugin?: Plugin<Log>; netnsFd?: number } = {},
) {
  const log: Log = []
  const { plugin = recorder(), netnsFd, ...rest } = options
  const stdin = new TextEncoder().encode(typeof config === 'string' ? config : JSON.stringify(config))
  const reply = await dispatch(plugin, { env, stdin, netnsFd }, log, {
    deadline: deadlineIn(1000),
    signal: new AbortController().signal,
    ...rest,
  })
  const stdout = new TextDecoder().decode(reply.stdout)
  return { ...reply, stdout, error: reply.exitCode === 0 ? undefined : JSON.parse(stdout), log }
}

const sound = { cniVersion: '1.0.0', name: 'net', type: 'recorder' }

test('dispatch() ADD calls the plugin and prints its result in the version of the configuration', async () => {
  const reply = await call(environment, sound)
  assert.equal(reply.exitCode, 0)
  assert.equal(
    reply.stdout,
    '{\n    "cniVersion": "1.0.0",\n    "ips": [\n        {\n            "address": "10.0.0.2/24"\n        }\n    ]\n}',
  )
  const { call: seen } = reply.log[0]!
  assert.equal(seen.network, 'net')
  assert.deepEqual(seen.path, ['/opt/cni/bin'])
  assert.equal(typeof seen.netnsFd, 'number')
})

test('dispatch() without cniVersion answers in 0.1.0', async () => {
  assert.deepEqual(JSON.parse((await call(environment, { name: 'net' })).stdout), {
    cniVersion: '0.1.0',
    ip4: { ip: '10.0.0.2/24' },
    dns: {},
  })
})

test('dispatch() without CNI_COMMAND tells a person on stderr what it is', async () => {
  const reply = await call({}, '')
  assert.deepEqual([reply.exitCode, reply.stdout], [0, ''])
  assert.match(reply.stderr, /CNI recorder plugin[^\n]*\nCNI protocol versions supported: 0\.1\.0, 0\.2\.0/)
})

test('dispatch() VERSION reads neither configuration nor other variables', async () => {
  for (const stdin of ['', 'garbage'])
    assert.equal(
      (await call({ CNI_COMMAND: 'VERSION', CNI_CONTAINERID: '!!' }, stdin)).stdout,
      '{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}\n',
    )
})

test('dispatch() checks environment, JSON, name, verb and version in this order', async () => {
  const { CNI_NETNS: _, ...noNetns } = environment
  const cases: [Record<string, string>, string, number][] = [
    [noNetns, '{', 4],
    [{ ...environment, CNI_COMMAND: 'UPDATE' }, '{', 6],
    [{ ...environment, CNI_COMMAND: 'UPDATE' }, '{}', 7],
    [{ ...environment, CNI_COMMAND: 'add' }, '{"name":"net","cniVersion":"9.9.9"}', 4],
    [environment, '{"cniVersion":"9.9.9"}', 7],
    [environment, '{"name":"net","cniVersion":"9.9.9"}', 1],
    [{ ...environment, CNI_COMMAND: 'CHECK' }, '{"name":"net","cniVersion":"abc"}', 6],
  ]
  for (const [env, config, code] of cases) {
    const reply = await call(env, config)
    assert.equal(reply.error.code, code, `${env['CNI_COMMAND']} ${config}`)
    assert.equal(reply.log.length, 0)
  }
})

test('dispatch() prints errors in the version of the configuration, laid out as the reference does', async () => {
  const reply = await call({ ...environment, CNI_COMMAND: 'UPDATE' }, sound)
  assert.equal(
    reply.stdout,
    '{\n    "cniVersion": "1.0.0",\n    "code": 4,\n    "msg": "unknown CNI_COMMAND: UPDATE"\n}',
  )
  assert.equal((await call(environment, '{')).error.cniVersion, '1.1.0')
})

test('dispatch() gates CHECK, GC and STATUS by version', async () => {
  for (const [verb, old, since] of [
    ['CHECK', '0.3.1', '0.4.0'],
    ['GC', '1.0.0', '1.1.0'],
    ['STATUS', '1.0.0', '1.1.0'],
  ] as const) {
    const env = { ...environment, CNI_COMMAND: verb }
    const refused = await call(env, { ...sound, cniVersion: old })
    assert.deepEqual([refused.error.code, refused.error.msg], [1, `config version does not allow ${verb}`])
    const served = await call(env, { ...sound, cniVersion: since })
    assert.deepEqual([served.exitCode, served.stdout, served.log.length], [0, '', 1])
  }
})

test('dispatch() refuses its own namespace on ADD and DEL before any work, unless overridden', async () => {
  const { CNI_NETNS_OVERRIDE: _, ...strict } = environment
  for (const verb of ['ADD', 'DEL']) {
    const reply = await call({ ...strict, CNI_COMMAND: verb }, sound)
    assert.equal(reply.error.code, 8)
    assert.equal(reply.error.msg, "plugin's netns and netns from CNI_NETNS should not be the same")
    assert.equal(reply.log.length, 0)
  }
})

test('dispatch() opens links to a namespace and takes a descriptor that the caller opened', async () => {
  const link = join(directory, 'link')
  symlinkSync(own, link)
  assert.equal((await call({ ...environment, CNI_NETNS: link }, sound)).exitCode, 0)
  const fd = openSync(own, 'r')
  try {
    const reply = await call({ ...environment, CNI_NETNS: '/nonexistent' }, sound, { netnsFd: fd })
    assert.equal(reply.log[0]?.call.netnsFd, fd)
  } finally {
    closeSync(fd)
  }
})

test('dispatch() refuses with code 8 what is no network namespace, on DEL it is gone', async () => {
  const paths = ['file', 'directory', 'dangling', 'missing', 'link-to-file'].map(name => join(directory, `no-${name}`))
  const [file, folder, dangling, , linkToFile] = paths as [string, string, string, string, string]
  writeFileSync(file, '')
  mkdirSync(folder)
  symlinkSync('/nonexistent', dangling)
  symlinkSync(file, linkToFile)
  for (const path of [...paths, '/proc/self/ns/mnt', '/dev/null']) {
    for (const verb of ['ADD', 'CHECK']) {
      const reply = await call({ ...environment, CNI_COMMAND: verb, CNI_NETNS: path }, sound)
      assert.equal(reply.error.code, 8, path)
      assert.ok(reply.error.msg.startsWith(`failed to open netns "${path}": `), reply.error.msg)
      assert.equal(reply.log.length, 0)
    }
    const gone = await call({ ...environment, CNI_COMMAND: 'DEL', CNI_NETNS: path }, sound)
    assert.deepEqual([gone.exitCode, gone.log[0]?.call.netnsFd], [0, undefined])
  }
})

test('dispatch() lets a plugin that needs no namespace go on without', async () => {
  const plugin = { ...recorder(), needsNetns: false }
  for (const verb of ['ADD', 'CHECK']) {
    const reply = await call({ ...environment, CNI_COMMAND: verb, CNI_NETNS: '/nonexistent' }, sound, { plugin })
    assert.deepEqual([reply.exitCode, reply.log[0]?.call.netnsFd], [0, undefined])
  }
})

test('dispatch() DEL without CNI_NETNS calls the plugin', async () => {
  const { CNI_NETNS: _, ...env } = environment
  assert.equal((await call({ ...env, CNI_COMMAND: 'DEL' }, sound)).log.length, 1)
})

test('dispatch() gives prevResult in the newest format, and refuses a broken one before any work', async () => {
  const old = { cniVersion: '0.2.0', name: 'net', prevResult: { ip4: { ip: '10.0.0.9/24' } } }
  assert.deepEqual((await call(environment, old)).log[0]?.call.prevResult, { ips: [{ address: '10.0.0.9/24' }] })
  const broken = await call(environment, { ...sound, prevResult: { ips: 5 } })
  assert.equal(broken.error.code, 7)
  assert.match(broken.error.msg, /^could not parse prevResult: .*"ips" is a number/)
  assert.equal(broken.log.length, 0)
  const del = await call({ ...environment, CNI_COMMAND: 'DEL' }, { ...sound, prevResult: 5 })
  assert.deepEqual([del.exitCode, del.log[0]?.call.prevResult], [0, undefined])
})

test('dispatch() undoes an ADD whose result cannot be told in the old version', async () => {
  const reply = await call(environment, { ...sound, cniVersion: '0.2.0' }, { plugin: recorder({}) })
  assert.equal(reply.error.msg, 'cannot convert: no valid IP addresses')
  assert.deepEqual(
    reply.log.map(each => each.command),
    ['ADD', 'DEL'],
  )
})

test('dispatch() undoes an ADD whose caller went away', async () => {
  const caller = new AbortController()
  const plugin = recorder(() => {
    caller.abort()
    return {}
  })
  const reply = await call(environment, sound, { plugin, signal: caller.signal })
  assert.equal(reply.error.code, 11)
  assert.deepEqual(
    reply.log.map(each => [each.command, each.call.signal.aborted]),
    [
      ['ADD', true],
      ['DEL', false],
    ],
  )
})

test('dispatch() does not start what nobody waits for', async () => {
  for (const options of [{ deadline: deadlineIn(-1) }, { signal: AbortSignal.abort() }]) {
    const reply = await call(environment, sound, options)
    assert.deepEqual([reply.error.code, reply.log.length], [11, 0])
  }
})

test('dispatch() asks toCniError about unknown errors and shows the stack of a fault on stderr', async () => {
  const plugin = recorder(() => {
    throw new TypeError('surprise')
  })
  const fault = await call(environment, sound, { plugin })
  assert.equal(fault.error.code, 999)
  assert.match(fault.stderr, /TypeError: surprise\n +at /)
  const known = await call(environment, sound, { plugin, toCniError: () => new CniError(100, 'kernel said no') })
  assert.deepEqual([known.error.code, known.stderr], [100, ''])
})

test('dispatch() hands GC the valid attachments, and undefined where there are none', async () => {
  const env = { CNI_COMMAND: 'GC', CNI_PATH: '/opt/cni/bin' }
  const config = { ...sound, cniVersion: '1.1.0' }
  assert.equal((await call(env, config)).log[0]?.valid, undefined)
  const list = [{ containerID: 'c1', ifname: 'eth0' }]
  assert.deepEqual((await call(env, { ...config, 'cni.dev/valid-attachments': list })).log[0]?.valid, [
    { containerId: 'c1', ifName: 'eth0' },
  ])
  assert.deepEqual(readValidAttachments({ 'cni.dev/valid-attachments': [] }), [])
  assert.throws(() => readValidAttachments({ 'cni.dev/valid-attachments': [{ containerID: 'c' }] }), {
    code: 7,
    message: /valid-attachments\[0\].ifname" is missing/,
  })
})

test('dispatch() answers one JSON object to 2000 mutations of a configuration, and changes no prototype', async () => {
  const text = JSON.stringify({
    ...sound,
    prevResult: {
      cniVersion: '1.0.0',
      interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', sandbox: own }],
      ips: [{ address: '10.0.0.2/24', gateway: '10.0.0.1', interface: 0 }],
      routes: [{ dst: '0.0.0.0/0', gw: '10.0.0.1', mtu: 1400, table: 0 }],
      dns: { nameservers: ['10.0.0.1'] },
    },
    runtimeConfig: { ips: ['10.0.0.9'] },
  })
  const pieces = [
    '{',
    '}',
    '[',
    ']',
    '"',
    ',',
    ':',
    'null',
    '-1',
    '1e999',
    '99999999999999999999',
    '\\',
    '__proto__',
    '\u0000',
  ]
  let seed = 20_231_126
  // Numerical Recipes' generator: the same mutations in every run.
  const random = (below: number) => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0
    return seed % below
  }
  for (let round = 0; round < 2000; round++) {
    const [from, to] = [random(text.length), random(8)]
    const mutated = text.slice(0, from) + pieces[random(pieces.length)] + text.slice(from + to)
    const reply = await call(environment, mutated)
    const answer = JSON.parse(reply.stdout)
    if (reply.exitCode !== 0) assert.ok([1, 4, 6, 7].includes(answer.code), `${answer.code} ${answer.msg}: ${mutated}`)
  }
  assert.deepEqual(Object.keys(Object.prototype), [])
})
