// SPDX-License-Identifier: Apache-2.0
// Goal: style that is not checked is not style. Method: the tools that everybody runs by hand (`npm run ok`) run here as
// well, so that one report tells everything. Needs no root.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { globSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

function passes(program: string, ...args: string[]): void {
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd: root, encoding: 'utf8' })
  assert.equal(status, 0, `${program} ${args.join(' ')}: ${error?.message ?? `${stdout}${stderr}`}`)
}

test('TypeScript finds no error', () => {
  // Its four checkers share nothing: in sum they take half as long again, beside other tests.
  passes(process.execPath, 'node_modules/typescript/bin/tsc', '--noEmit', '--checkers', '1')
})

test('Biome finds no error and nothing to format', () => {
  passes(process.execPath, 'node_modules/@biomejs/biome/bin/biome', 'check', '--colors=off', '.')
})

test('the C compiler has no warning about the shim', () => {
  passes('cc', '-Wall', '-Wextra', '-Werror', '-fsyntax-only', ...globSync('shim/*.c', { cwd: root }))
})

test('the shell understands every shell script', () => {
  for (const script of ['mooring', '.ci/run']) passes('sh', '-n', script)
})
