// SPDX-License-Identifier: Apache-2.0
// The rules of the source tree as one pure function: file texts in, complaints out. The table of rooms below is the one
// place that says which room may look into which.

/** Level of each room under src/. A room imports rooms of a lower level only, by `#room`, which is its mod.ts. */
export const LEVEL_OF_ROOM: Readonly<Record<string, number>> = {
  bin: 10,
  demo: 9.5,
  doctor: 9,
  cnitool: 9,
  inspect: 9,
  agent: 9,
  controller: 9,
  simulator: 9,
  multinet: 8,
  plugins: 7,
  allocator: 6,
  openstack: 5,
  kubernetes: 5,
  cni: 5,
  host: 4,
  rtnetlink: 3,
  nftables: 3,
  conntrack: 3,
  netlink: 2,
  libc: 1,
  base: 0,
}

/** Rooms that could be libraries of their own: they know nothing of this machine, so they import `base` alone. */
const BASE_ONLY = new Set(['openstack', 'kubernetes', 'cni'])

/** What node runs directly; everything else under src/ is reached from here. */
const ENTRY_POINTS = ['src/bin/mooring.ts', 'src/bin/plugin.ts', 'src/bin/start-plugin.ts']

/** Where a process may be started. Nowhere else, because ADD and DEL start none but the foreign plugin that is configured. */
const MAY_START_PROCESSES: readonly [path: string, reason: string][] = [
  ['src/cni/exec.ts', 'executes a foreign plugin'],
  ['src/bin/', 'tools of an operator'],
  ['src/demo/', 'starts agents and plugins as an operator and a runtime do'],
  ['src/simulator/', 'builds its data plane in network namespaces'],
]

/** What the rules look at: path from the root of the project to text. */
export type Tree = ReadonlyMap<string, string>

const IMPORTS: readonly RegExp[] = [
  /^[ \t]*(?:import|export)\s[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]/gm,
  /^[ \t]*import\s*['"]([^'"]+)['"]/gm,
  /\bimport\(\s*['"]([^'"]+)['"]\s*[,)]/g,
  /\brequire\(\s*['"]([^'"]+)['"]\s*\)/g,
  /\bnew URL\(\s*['"](\.{1,2}\/[^'"]+\.ts)['"]\s*,\s*import\.meta\.url\s*\)/g,
]

/** Every module that a text names: imports, re-exports, import(), require(), and `new URL(…, import.meta.url)` of a worker. */
export function importsOf(text: string): string[] {
  return IMPORTS.flatMap(pattern => [...text.matchAll(pattern)].map(match => match[1]!))
}

/** The complaints about a tree, one sentence each, empty when all is well. */
export function complaints(tree: Tree): string[] {
  const found: string[] = []
  for (const [path, text] of tree) {
    if (!path.endsWith('.ts')) continue
    if (!text.split('\n', 2).some(line => line.includes('SPDX-License-Identifier: Apache-2.0')))
      found.push(`${path}: has no SPDX line on top`)
    if (/^\s*export\s+default\b/m.test(text)) found.push(`${path}: has a default export`)
    if (/^\s*(?:export\s+)?(?:const\s+|declare\s+)?enum\s+\w/m.test(text)) found.push(`${path}: declares an enum`)
    for (const specifier of importsOf(text)) {
      const complaint = complaintAboutImport(path, specifier)
      if (complaint) found.push(`${path}: ${complaint}`)
    }
  }
  found.push(...unknownRooms(tree), ...unreferencedFiles(tree))
  return found
}

function complaintAboutImport(path: string, specifier: string): string | undefined {
  const room = roomOf(path)
  if (specifier.startsWith('.')) {
    const target = resolve(path, specifier)
    const targetRoom = roomOf(target)
    if (targetRoom !== undefined && targetRoom !== room)
      return `imports ${target} past the door, write '#${targetRoom}' and export it in its mod.ts`
    return complaintBetweenPlugins(path, target)
  }
  if (specifier.startsWith('#')) {
    const target = specifier.slice(1)
    const level = LEVEL_OF_ROOM[target]
    if (level === undefined) return `imports '${specifier}', which is no room`
    if (room === undefined) return undefined
    const own = LEVEL_OF_ROOM[room] ?? Number.POSITIVE_INFINITY
    if (target === room) return `imports its own door '${specifier}', inside a room imports are relative`
    if (level === own) return `imports '${specifier}' sideways: ${room} and ${target} are both on level ${own}`
    if (level > own) return `imports '${specifier}' upwards: ${room} is on level ${own}, ${target} on level ${level}`
    if (BASE_ONLY.has(room) && target !== 'base') return `imports '${specifier}', but ${room} may import base only`
    return undefined
  }
  if (specifier === 'koffi' && room !== 'libc') return 'imports koffi: src/libc is the only room with FFI'
  if (/^(node:)?child_process$/.test(specifier)) {
    if (room === undefined || path.endsWith('.test.ts')) return undefined
    if (MAY_START_PROCESSES.some(([allowed]) => path.startsWith(allowed))) return undefined
    return `imports ${specifier}: processes are started by ${MAY_START_PROCESSES.map(([allowed]) => allowed).join(', ')} only`
  }
  return undefined
}

/** A plugin is read alone, so its folder imports no other plugin's; what two share lies above them or in a lower room. */
function complaintBetweenPlugins(path: string, target: string): string | undefined {
  const plugin = (file: string) => /^src\/plugins\/(?:main|ipam|meta)\/([^/]+)\//.exec(file)?.[0]
  const [own, other] = [plugin(path), plugin(target)]
  if (own === undefined || other === undefined || own === other) return undefined
  return `imports ${target} of another plugin`
}

function unknownRooms(tree: Tree): string[] {
  const rooms = new Set([...tree.keys()].map(roomOf).filter(room => room !== undefined))
  const found: string[] = []
  for (const room of rooms) if (!(room in LEVEL_OF_ROOM)) found.push(`src/${room}/: has no level in the table of rooms`)
  const manifest = tree.get('package.json')
  if (manifest === undefined) return found
  const imports: Record<string, string> = JSON.parse(manifest).imports ?? {}
  for (const [name, door] of Object.entries(imports)) {
    if (door !== `./src/${name.slice(1)}/mod.ts`) found.push(`package.json: ${name} is not the door of a room: ${door}`)
    else if (!tree.has(door.slice(2))) found.push(`package.json: ${name} leads to ${door}, which does not exist`)
  }
  return found
}

/**
 * Files under src/ that no entry point reaches. A test does not count as a user of a file, except of one named fake….ts,
 * which stands in for a kernel or a cloud.
 */
function unreferencedFiles(tree: Tree): string[] {
  const sources = [...tree.keys()].filter(path => path.startsWith('src/') && path.endsWith('.ts'))
  const isTest = (path: string) => path.endsWith('.test.ts')
  const fromEntryPoints = reach(tree, ENTRY_POINTS)
  const fromTests = reach(tree, [...tree.keys()].filter(isTest))
  return sources
    .filter(path => !isTest(path) && !fromEntryPoints.has(path))
    .filter(path => !(/\/fake[^/]*\.ts$/.test(path) && fromTests.has(path)))
    .map(path => `${path}: is reached from no entry point (${ENTRY_POINTS.join(', ')})`)
}

function reach(tree: Tree, starts: readonly string[]): Set<string> {
  const reached = new Set<string>()
  const waiting = [...starts]
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const text = tree.get(path)
    if (text === undefined || reached.has(path)) continue
    reached.add(path)
    for (const specifier of importsOf(text)) {
      if (specifier.startsWith('.')) waiting.push(resolve(path, specifier))
      if (specifier.startsWith('#')) waiting.push(`src/${specifier.slice(1)}/mod.ts`)
    }
  }
  return reached
}

function roomOf(path: string): string | undefined {
  return /^src\/([^/]+)\//.exec(path)?.[1]
}

function resolve(from: string, specifier: string): string {
  return new URL(specifier, `file:///${from}`).pathname.slice(1)
}
