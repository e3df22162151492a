// SPDX-License-Identifier: Apache-2.0
// How the runtime's side finds and reads network lists: items LIB of the conformance list, through cnitool with fake plugins.
import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { deadlineIn } from '#base'
import { addNetworkList, parseNetworkList, validateNetworkList } from '#cni'
import { assertSilent, Bench, folder, missing, print } from './harness.ts'

const netns = '/run/netns/none'

/** Adds network `n` and tells which plugins were called. */
async function added(bench: Bench, name = 'n'): Promise<string[]> {
  const outcome = await bench.cnitool(['add', name, netns])
  assert.equal(outcome.rc, 0, outcome.stderr)
  return bench.fakes.take().map(call => call.name)
}

async function refused(bench: Bench, message: RegExp, name = 'n'): Promise<void> {
  const outcome = await bench.cnitool(['add', name, netns])
  assert.equal(outcome.rc, 1)
  assert.match(outcome.stderr, message)
  assert.deepEqual(bench.fakes.order(), [])
}

suite('LIB loading', { skip: missing, concurrency: 2 }, () => {
  test('LIB-01 lists come first in lexical order, then single plugins', async () => {
    const bench = new Bench()
    for (const name of ['first', 'second', 'conf', 'json']) bench.fakes.add(name)
    bench.conf('00.conf', { cniVersion: '1.0.0', name: 'n', type: 'conf' })
    bench.conf('05.conflist', { cniVersion: '1.0.0', name: 'other', plugins: [{ type: 'first' }] })
    bench.conf('20.conflist', { cniVersion: '1.0.0', name: 'n', plugins: [{ type: 'second' }] })
    bench.conf('10.conflist', { cniVersion: '1.0.0', name: 'n', plugins: [{ type: 'first' }] })
    bench.conf('30.json', { cniVersion: '1.0.0', name: 'j', type: 'json' })
    bench.conf('31.conf', { cniVersion: '1.0.0', name: 'c', type: 'conf' })
    assert.deepEqual(await added(bench), ['first'])
    assert.deepEqual(await added(bench, 'j'), ['json'])
    assert.deepEqual(await added(bench, 'c'), ['conf'])
  })

  test('LIB-02 not found and nothing at all have their own texts', async () => {
    const bench = new Bench()
    await refused(bench, new RegExp(`no net configurations found in ${bench.confDirectory}`))
    bench.list('other', '1.0.0', ['p'])
    await refused(bench, new RegExp(`no net configuration with name "n" in ${bench.confDirectory}`))
  })

  test('LIB-03 a broken file is named and does not hide those behind it', async () => {
    const bench = new Bench().conf('00-bad.conflist', '{"name":').list('n', '1.0.0', ['p'])
    bench.fakes.add('p')
    const outcome = await bench.cnitool(['add', 'n', netns])
    assert.equal(outcome.rc, 0, outcome.stderr)
    assert.match(outcome.stderr, /00-bad\.conflist/)
  })

  test('LIB-04 folders and other suffixes are ignored, links are followed', async () => {
    const bench = new Bench().conf('sub/x.conflist', { cniVersion: '1.0.0', name: 'n', plugins: [{ type: 'p' }] })
    bench.fakes.add('p')
    bench.conf('x.conflist.bak', { cniVersion: '1.0.0', name: 'n', plugins: [{ type: 'p' }] })
    mkdirSync(join(bench.confDirectory, 'folder.conflist'))
    await refused(bench, /no net configurations? /)
    symlinkSync(join(bench.confDirectory, 'sub/x.conflist'), join(bench.confDirectory, 'link.conflist'))
    assert.deepEqual(await added(bench), ['p'])
  })

  test('LIB-05 a list without name, or with a name of another type, is refused', async () => {
    await refused(
      new Bench().conf('a.conflist', { plugins: [{ type: 'p' }] }),
      /error parsing configuration list: no name/,
    )
    await refused(new Bench().conf('a.conflist', { name: 5, plugins: [{ type: 'p' }] }), /invalid name type/)
  })

  test('LIB-06 cniVersions: the highest known version is used', async () => {
    const bench = new Bench().list('n', '0.4.0', ['p'], { cniVersions: ['1.1.0', '9.9.9'] })
    bench.fakes.add('p')
    assert.equal((await bench.cnitool(['add', 'n', netns])).rc, 0)
    assert.equal(JSON.parse(bench.fakes.take()[0]!.stdin).cniVersion, '1.1.0')
    await refused(new Bench().list('n', '1.0.0', ['p'], { cniVersions: 'x' }), /invalid type for cniVersions/)
    await refused(new Bench().list('n', '1.0.0', ['p'], { cniVersions: ['1.0.0', 5] }), /cniVersions index 1/)
    await refused(
      new Bench().list('n', '1.0.0', ['p'], { cniVersions: ['abc'] }),
      /invalid cniVersions entry abc at index 0/,
    )
  })

  test('LIB-07 switches are bool or "true" and "false" in any case, else an error', async () => {
    for (const key of ['disableCheck', 'disableGC', 'loadOnlyInlinedPlugins']) {
      for (const value of [true, 'TRUE', 'False']) {
        const bench = new Bench().list('n', '1.0.0', ['p'], { [key]: value })
        bench.fakes.add('p')
        assert.deepEqual(await added(bench), ['p'])
      }
      for (const value of ['yes', 1])
        await refused(new Bench().list('n', '1.0.0', ['p'], { [key]: value }), new RegExp(key))
    }
  })

  test('LIB-08 no plugins are an error', async () => {
    await refused(new Bench().list('n', '1.0.0', []), /no plugins in list/)
    const bench = new Bench().conf('n.conflist', { cniVersion: '1.0.0', name: 'n', loadOnlyInlinedPlugins: true })
    await refused(bench, /`loadOnlyInlinedPlugins` is true, and no 'plugins' key/)
  })

  test('LIB-09 plugins in the folder of the network are appended in order, unless only inlined ones are wanted', async () => {
    const bench = new Bench().list('n', '1.0.0', ['p'])
    for (const name of ['p', 'a', 'b']) bench.fakes.add(name)
    bench.conf('n/20.conf', { type: 'b' }).conf('n/10.conf', { type: 'a' })
    assert.deepEqual(await added(bench), ['p', 'a', 'b'])
    bench.list('n', '1.0.0', ['p'], { loadOnlyInlinedPlugins: true })
    await bench.cnitool(['del', 'n', netns])
    bench.fakes.take()
    assert.deepEqual(await added(bench), ['p'])
    await refused(new Bench().conf('n.conflist', { cniVersion: '1.0.0', name: 'n' }), /no plugin configs found/)
  })

  test('LIB-10 a plugin without type is refused', async () => {
    await refused(new Bench().list('n', '1.0.0', [{ x: 1 }]), /missing 'type'/)
  })

  test('LIB-11 disableCheck: CHECK succeeds without a call', async () => {
    const bench = new Bench().list('n', '1.0.0', ['p'], { disableCheck: true })
    bench.fakes.add('p')
    assertSilent(await bench.cnitool(['check', 'n', netns]))
    assert.deepEqual(bench.fakes.order(), [])
  })

  test('LIB-12 CHECK of a list before 0.4.0 is refused without a call', async () => {
    const bench = new Bench().list('n', '0.3.1', ['p'])
    bench.fakes.add('p')
    const outcome = await bench.cnitool(['check', 'n', netns])
    assert.equal(outcome.rc, 1)
    assert.match(outcome.stderr, /configuration version "0\.3\.1" does not support the CHECK command/)
    assert.deepEqual(bench.fakes.order(), [])
  })

  test('LIB-13 the request has name and version of the list, and unknown keys as they were', async () => {
    const text =
      '{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"p","x":12345678901234567890,"y":{"z":[1.5,null]}}]}'
    const bench = new Bench().conf('n.conflist', text)
    bench.fakes.add('p')
    assert.equal((await bench.cnitool(['add', 'n', netns])).rc, 0)
    const { stdin } = bench.fakes.take()[0]!
    assert.match(stdin, /"x":12345678901234567890[,}]/)
    const { x: _, ...rest } = JSON.parse(stdin)
    assert.deepEqual(rest, { cniVersion: '1.0.0', name: 'n', type: 'p', y: { z: [1.5, null] } })
  })

  test('LIB-14 capabilities are not in the request', async () => {
    const bench = new Bench().list('n', '1.0.0', [{ type: 'p', capabilities: { ips: true } }])
    bench.fakes.add('p')
    assert.equal((await bench.cnitool(['add', 'n', netns])).rc, 0)
    assert.equal('capabilities' in JSON.parse(bench.fakes.take()[0]!.stdin), false)
  })

  test('LIB-15 validation names missing plugins and versions, and unites capabilities', async () => {
    const bench = new Bench()
    bench.fakes.add('old', { VERSION: print({ cniVersion: '0.2.0' }) })
    bench.fakes.add('new', { VERSION: print({ cniVersion: '1.1.0', supportedVersions: ['1.0.0'] }) })
    const runtime = {
      path: [bench.fakes.directory],
      env: {},
      cacheDirectory: bench.varLib,
      deadline: deadlineIn(10_000),
      signal: new AbortController().signal,
    }
    const list = (plugins: object[]) =>
      parseNetworkList(new TextEncoder().encode(JSON.stringify({ cniVersion: '1.0.0', name: 'n', plugins })))
    await assert.rejects(validateNetworkList(list([{ type: 'none' }]), runtime), {
      message: /failed to find plugin "none"/,
    })
    await assert.rejects(validateNetworkList(list([{ type: 'old' }]), runtime), {
      message: 'plugin old does not support config version "1.0.0"',
    })
    const capabilities = [
      { ips: true, mac: false },
      { portMappings: true, ips: true },
    ]
    assert.deepEqual(
      await validateNetworkList(list(capabilities.map(each => ({ type: 'new', capabilities: each }))), runtime),
      ['ips', 'portMappings'],
    )
  })

  test('ERR-06 LIB-16 an attachment without container id is error 3: there is nothing to delete', async () => {
    const list = parseNetworkList(
      new TextEncoder().encode('{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"p"}]}'),
    )
    const attachment = { containerId: '', ifName: 'eth0', netns, args: [], capabilityArgs: {} }
    const runtime = {
      path: [],
      env: {},
      cacheDirectory: folder('cache'),
      deadline: deadlineIn(10_000),
      signal: new AbortController().signal,
    }
    await assert.rejects(addNetworkList(list, attachment, runtime), { code: 3, message: 'missing containerID' })
  })

  test('LIB-16 interface name and network name are validated before a plugin is called', async () => {
    const bench = new Bench().list('n', '1.0.0', ['p']).conf('bad.conflist', {
      cniVersion: '1.0.0',
      name: 'a b',
      plugins: [{ type: 'p' }],
    })
    bench.fakes.add('p')
    const wrongIfName = await bench.cnitool(['add', 'n', netns], { CNI_IFNAME: 'a/b' })
    assert.equal(wrongIfName.rc, 1)
    assert.match(wrongIfName.stderr, /interface name contains/)
    await refused(bench, /invalid characters found in network name/, 'a b')
  })
})
