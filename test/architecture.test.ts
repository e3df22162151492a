// SPDX-License-Identifier: Apache-2.0
// Goal: the tree stays readable from top to bottom. Method: every import line of src/, test/, bench/ and scripts/ is read
// and held against the rules in architecture.ts; small made-up trees prove that each rule bites. Needs no root.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { complaints, importsOf } from './architecture.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const spdx = '// SPDX-License-Identifier: Apache-2.0\n'

function readTree(): Map<string, string> {
  const paths = ['src', 'test', 'bench', 'scripts'].flatMap(folder =>
    readdirSync(root + folder, { recursive: true, encoding: 'utf8' }).map(name => `${folder}/${name}`),
  )
  const sources = paths.filter(path => path.endsWith('.ts') && !path.endsWith('.d.ts'))
  return new Map([...sources, 'package.json'].map(path => [path, readFileSync(root + path, 'utf8')]))
}

/** A tree in which everything is in order, with some files replaced or added. */
function treeWith(files: Record<string, string>): Map<string, string> {
  const sound = {
    'src/bin/mooring.ts':
      "import { listen } from '#agent'\nimport '#cni'\nimport '#host'\nimport '#libc'\nimport '#openstack'\n",
    'src/bin/plugin.ts': '',
    'src/agent/mod.ts': "export { listen } from './listen.ts'\n",
    'src/agent/listen.ts': "import '#host'\n",
    'src/openstack/mod.ts': '',
    'src/cni/mod.ts': "export * from './exec.ts'\n",
    'src/cni/exec.ts': "import { spawn } from 'node:child_process'\n",
    'src/host/mod.ts': '',
    'src/libc/mod.ts': "import koffi from 'koffi'\n",
  }
  return new Map(Object.entries({ ...sound, ...files }).map(([path, text]) => [path, spdx + text]))
}

test('the tree keeps the rules of the house', () => {
  const found = complaints(readTree())
  assert.ok(found.length === 0, `${found.length} complaints\n${found.join('\n')}`)
})

test('importsOf() finds every way of naming a module', () => {
  const text = [
    "import { a } from './a.ts'",
    "import type {\n  B,\n} from './b.ts'",
    "export * from './c.ts'",
    "import './d.ts'",
    "const e = await import('./e.ts')",
    "new Worker(new URL('./f.ts', import.meta.url))",
    "require('g')",
    "// import { h } from './h.ts'",
  ].join('\n')
  assert.deepEqual(importsOf(text).sort(), ['./a.ts', './b.ts', './c.ts', './d.ts', './e.ts', './f.ts', 'g'])
})

test('complaints() has none about a sound tree', () => {
  assert.deepEqual(complaints(treeWith({})), [])
})

const breaches: [criterion: string, files: Record<string, string>, complaint: RegExp][] = [
  ['an arrow upwards', { 'src/host/mod.ts': "import '#agent'\n" }, /host\/mod\.ts: imports '#agent' upwards/],
  ['an arrow sideways', { 'src/openstack/mod.ts': "import '#cni'\n" }, /imports '#cni' sideways/],
  [
    'a room that may import base only',
    { 'src/cni/mod.ts': "import './exec.ts'\nimport '#host'\n" },
    /cni may import base only/,
  ],
  ['a deep import', { 'src/agent/listen.ts': "import '../host/mod.ts'\n" }, /src\/host\/mod\.ts past the door/],
  ['a deep import by a test', { 'test/x.test.ts': "import '../src/host/mod.ts'\n" }, /past the door/],
  ['an unknown room', { 'src/bin/plugin.ts': "import '#helpers'\n" }, /'#helpers', which is no room/],
  ['a room without a level', { 'src/bin/plugin.ts': '', 'src/misc/mod.ts': '' }, /src\/misc\/: has no level/],
  [
    'a second user of koffi',
    { 'src/host/mod.ts': "import koffi from 'koffi'\n" },
    /src\/libc is the only room with FFI/,
  ],
  ['a process started elsewhere', { 'src/host/mod.ts': "import 'node:child_process'\n" }, /processes are started by/],
  ['an unreferenced file', { 'src/host/old.ts': '' }, /src\/host\/old\.ts: is reached from no entry point/],
  [
    'a file that only its test uses',
    { 'src/host/b.ts': '', 'src/host/b.test.ts': "import './b.ts'\n" },
    /host\/b\.ts: is reached/,
  ],
  ['a default export', { 'src/host/mod.ts': 'export default function up() {}\n' }, /default export/],
  ['an enum', { 'src/host/mod.ts': 'export const enum Kind { Veth }\n' }, /declares an enum/],
  [
    'a plugin that imports another',
    { 'src/plugins/main/a/a.ts': "import '../../ipam/b/b.ts'\n", 'src/plugins/ipam/b/b.ts': '' },
    /of another plugin/,
  ],
]
for (const [criterion, files, complaint] of breaches) {
  test(`complaints() names ${criterion}`, () => {
    const found = complaints(treeWith(files))
    assert.ok(
      found.some(text => complaint.test(text)),
      `no complaint matches ${complaint}: ${JSON.stringify(found)}`,
    )
  })
}

test('complaints() names a file without an SPDX line and a door that leads nowhere', () => {
  const tree = treeWith({})
  tree.set('src/host/mod.ts', '')
  tree.set('package.json', JSON.stringify({ imports: { '#base': './src/base/mod.ts' } }))
  assert.deepEqual(complaints(tree).sort(), [
    'package.json: #base leads to ./src/base/mod.ts, which does not exist',
    'src/host/mod.ts: has no SPDX line on top',
  ])
})

test('complaints() lets a test use a file named fake', () => {
  const files = { 'src/host/fake.ts': '', 'src/host/mod.test.ts': "import './fake.ts'\n" }
  assert.deepEqual(complaints(treeWith(files)), [])
})
