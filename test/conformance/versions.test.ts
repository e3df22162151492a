// SPDX-License-Identifier: Apache-2.0
// VERSION and the negotiation of versions: items VER of the conformance list.
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { suite, test } from 'node:test'
import { deadlineIn } from '#base'
import { pluginVersions, supportedVersions } from '#cni'
import {
  errorOf,
  execute,
  Fakes,
  fail,
  folder,
  mainPlugin,
  missing,
  plugin,
  pluginDirectory,
  pod,
  print,
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
  ipam: { type: 'host-local', subnet: '10.81.0.0/24', dataDir: folder('data') },
  ...more,
})
const call = (env: Record<string, string>, text: object | string = config()) =>
  plugin('host-local', { ...environment, ...env }, text)
const types =
  missing === undefined
    ? readdirSync(pluginDirectory()).filter(name => name !== 'cnitool' && !name.startsWith('.'))
    : []

suite('VER versions', { skip: missing }, () => {
  test('VER-01 VER-02 every plugin answers VERSION with all versions in order, one line', async () => {
    for (const type of types) {
      const outcome = await plugin(type, { CNI_COMMAND: 'VERSION' }, '')
      assert.equal(outcome.stdout, `{"cniVersion":"1.1.0","supportedVersions":${JSON.stringify(supportedVersions)}}\n`)
      assert.equal(outcome.rc, 0)
    }
  })

  test('VER-03 VERSION does not look at stdin', async () => {
    for (const stdin of ['', 'garbage', '{"cniVersion":"9.9.9"}'])
      resultOf(await call({ CNI_COMMAND: 'VERSION' }, stdin))
    const closed = await execute(['/bin/sh', '-c', `exec ${pluginDirectory()}/host-local <&-`], {
      env: { CNI_COMMAND: 'VERSION', ...stateEnv() },
    })
    resultOf(closed)
  })

  test('VER-04 no cniVersion means 0.1.0', async () => {
    for (const cniVersion of [undefined, '']) {
      const result = resultOf(await call({}, config({ cniVersion })))
      assert.deepEqual([result.cniVersion, result.ip4.ip], ['0.1.0', '10.81.0.2/24'])
    }
  })

  test('VER-05 a version that is not in the list is error 1', async () => {
    for (const cniVersion of ['9.9.9', '1.0', 'v1.0.0', '1.2.0', 'abc']) {
      const error = errorOf(await call({}, config({ cniVersion })))
      assert.deepEqual([error.code, error.msg], [1, 'incompatible CNI versions'])
      assert.ok(error.details?.startsWith(`config is "${cniVersion}", plugin supports ["0.1.0" "0.2.0" `))
    }
  })

  test('VER-06 CHECK before 0.4.0 is error 1', async () => {
    const error = errorOf(await call({ CNI_COMMAND: 'CHECK' }, config({ cniVersion: '0.3.1' })))
    assert.deepEqual([error.code, error.msg], [1, 'config version does not allow CHECK'])
  })

  test('VER-07 GC and STATUS before 1.1.0 are error 1', async () => {
    for (const verb of ['GC', 'STATUS']) {
      const error = errorOf(await call({ CNI_COMMAND: verb }, config({ cniVersion: '1.0.0' })))
      assert.deepEqual([error.code, error.msg], [1, `config version does not allow ${verb}`])
    }
  })

  const probe = (fakes: Fakes) =>
    pluginVersions(`${fakes.directory}/p`, {}, { deadline: deadlineIn(10_000), signal: new AbortController().signal })

  test('VER-08 the prober understands old plugins', async () => {
    const versions = (shell: string) => probe(new Fakes().add('p', { VERSION: shell }))
    assert.deepEqual(await versions(fail(100, 'unknown CNI_COMMAND: VERSION')), ['0.1.0'])
    assert.deepEqual(await versions(print({ cniVersion: '0.2.0' })), ['0.1.0', '0.2.0'])
    assert.deepEqual(await versions(print({ cniVersion: '1.0.0', supportedVersions: ['1.0.0'] })), ['1.0.0'])
    await assert.rejects(versions(print({ cniVersion: '1.0.0' })), { message: /missing field supportedVersions/ })
  })

  test('VER-09 the prober sends what old plugins want', async () => {
    const fakes = new Fakes().add('p', { VERSION: print({ cniVersion: '0.2.0' }) })
    await probe(fakes)
    const [seen] = fakes.take()
    assert.deepEqual(
      [seen?.stdin, seen?.env['CNI_NETNS'], seen?.env['CNI_IFNAME'], seen?.env['CNI_PATH']],
      ['{"cniVersion":"1.1.0"}', 'dummy', 'dummy', 'dummy'],
    )
  })

  test('VER-10 VERSION takes at most 30 ms and no agent', async () => {
    const times = []
    for (let count = 0; count < 9; count++) times.push((await plugin(mainPlugin, { CNI_COMMAND: 'VERSION' }, '')).ms)
    assert.ok(times.sort((a, b) => a - b)[4]! <= 30, `median ${times[4]} ms`)
  })
})
