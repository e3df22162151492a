// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { conformancePage, type Finding, gate, itemsOf } from './conformance.ts'

test('the gate has 221 items, and a test tells of each', () => {
  assert.equal(new Set(gate).size, 221)
  const root = fileURLToPath(new URL('../..', import.meta.url))
  const told = globSync(['test/**/*.ts', 'src/**/*.test.ts'], { cwd: root })
  const items = new Set(told.flatMap(file => itemsOf(readFileSync(`${root}/${file}`, 'utf8'))))
  assert.deepEqual(
    gate.filter(item => !items.has(item)),
    [],
  )
})

test('itemsOf() finds items wherever they stand in a name', () => {
  assert.deepEqual(itemsOf('DEL: needs no namespace (DEL-05, COM-07)'), ['DEL-05', 'COM-07'])
  assert.deepEqual(itemsOf('the MAC (MAC-04 08 13, ENV-24)'), ['MAC-04', 'MAC-08', 'MAC-13', 'ENV-24'])
  assert.deepEqual(itemsOf('all (BR-09, CHK-04 to CHK-07)'), ['BR-09', 'CHK-04', 'CHK-05', 'CHK-06', 'CHK-07'])
  assert.deepEqual(itemsOf('IPv4-mapped and RFC-7413'), [])
})

test('conformancePage() fails an item where one of its tests fails', () => {
  const finding = (name: string, outcome: Finding['outcome']): Finding => ({ name, file: 'a.test.ts', outcome })
  const ours = [finding('DEL-01 one', 'pass'), finding('DEL-01 two', 'fail'), finding('GC-01 free', 'pass')]
  const page = conformancePage(ours, [finding('GC-01 free', 'skip')], 'v1')
  assert.match(page, /^\| DEL-01 \| • \| \*\*fails\*\* \| – \| one \(`a\.test\.ts`\); two/m)
  assert.match(page, /^\| GC-01 \| • \| passes \| not run: skipped \|/m)
  assert.match(page, /^\| ENV-01 \| • \| – \| – \| {2}\|/m)
})
