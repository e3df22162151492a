// SPDX-License-Identifier: Apache-2.0

// Goal: installing never loses what somebody else put into the plugin directory: names that are taken stay, or are taken
// over when asked and given back. Method: the command itself, on directories of its own.

import assert from 'node:assert/strict'
import { chmodSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { folder, root, run } from './nodelab.ts'

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
