// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { findNetwork, parseNetworkList, requestConfig } from './config.ts'
import type { JsonObject } from './plugin.ts'

const root = mkdtempSync(join(tmpdir(), 'cni-config-'))
after(() => rmSync(root, { recursive: true }))

let count = 0
/** A directory with these files; an object is written as JSON, a text as it is. */
function folder(files: Record<string, object | string>): string {
  const directory = join(root, `${count++}`)
  mkdirSync(directory)
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(join(directory, name, '..'), { recursive: true })
    writeFileSync(join(directory, name), typeof content === 'string' ? content : JSON.stringify(content))
  }
  return directory
}

const bytes = (value: object | string) =>
  new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value))
const list = (name: string, more: object = {}) => ({ cniVersion: '1.0.0', name, plugins: [{ type: 'p' }], ...more })

test('parseNetworkList() reads versions, switches and plugins', () => {
  const read = parseNetworkList(
    bytes(list('n', { disableCheck: true, disableGC: 'TRUE', loadOnlyInlinedPlugins: 'false' })),
  )
  assert.equal(read.cniVersion, '1.0.0')
  assert.deepEqual([read.disableCheck, read.disableGC, read.loadOnlyInlinedPlugins], [true, true, false])
  assert.equal(read.plugins[0]?.type, 'p')
})

test('parseNetworkList() chooses the highest version that we know', () => {
  const choose = (versions: object) =>
    parseNetworkList(bytes({ name: 'n', plugins: [{ type: 'p' }], ...versions })).cniVersion
  assert.equal(choose({ cniVersions: ['1.1.0', '9.9.9'] }), '1.1.0')
  assert.equal(choose({ cniVersions: ['0.4.0'], cniVersion: '1.0.0' }), '1.0.0')
  assert.equal(choose({ cniVersions: ['0.9.0', '0.10.0'] }), '0.10.0')
  assert.equal(choose({ cniVersions: ['9.9.9'], cniVersion: '9.0.0' }), '9.0.0')
  assert.equal(choose({}), '0.1.0')
})

test('parseNetworkList() refuses in the words of the reference', () => {
  const cases: [object, string][] = [
    [{ plugins: [] }, 'no name'],
    [{ name: 5 }, 'invalid name type number'],
    [{ name: 'n', cniVersion: 1 }, 'invalid cniVersion type number'],
    [{ name: 'n', cniVersions: 'x' }, 'invalid type for cniVersions: string'],
    [{ name: 'n', cniVersions: ['1.0.0', 2] }, 'invalid type for cniVersions index 1: number'],
    [{ name: 'n', plugins: [] }, 'no plugins in list'],
    [{ name: 'n', plugins: {} }, "invalid 'plugins' type object"],
    [{ name: 'n', loadOnlyInlinedPlugins: true }, "`loadOnlyInlinedPlugins` is true, and no 'plugins' key"],
    [list('n', { disableCheck: 'yes' }), 'invalid value "yes" for disableCheck'],
    [list('n', { disableGC: 1 }), 'invalid type number for disableGC'],
  ]
  for (const [value, reason] of cases)
    assert.throws(() => parseNetworkList(bytes(value)), {
      code: 7,
      message: `error parsing configuration list: ${reason}`,
    })
  assert.throws(() => parseNetworkList(bytes({ name: 'n', cniVersions: ['abc'] })), {
    message: /invalid cniVersions entry abc at index 0/,
  })
  assert.throws(() => parseNetworkList(bytes({ name: 'n', plugins: [{ type: 'p' }, { x: 1 }] })), {
    message: "failed to parse plugin config 1: error parsing configuration: missing 'type'",
  })
})

test('findNetwork() looks into lists before single plugins, in the order of file names', async () => {
  const directory = folder({
    '10-a.conf': { cniVersion: '0.3.1', name: 'n', type: 'single' },
    '20-b.conflist': list('n', { plugins: [{ type: 'second' }] }),
    '15-c.conflist': list('n', { plugins: [{ type: 'first' }] }),
    '05-other.conflist': list('other'),
  })
  assert.equal((await findNetwork(directory, 'n')).list.plugins[0]?.type, 'first')
})

test('findNetwork() makes a list of a single plugin', async () => {
  const directory = folder({ 'a.json': { cniVersion: '0.3.1', name: 'n', type: 'p', big: 1 } })
  const { list: found } = await findNetwork(directory, 'n')
  assert.deepEqual([found.name, found.cniVersion, found.plugins.length], ['n', '0.3.1', 1])
})

test('findNetwork() tells nothing at all from nothing of this name', async () => {
  const empty = folder({})
  await assert.rejects(findNetwork(empty, 'n'), { code: 7, message: `no net configurations found in ${empty}` })
  await assert.rejects(findNetwork(join(empty, 'missing'), 'n'), { message: /no net configurations found in/ })
  const other = folder({ 'a.conflist': list('other') })
  await assert.rejects(findNetwork(other, 'n'), { message: `no net configuration with name "n" in ${other}` })
})

test('findNetwork() reports a broken file and goes on', async () => {
  const directory = folder({ '00-bad.conflist': '{"name":', '10-good.conflist': list('n') })
  const { list: found, faults } = await findNetwork(directory, 'n')
  assert.equal(found.name, 'n')
  assert.match(faults[0]?.message ?? '', /00-bad\.conflist: Cannot decode configuration list: it ends too early/)
  await assert.rejects(findNetwork(directory, 'x'), { details: /00-bad\.conflist/ })
})

test('findNetwork() tells what is wrong with the file of this name', async () => {
  const directory = folder({ 'a.conflist': { name: 'n', plugins: [] }, 'b.conflist': list('other') })
  await assert.rejects(findNetwork(directory, 'n'), {
    message: `${join(directory, 'a.conflist')}: error parsing configuration list: no plugins in list`,
  })
})

test('findNetwork() ignores folders and other suffixes, follows links', async () => {
  const directory = folder({ 'sub/x.conflist': list('n'), 'x.conflist.bak': list('n'), 'dir.conflist/x': list('n') })
  await assert.rejects(findNetwork(directory, 'n'), { message: /no net configurations found/ })
  symlinkSync(join(directory, 'sub/x.conflist'), join(directory, 'link.conflist'))
  assert.equal((await findNetwork(directory, 'n')).list.name, 'n')
})

test('findNetwork() appends plugins from the folder of the network, in order', async () => {
  const files = { 'n/b.conf': { type: 'b' }, 'n/a.conf': { type: 'a' }, 'n/c.json': { type: 'c' } }
  const types = async (directory: string) => (await findNetwork(directory, 'n')).list.plugins.map(each => each.type)
  assert.deepEqual(await types(folder({ 'x.conflist': list('n'), ...files })), ['p', 'a', 'b'])
  assert.deepEqual(await types(folder({ 'x.conflist': { name: 'n' }, ...files })), ['a', 'b'])
  assert.deepEqual(await types(folder({ 'x.conflist': list('n', { loadOnlyInlinedPlugins: true }), ...files })), ['p'])
  await assert.rejects(findNetwork(folder({ 'x.conflist': { name: 'n' } }), 'n'), {
    message: /no plugin configs found/,
  })
})

test('requestConfig() passes unknown keys and large numbers on, and only declared capabilities', () => {
  const read = parseNetworkList(
    bytes(
      '{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"p","x":12345678901234567890,"Name":"other","__proto__":{"a":1},' +
        '"capabilities":{"ips":true,"mac":false,"portMappings":true}}]}',
    ),
  )
  const request = (args: JsonObject) => new TextDecoder().decode(requestConfig(read, read.plugins[0]!, {}, args))
  assert.equal(
    request({ ips: ['10.0.0.2'], mac: 'x', bandwidth: {} }),
    '{"cniVersion":"1.0.0","name":"n","runtimeConfig":{"ips":["10.0.0.2"]},"type":"p","x":12345678901234567890,"__proto__":{"a":1}}',
  )
  assert.doesNotMatch(request({}), /runtimeConfig/)
})
