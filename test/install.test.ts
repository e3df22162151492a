// SPDX-License-Identifier: Apache-2.0

// Goal: installing never loses what somebody else put into the plugin directory: names that are taken stay, or are taken
// over when asked and given back. Method: the command itself, on directories of its own.

import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { errorOf, folder, makeLab, makeNetns, resultOf, root, run, skip } from './nodelab.ts'

const THEIRS = '#!/bin/sh\necho upstream\n'
const mooring = (verb: 'install' | 'uninstall', directory: string, ...more: string[]) =>
  run(join(root, 'mooring'), [verb, '--cni-bin', directory, '--config', join(directory, '..', 'mode'), ...more])

/** A plugin directory with a plugin of somebody else's, and one by a link. */
function withTheirs(): string {
  const directory = folder('cni-bin')
  writeFileSync(join(directory, 'ptp'), THEIRS)
  chmodSync(join(directory, 'ptp'), 0o755)
  symlinkSync('ptp', join(directory, 'bridge'))
  return directory
}
const isShim = (file: string) => readFileSync(file, 'latin1').includes('mooring-shim/')

test('install: a name that is taken stays, ours has another; uninstall removes ours alone', () => {
  const directory = withTheirs()
  assert.match(mooring('install', directory), /^ptp is another's and stays: ours is mooring-ptp$/m)
  assert.equal(readFileSync(join(directory, 'ptp'), 'utf8'), THEIRS)
  assert.ok(isShim(join(directory, 'mooring-ptp')) && isShim(join(directory, 'loopback')))
  mooring('uninstall', directory)
  assert.deepEqual(readdirSync(directory).sort(), ['bridge', 'ptp'])
})

test('install --replace: ours takes the name, what had it is kept, and uninstall gives it back', () => {
  const directory = withTheirs()
  assert.match(mooring('install', directory, '--replace'), /^ptp was another's: kept as ptp\.upstream$/m)
  assert.ok(isShim(join(directory, 'ptp')) && isShim(join(directory, 'bridge')))
  assert.equal(readFileSync(join(directory, 'ptp.upstream'), 'utf8'), THEIRS)
  // Once more, as an update does it, with and without the option.
  for (const more of [['--replace'], []]) mooring('install', directory, ...more)
  assert.equal(readFileSync(join(directory, 'ptp.upstream'), 'utf8'), THEIRS)
  assert.match(mooring('uninstall', directory), /^ptp is what it was before$/m)
  assert.deepEqual(readdirSync(directory).sort(), ['bridge', 'ptp'])
  assert.equal(readFileSync(join(directory, 'bridge'), 'utf8'), THEIRS)
  assert.equal(statSync(join(directory, 'ptp')).mode & 0o777, 0o755)
})

test('install --replace: a newer one of theirs that came over ours is what is kept then', () => {
  const directory = withTheirs()
  mooring('install', directory, '--replace')
  rmSync(join(directory, 'ptp'))
  writeFileSync(join(directory, 'ptp'), `${THEIRS}# newer\n`)
  mooring('install', directory, '--replace')
  mooring('uninstall', directory)
  assert.equal(readFileSync(join(directory, 'ptp'), 'utf8'), `${THEIRS}# newer\n`)
})

test('uninstall: does not give a name to what is not the same any more', () => {
  const directory = withTheirs()
  mooring('install', directory, '--replace')
  writeFileSync(join(directory, 'ptp.upstream'), 'something else')
  assert.match(mooring('uninstall', directory), /^ptp\.upstream is not what had the name ptp before/m)
  assert.deepEqual(readdirSync(directory).sort(), ['bridge', 'ptp.upstream'])
})

test('install: once more, it keeps the settings that it is not told', () => {
  const directory = folder('cni-bin')
  const settings = () =>
    readFileSync(join(directory, '..', 'mode'), 'utf8')
      .split('\n')
      .slice(0, 3)
  const chosen = ['mode=agent', 'socket=/run/here.sock', 'data=/var/here']
  mooring('install', directory, '--mode', 'agent', '--socket', '/run/here.sock', '--data-dir', '/var/here')
  mooring('install', directory)
  assert.deepEqual(settings(), chosen)
  mooring('install', directory, '--mode', 'standalone')
  assert.deepEqual(settings(), ['mode=standalone', ...chosen.slice(1)])
  mooring('uninstall', directory)
})

test('install: paths count from where it is called, not from where a runtime calls', () => {
  const directory = folder('cni-bin')
  mooring('install', directory, '--socket', 'here.sock', '--data-dir', 'data')
  const text = readFileSync(join(directory, '..', 'mode'), 'utf8')
  assert.match(text, new RegExp(`^socket=${process.cwd()}/here.sock\ndata=${process.cwd()}/data$`, 'm'))
  mooring('uninstall', directory)
})

test('uninstall: a directory without anything of ours is an error, and the settings stay', () => {
  const directory = folder('cni-bin')
  mooring('install', directory)
  for (const other of [folder('empty'), join(directory, 'nowhere')])
    assert.throws(() => mooring('uninstall', other), /Cannot uninstall: nothing of ours is in .*\. Name the directory/)
  assert.ok(existsSync(join(directory, '..', 'mode')))
  mooring('uninstall', directory)
  assert.ok(!existsSync(join(directory, '..', 'mode')))
})

test('install: a directory that has the name of a plugin stays, and uninstall leaves it', () => {
  const directory = folder('cni-bin')
  for (const name of ['static', 'cnitool']) mkdirSync(join(directory, name))
  const text = mooring('install', directory)
  assert.match(text, /^static is another's and stays: ours is mooring-static$/m)
  assert.match(text, /^cnitool is another's and stays: /m)
  assert.throws(
    () => mooring('install', directory, '--replace'),
    /Cannot take the name static in .*: it is a directory/,
  )
  mooring('uninstall', directory)
  assert.deepEqual(readdirSync(directory).sort(), ['cnitool', 'static'])
})

test('install: a directory that cannot be written is named, with the reason', () => {
  const file = join(folder('cni-bin'), 'file')
  writeFileSync(file, '')
  for (const directory of [file, '/proc/nothing'])
    assert.throws(() => mooring('install', directory), /^Error: .*\nmooring: Cannot install in ".*": E\w+: /)
})

for (const mode of ['standalone', 'agent'] as const)
  test(`STATUS is 50 where somebody overwrote what the network calls, ${mode} (STA-03)`, { skip }, async () => {
    const directory = folder('cni-bin')
    mooring('install', directory)
    const node = makeLab({ mode }).nodes[0]!
    await using _ = mode === 'agent' ? await node.startAgent() : undefined
    const env = { CNI_PATH: directory }
    const status = () =>
      node.call('STATUS', { containerId: '', netns: '' }, { env, more: { name: 'podnet', cniVersion: '1.1.0' } })
    const overwrite = (name: string) => {
      // As a package does it, by a new file.
      rmSync(join(directory, name))
      writeFileSync(join(directory, name), '#!/bin/sh\nexit 0\n', { mode: 0o755 })
    }
    resultOf(await status())
    overwrite('bridge') // which the network does not call
    resultOf(await status())
    overwrite('host-local')
    const error = errorOf(await status())
    assert.equal(error.code, 50)
    assert.match(error.msg, /^Cannot serve: somebody overwrote host-local in .*, which was ours$/)
    assert.match(error.details!, /mooring install --replace/)
    if (mode === 'agent') {
      // A plugin of the same chain is known by what it has attached.
      mooring('install', directory, '--replace')
      const it = { containerId: 'c', netns: makeNetns('pod').path }
      const config = { ...node.config(), type: 'macvlan' }
      resultOf(await node.call('ADD', { ...it, type: 'macvlan', config }))
      overwrite('macvlan')
      assert.match(errorOf(await status()).msg, /^Cannot serve: somebody overwrote macvlan in /)
      resultOf(await node.call('DEL', { ...it, type: 'macvlan', config }))
      resultOf(await status())
    }
    mooring('uninstall', directory)
    assert.ok(!readdirSync(directory).includes('.mooring-installed'))
  })
