// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { deadlineIn } from '#base'
import type { Attachment } from './cache.ts'
import { parseNetworkList } from './config.ts'
import { foreignIpam, selectIpam } from './delegate.ts'
import type { Call, Ipam, JsonObject } from './plugin.ts'
import {
  addNetworkList,
  checkNetworkList,
  delNetworkList,
  gcNetworkList,
  type Runtime,
  statusNetworkList,
  validateNetworkList,
} from './runtime.ts'

const root = mkdtempSync(join(tmpdir(), 'cni-runtime-'))
after(() => rmSync(root, { recursive: true }))

let count = 0

/** A place with fake plugins, each of which writes down how it was called. */
function place() {
  const directory = join(root, `${count++}`)
  const bin = join(directory, 'bin')
  const calls = join(directory, 'calls')
  mkdirSync(bin, { recursive: true })
  mkdirSync(calls)
  const runtime: Runtime = {
    path: [bin],
    env: { PATH: process.env['PATH'] ?? '', TRACEPARENT: '00-1-2-01' },
    cacheDirectory: join(directory, 'cache'),
    deadline: deadlineIn(20_000),
    signal: new AbortController().signal,
  }
  /** `answers`: what a verb makes the plugin do; ADD prints an empty result unless told otherwise. */
  const plugin = (name: string, answers: Record<string, string> = {}) => {
    const cases = Object.entries({ ADD: "echo '{}'", ...answers }).map(([verb, does]) => `${verb}) ${does};;`)
    writeFileSync(
      join(bin, name),
      `#!/bin/sh\nfile=${calls}/$(ls ${calls} | wc -l)-${name}-$CNI_COMMAND\ncat > $file.stdin; env > $file.env\n` +
        `echo ${name} $CNI_COMMAND >> ${directory}/order\ncase $CNI_COMMAND in ${cases.join(' ')} esac\n`,
    )
    chmodSync(join(bin, name), 0o755)
  }
  const order = () => {
    const file = join(directory, 'order')
    const lines = existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : []
    rmSync(file, { force: true })
    return lines
  }
  const dump = (name: string, verb: string, kind: 'stdin' | 'env') => {
    const file = readdirSync(calls).find(each => each.endsWith(`-${name}-${verb}.${kind}`))
    assert.ok(file, `${name} was not called with ${verb}`)
    return readFileSync(join(calls, file), 'utf8')
  }
  const cacheFile = join(runtime.cacheDirectory, 'results', 'net-c1-eth0')
  return { directory, runtime, plugin, order, dump, cacheFile }
}

const attachment: Attachment = {
  containerId: 'c1',
  ifName: 'eth0',
  netns: '/run/netns/x',
  args: [['A', 'B']],
  capabilityArgs: {},
}
const listOf = (version: string, types: string[], more: JsonObject = {}) =>
  parseNetworkList(
    new TextEncoder().encode(
      JSON.stringify({ cniVersion: version, name: 'net', plugins: types.map(type => ({ type })), ...more }),
    ),
  )
const one = `echo '{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}]}'`

test('addNetworkList() hands each plugin the result of the one before, and keeps the last', async () => {
  const { runtime, plugin, order, dump, cacheFile } = place()
  plugin('a', { ADD: one })
  plugin('b', { ADD: `echo '{"ips":[{"address":"10.0.0.3/24"}]}'` })
  const result = await addNetworkList(listOf('1.0.0', ['a', 'b']), attachment, runtime)
  assert.deepEqual(result, { ips: [{ address: '10.0.0.3/24' }] })
  assert.deepEqual(order(), ['a ADD', 'b ADD'])
  assert.equal(dump('a', 'ADD', 'stdin'), '{"cniVersion":"1.0.0","name":"net","type":"a"}')
  assert.deepEqual(JSON.parse(dump('b', 'ADD', 'stdin')).prevResult, {
    cniVersion: '1.0.0',
    ips: [{ address: '10.0.0.2/24' }],
  })
  const env = dump('a', 'ADD', 'env')
  for (const line of [
    'CNI_CONTAINERID=c1',
    'CNI_ARGS=A=B',
    'CNI_NETNS=/run/netns/x',
    'CNI_IFNAME=eth0',
    'TRACEPARENT=00-1-2-01',
  ])
    assert.ok(env.split('\n').includes(line), line)
  assert.deepEqual(JSON.parse(readFileSync(cacheFile, 'utf8')).result.ips, [{ address: '10.0.0.3/24' }])
})

test('addNetworkList() stops at the first failure, names the plugin, keeps its code, undoes and keeps nothing', async () => {
  const { runtime, plugin, order, cacheFile } = place()
  plugin('a', { ADD: `echo '{"code":11,"msg":"later","details":"busy"}'; exit 1` })
  plugin('b')
  await assert.rejects(addNetworkList(listOf('1.0.0', ['a', 'b']), attachment, runtime), {
    code: 11,
    message: 'plugin type="a" failed (add): later',
    details: 'busy',
  })
  assert.deepEqual(order(), ['a ADD'])
  assert.equal(existsSync(cacheFile), false)
})

test('addNetworkList() refuses a result that is none, naming the plugin', async () => {
  const { runtime, plugin } = place()
  for (const output of ["echo '{'", 'true', `echo '{"ips":5}'`, `echo '{"cniVersion":"7.0.0"}'`]) {
    plugin('a', { ADD: output })
    await assert.rejects(addNetworkList(listOf('1.0.0', ['a']), attachment, runtime), {
      code: 105,
      message: /plugin "a"/,
    })
  }
})

test('addNetworkList() takes null for an empty result, also in 0.2.0', async () => {
  const { runtime, plugin } = place()
  plugin('a', { ADD: 'echo null' })
  assert.deepEqual(await addNetworkList(listOf('0.2.0', ['a']), attachment, runtime), {})
})

test('addNetworkList() executes nothing for names that are not valid', async () => {
  const { runtime, plugin, order } = place()
  plugin('a')
  const list = listOf('1.0.0', ['a'])
  await assert.rejects(addNetworkList(list, { ...attachment, containerId: '' }, runtime), { code: 3 })
  await assert.rejects(addNetworkList(list, { ...attachment, ifName: 'a/b' }, runtime), { code: 4 })
  await assert.rejects(addNetworkList({ ...list, name: 'a/b' }, attachment, runtime), { code: 7 })
  assert.deepEqual(order(), [])
})

test('delNetworkList() goes backwards with the kept result from 0.4.0 on', async () => {
  for (const [version, hasResult] of [
    ['0.3.1', false],
    ['0.4.0', true],
  ] as const) {
    const { runtime, plugin, order, dump, cacheFile } = place()
    plugin('a')
    plugin('b', { ADD: `echo '{"ips":[{"version":"4","address":"10.0.0.2/24"}]}'` })
    const list = listOf(version, ['a', 'b'])
    await addNetworkList(list, attachment, runtime)
    order()
    await delNetworkList(list, attachment, runtime)
    assert.deepEqual(order(), ['b DEL', 'a DEL'])
    for (const name of ['a', 'b']) assert.equal('prevResult' in JSON.parse(dump(name, 'DEL', 'stdin')), hasResult)
    assert.equal(existsSync(cacheFile), false)
  }
})

test('delNetworkList() stops at a failure and keeps the result for the next time', async () => {
  const { runtime, plugin, order, cacheFile } = place()
  plugin('a')
  plugin('b', { DEL: 'exit 1' })
  const list = listOf('1.0.0', ['a', 'b'])
  await addNetworkList(list, attachment, runtime)
  order()
  await assert.rejects(delNetworkList(list, attachment, runtime), { message: /^plugin type="b" failed \(delete\): / })
  assert.deepEqual(order(), ['b DEL'])
  assert.ok(existsSync(cacheFile))
  plugin('b')
  await delNetworkList(list, attachment, runtime)
  assert.deepEqual(order(), ['b DEL', 'a DEL'])
})

test('delNetworkList() goes on without a result, and over a broken one', async () => {
  const { runtime, plugin, order, cacheFile } = place()
  plugin('a')
  const list = listOf('1.0.0', ['a'])
  await delNetworkList(list, attachment, runtime)
  mkdirSync(join(cacheFile, '..'), { recursive: true })
  writeFileSync(cacheFile, '{"kind":')
  await assert.rejects(checkNetworkList(list, attachment, runtime), {
    message: /failed to get network "net" cached result/,
  })
  await delNetworkList(list, attachment, runtime)
  assert.deepEqual(order(), ['a DEL', 'a DEL'])
  assert.equal(existsSync(cacheFile), false)
})

test('checkNetworkList() converts the kept result to the version that the list has now', async () => {
  const { runtime, plugin, dump } = place()
  plugin('a', { ADD: one })
  await addNetworkList(listOf('1.0.0', ['a']), attachment, runtime)
  await checkNetworkList(listOf('0.4.0', ['a']), attachment, runtime)
  assert.deepEqual(JSON.parse(dump('a', 'CHECK', 'stdin')).prevResult, {
    cniVersion: '0.4.0',
    ips: [{ version: '4', address: '10.0.0.2/24' }],
    dns: {},
  })
})

test('checkNetworkList() does not wrap errors, wants 0.4.0, and obeys disableCheck', async () => {
  const { runtime, plugin, order } = place()
  plugin('a', { CHECK: `echo '{"code":103,"msg":"address is missing"}'; exit 1` })
  await assert.rejects(checkNetworkList(listOf('1.0.0', ['a']), attachment, runtime), { message: 'address is missing' })
  order()
  await assert.rejects(checkNetworkList(listOf('0.3.1', ['a']), attachment, runtime), {
    message: 'configuration version "0.3.1" does not support the CHECK command',
  })
  await checkNetworkList(listOf('1.0.0', ['a'], { disableCheck: true }), attachment, runtime)
  assert.deepEqual(order(), [])
})

test('statusNetworkList() does nothing before 1.1.0, then stops at the first error and keeps its code', async () => {
  const { runtime, plugin, order, dump } = place()
  plugin('a', { STATUS: `echo '{"code":50,"msg":"not yet"}'; exit 1` })
  plugin('b')
  await statusNetworkList(listOf('1.0.0', ['a', 'b']), runtime)
  assert.deepEqual(order(), [])
  await assert.rejects(statusNetworkList(listOf('1.1.0', ['a', 'b']), runtime), { code: 50, message: 'not yet' })
  assert.deepEqual(order(), ['a STATUS'])
  assert.match(dump('a', 'STATUS', 'env'), /^CNI_CONTAINERID=$/m)
})

test('GC-01 gcNetworkList() deletes what is not valid, then lets every plugin collect, and goes on over failures', async () => {
  const { runtime, plugin, order, dump } = place()
  plugin('a', { GC: 'exit 1' })
  plugin('b')
  const list = listOf('1.1.0', ['a', 'b'])
  for (const containerId of ['c1', 'c2']) await addNetworkList(list, { ...attachment, containerId }, runtime)
  await addNetworkList({ ...list, name: 'other' }, attachment, runtime)
  order()
  await assert.rejects(gcNetworkList(list, runtime, [{ containerId: 'c1', ifName: 'eth0' }]), {
    message: /^failed to GC plugin a: netplugin failed/,
  })
  assert.deepEqual(order(), ['b DEL', 'a DEL', 'a GC', 'b GC'])
  assert.deepEqual(readdirSync(join(runtime.cacheDirectory, 'results')), ['net-c1-eth0', 'other-c1-eth0'])
  const request = JSON.parse(dump('b', 'GC', 'stdin'))
  for (const key of ['cni.dev/valid-attachments', 'cni.dev/attachments'])
    assert.deepEqual(request[key], [{ containerID: 'c1', ifname: 'eth0' }])
})

test('gcNetworkList() without a list deletes everything that is kept, and tells plugins nothing', async () => {
  const { runtime, plugin, order, dump } = place()
  plugin('a')
  const list = listOf('1.1.0', ['a'])
  await addNetworkList(list, attachment, runtime)
  order()
  await gcNetworkList(list, runtime, undefined)
  assert.deepEqual(order(), ['a DEL', 'a GC'])
  assert.doesNotMatch(dump('a', 'GC', 'stdin'), /attachments/)
  await gcNetworkList({ ...list, disableGC: true }, runtime, undefined)
  assert.deepEqual(order(), [])
})

test('gcNetworkList() leaves alone what was attached after the list was made', async () => {
  const { runtime, plugin, order } = place()
  plugin('a')
  const list = listOf('1.0.0', ['a'])
  await addNetworkList(list, attachment, runtime)
  order()
  await gcNetworkList(list, runtime, [], Date.now() - 60_000)
  assert.deepEqual(order(), [])
})

test('gcNetworkList() deletes with the list with which the attachment was made', async () => {
  const { runtime, plugin, order } = place()
  plugin('old')
  plugin('new')
  await addNetworkList(listOf('1.0.0', ['old']), attachment, runtime)
  order()
  await gcNetworkList(listOf('1.0.0', ['new']), runtime, [])
  assert.deepEqual(order(), ['old DEL'])
})

test('validateNetworkList() wants every plugin, each in the version of the list, and unites capabilities', async () => {
  const { runtime, plugin, dump } = place()
  plugin('new', { VERSION: `echo '{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0"]}'` })
  plugin('old', { VERSION: `echo '{"cniVersion":"0.2.0"}'` })
  plugin('oldest', { VERSION: `echo '{"code":100,"msg":"unknown CNI_COMMAND: VERSION"}'; exit 1` })
  const capable = listOf('1.0.0', ['new'])
  const plugins = capable.plugins.map(each => ({
    ...each,
    capabilities: new Map([
      ['ips', true],
      ['mac', false],
    ]),
  }))
  assert.deepEqual(await validateNetworkList({ ...capable, plugins }, runtime), ['ips'])
  assert.deepEqual(await validateNetworkList(listOf('0.1.0', ['old', 'oldest']), runtime), [])
  await assert.rejects(validateNetworkList(listOf('0.2.0', ['old', 'oldest', 'none']), runtime), {
    message: /^plugin oldest does not support config version "0.2.0"\nfailed to find plugin "none" in path \[/,
  })
  assert.equal(dump('new', 'VERSION', 'stdin'), '{"cniVersion":"1.1.0"}')
  assert.match(dump('new', 'VERSION', 'env'), /^CNI_NETNS=dummy$/m)
})

/** A call as a parent plugin holds it. */
const call = (runtime: Runtime, stdin = '{"cniVersion":"1.0.0","name":"net"}'): Call => ({
  command: 'ADD',
  containerId: 'c1',
  ifName: 'eth0',
  netns: '/run/netns/x',
  netnsFd: undefined,
  args: '',
  path: runtime.path,
  stdin: new TextEncoder().encode(stdin),
  config: {},
  network: 'net',
  cniVersion: '1.0.0',
  prevResult: undefined,
  env: {
    ...runtime.env,
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: 'c1',
    CNI_IFNAME: 'eth0',
    CNI_PATH: runtime.path.join(':'),
  },
  deadline: runtime.deadline,
  signal: runtime.signal,
})

test('foreignIpam() gives the delegate stdin and environment as they came, with the verb', async () => {
  const { runtime, plugin, order, dump } = place()
  plugin('ipam', { ADD: `echo '{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.0.0.2/24"}]}'` })
  const ipam = foreignIpam('ipam')
  const stdin = '{"name":"net",  "x":12345678901234567890}'
  assert.deepEqual(await ipam.add(call(runtime, stdin)), { ips: [{ address: '10.0.0.2/24' }] })
  for (const verb of ['del', 'check', 'status', 'gc'] as const) await ipam[verb](call(runtime, stdin))
  assert.deepEqual(order(), ['ipam ADD', 'ipam DEL', 'ipam CHECK', 'ipam STATUS', 'ipam GC'])
  assert.equal(dump('ipam', 'DEL', 'stdin'), stdin)
  assert.match(dump('ipam', 'DEL', 'env'), /^TRACEPARENT=00-1-2-01$/m)
})

test('foreignIpam() takes back what a delegate may have done that was killed, not what one did that failed', async () => {
  const { runtime, plugin, order } = place()
  plugin('ipam', { ADD: 'sleep 60' })
  const hurried = { ...call(runtime), deadline: deadlineIn(300) }
  await assert.rejects(foreignIpam('ipam').add(hurried), { code: 11, message: /did not answer in time/ })
  assert.deepEqual(order(), ['ipam ADD', 'ipam DEL'])
  plugin('ipam', { ADD: 'exit 1' })
  await assert.rejects(foreignIpam('ipam').add(call(runtime)), { code: 105 })
  assert.deepEqual(order(), ['ipam ADD'])
})

test('foreignIpam() refuses an index that points nowhere, and leaves interfaces to the parent', async () => {
  const { runtime, plugin, order } = place()
  plugin('ipam', { ADD: `echo '{"ips":[{"address":"10.0.0.2/24","interface":0}]}'` })
  await assert.rejects(foreignIpam('ipam').add(call(runtime)), { code: 105, message: /"ips\[0\].interface" is 0/ })
  assert.deepEqual(order(), ['ipam ADD', 'ipam DEL'])
  plugin('ipam', { ADD: `echo '{"interfaces":[{"name":"x"}],"ips":[{"address":"10.0.0.2/24","interface":0}]}'` })
  assert.deepEqual(await foreignIpam('ipam').add(call(runtime)), { ips: [{ address: '10.0.0.2/24' }] })
})

test('selectIpam() executes a file that is not ours, and takes ours where it is', async () => {
  const { runtime, plugin, order } = place()
  plugin('host-local', { ADD: one })
  const nothing = async () => undefined
  const ours: Ipam = { add: async () => ({}), del: nothing, check: nothing, status: nothing, gc: nothing }
  const known = new Map([['host-local', ours]])
  assert.equal(await selectIpam('host-local', runtime.path, known, () => true), ours)
  assert.equal(await selectIpam('host-local', ['/nonexistent'], known, () => false), ours)
  await (await selectIpam('host-local', runtime.path, known, () => false)).add(call(runtime))
  assert.deepEqual(order(), ['host-local ADD'])
  assert.notEqual(await selectIpam('static', runtime.path, known, () => true), ours)
})
