// SPDX-License-Identifier: Apache-2.0

// Promise: every command tells how it is called, and what is mistyped, or cannot be printed, is told in one line.

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const command = fileURLToPath(new URL('../mooring', import.meta.url))
const mooring = (...args: string[]) => spawnSync(command, args, { encoding: 'utf8' })

test('mooring COMMAND --help: every command has one, with a line for each option and argument', () => {
  const { stdout } = mooring('--help')
  const commands = [...stdout.matchAll(/^ {2}([a-z]+) .*\S {2,}\S/gm)].map(([, name]) => name!)
  assert.ok(
    ['agent', 'plugin', 'cni', 'install', 'demo'].every(name => commands.includes(name)),
    commands.join(),
  )
  for (const name of commands.filter(each => each !== 'help')) {
    const { status, stdout: text, stderr } = mooring(name, '--help')
    assert.equal(status, 0, `${name}: ${text}${stderr}`)
    assert.match(text, /^Usage: /, name)
    assert.match(text, /^ {2}-h, --help /m, name)
  }
})

test('mooring: who is not root is told so, and not that there is nothing', { skip: process.getuid?.() !== 0 }, () => {
  for (const line of ['ip list', 'inspect c1', 'netns 1', 'exec c1 -- id', 'nic move eth0 host', 'ports', 'drain']) {
    const asNobody = ['--reuid=65534', '--regid=65534', '--clear-groups', command, ...line.split(' ')]
    const { status, stderr } = spawnSync('setpriv', asNobody, { encoding: 'utf8', cwd: '/' })
    assert.equal(
      stderr,
      `mooring: Cannot run mooring ${line.split(' ')[0]}: it looks at what is root's. Run it as root\n`,
    )
    assert.equal(status, 1)
  }
})

test('mooring: a value that cannot be is one line that says which ones can', () => {
  for (const [line, said] of [
    ['simulator --port 99999', 'Cannot use --port "99999": want a whole number from 0 to 65535'],
    [
      'demo --name UPPER',
      'Cannot call the demo "UPPER": want a small letter, then small letters, digits and dashes, 31 in all at most',
    ],
    [
      'agent --netns /tmp --data-dir DIR --socket DIR/sock',
      'Cannot work in the namespace "/tmp": no network namespace is there',
    ],
  ] as const) {
    const directory = mkdtempSync(join(tmpdir(), 'mooring-help-'))
    const { status, stderr } = mooring(...line.replaceAll('DIR', directory).split(' '))
    rmSync(directory, { recursive: true })
    assert.deepEqual([status, stderr], [1, `mooring: ${said}\n`])
  }
})

test('mooring: output that finds no room is one line on stderr, and exit code 1', () => {
  const full = openSync('/dev/full', 'w')
  const { status, stderr } = spawnSync(command, ['cni', '--help'], {
    encoding: 'utf8',
    stdio: ['ignore', full, 'pipe'],
  })
  closeSync(full)
  assert.equal(stderr, 'mooring: Cannot write: ENOSPC: no space left on device, write\n')
  assert.equal(status, 1)
})

test('mooring: output that nobody reads is exit code 1, and no word more', async () => {
  const child = spawn(command, ['cni', '--help'], { stdio: ['ignore', 'pipe', 'pipe'] })
  child.stdout.destroy()
  const stderr = text(child.stderr)
  const [code] = await once(child, 'exit')
  assert.deepEqual([code, await stderr], [1, ''])
})

test('mooring: what is mistyped is one line on stderr', () => {
  for (const args of [['agnet'], ['agent', '--sokcet', 'x'], ['plugin'], ['install'], ['install', '--mode', 'x']]) {
    const { status, stdout, stderr } = mooring(...args)
    assert.deepEqual([status, stdout], [1, ''], args.join(' '))
    assert.match(stderr, /^error: .*\n(\(Did you mean .*\)\n)?$/)
  }
})
