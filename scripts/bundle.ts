// SPDX-License-Identifier: Apache-2.0
// Bundles src/bin into JavaScript. A one-shot plugin call pays for every module that it loads and for every type that is
// stripped; one file with V8's code cache beside it starts in a fraction of that, and so do commands: 0.1 s of CPU instead of
// 0.9. The agent is bundled for its memory, too: each of its threads would load what strips types, 80 MiB in all.
//
// build/plugin.cjs        what is started: loads the bundle with what V8 compiled for an earlier call (src/bin/start-plugin.ts)
// build/plugin.cjs.flags  what the shim and `mooring plugin` tell V8, and the size of the Node.js that was found to know it
// build/plugin/           the bundle: one file with what every call needs, others with what is loaded when first used. In
//                         CommonJS: the loader of ES modules, and the copies that it makes of Node's own, cost 20 ms
// build/agent.mjs, build/agent/
//                         the same for `mooring agent` and its threads: a file each with everything, read when it starts, so that an
//                         agent goes on when these files are replaced under it
// build/mooring.mjs, build/mooring/
//                         all commands, with what each needs in files of its own
// build/code-cache/       filled by the first call of each kind, keyed by Node.js, its flags and the text of the bundle
import { spawnSync } from 'node:child_process'
import { hash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type BuildOptions, build, type Plugin } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))

const startOf = (bundle: string) => `import { enableCompileCache } from 'node:module'
enableCompileCache(new URL('./code-cache', import.meta.url).pathname)
await import('./${bundle}/mooring.js')
`
// Packages in CommonJS call require() for Node's own modules; an ES module has none unless it is made.
const requireForCommonJs = `import { createRequire as createRequireOfBundle } from 'node:module'
const require = createRequireOfBundle(import.meta.url)`

const options = {
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node26',
  // koffi finds its native library beside its own files.
  external: ['koffi'],
  banner: { js: requireForCommonJs },
  // Those of packages, which lie beside in node_modules: one letter beyond ASCII, in a name, and V8 keeps two bytes for each.
  legalComments: 'none',
  logLevel: 'warning',
  write: false as const,
} satisfies BuildOptions & { write: false }

/** Threads are files of their own beside the bundle: what starts one names it as it is called there. */
const threads: Plugin = {
  name: 'threads',
  setup(build) {
    build.onLoad({ filter: /\/src\/.*\.ts$/ }, ({ path }) => ({
      contents: readFileSync(path, 'utf8').replaceAll(/new URL\('\.\/([\w-]+)\.ts'/g, "new URL('./$1.js'"),
      loader: 'ts',
    }))
  },
}

/** Without the other commands, for which there is a bundle of its own. */
const agentAlone: Plugin = {
  name: 'agent alone',
  setup(build) {
    build.onResolve({ filter: /./ }, ({ kind, path, importer }) =>
      kind === 'dynamic-import' && importer.endsWith('/bin/mooring.ts') && path !== './agent.ts'
        ? { path, namespace: 'nothing' }
        : undefined,
    )
    build.onLoad({ filter: /./, namespace: 'nothing' }, () => ({ contents: 'export {}' }))
  },
}

/** What is loaded when first used, as files of their own: a bundle in CommonJS is not split by itself. */
const LAZY = { undici: 'undici/lib/dispatcher/pool.js', yaml: './yaml.ts' } as const
const lazy: Plugin = {
  name: 'lazy',
  setup(build) {
    build.onResolve({ filter: /./ }, ({ kind, path }) => {
      const name = Object.entries(LAZY).find(([, lazyPath]) => lazyPath === path)?.[0]
      return kind === 'dynamic-import' && name !== undefined ? { path: `./${name}.cjs`, external: true } : undefined
    })
  },
}

/**
 * The part of koffi that does the work, without what finds it among the platforms (10 ms of 70), and node:crypto only when it
 * is used: it brings Node's streams (7 ms).
 */
const QUICK: Readonly<Record<string, (path: string) => string>> = {
  koffi: path => `try {
    const { arch } = process
    module.exports = require('@koromix/koffi-linux-' + arch + '/linux_' + arch + '/koffi.node')
  } catch {
    module.exports = require('${path}').default
  }`,
  'node:crypto': path =>
    ['createHash', 'hash', 'randomBytes', 'timingSafeEqual']
      .map(name => `export const ${name} = (...args) => process.getBuiltinModule('${path}').${name}(...args)`)
      .join('\n'),
}
const quick: Plugin = {
  name: 'quick',
  setup(build) {
    build.onResolve({ filter: new RegExp(`^(${Object.keys(QUICK).join('|')})$`) }, ({ path, importer }) =>
      importer.startsWith(`${root}src/`) ? { path, namespace: 'quick' } : { path, external: true },
    )
    build.onLoad({ filter: /./, namespace: 'quick' }, ({ path }) => ({ contents: QUICK[path]!(path) }))
  },
}

/** Modules of Node.js that take half a millisecond or more to load and that few calls use: loaded when first used. */
const RARE = ['node:child_process', 'node:fs/promises', 'node:os', 'node:timers/promises']
const rare: Plugin = {
  name: 'rare',
  setup(build) {
    build.onResolve({ filter: /^node:/ }, ({ path, namespace }) =>
      RARE.includes(path) && namespace !== 'rare' ? { path, namespace: 'rare' } : undefined,
    )
    build.onLoad({ filter: /./, namespace: 'rare' }, async ({ path }) => {
      const names = Object.keys(await import(path)).filter(name => name !== 'default' && name !== 'module.exports')
      return {
        contents: `module.exports = { ${names.map(name => `get ${name}() { return require('${path}').${name} }`)} }`,
      }
    })
  },
}

const plugin = await build({
  ...options,
  format: 'cjs',
  banner: {},
  entryPoints: {
    plugin: 'src/bin/plugin.ts',
    undici: LAZY.undici,
    yaml: 'src/openstack/yaml.ts',
  },
  outExtension: { '.js': '.cjs' },
  outdir: 'build/plugin',
  inject: ['scripts/quick-performance.ts'],
  // What is loaded when first used, too: require() has no loader of ES modules to start.
  supported: { 'dynamic-import': false },
  plugins: [lazy, quick, rare],
  // Of the threads, which a call does not start.
  logOverride: { 'empty-import-meta': 'silent' },
})
const pluginText = plugin.outputFiles.find(({ path }) => basename(path) === 'plugin.cjs')!.contents
const startOfPlugin = await build({
  ...options,
  format: 'cjs',
  banner: {},
  entryPoints: ['src/bin/start-plugin.ts'],
  define: { bundleText: JSON.stringify(hash('sha256', pluginText).slice(0, 16)) },
})
const agent = await build({
  ...options,
  entryPoints: ['src/bin/mooring.ts', 'src/host/worker.ts', 'src/agent/checkpoint.ts'],
  entryNames: '[name]',
  outdir: 'build/agent',
  plugins: [threads, agentAlone],
  logOverride: { 'import-is-undefined': 'silent' },
})
const mooring = await build({
  ...options,
  entryPoints: [
    'src/bin/mooring.ts',
    'src/host/worker.ts',
    'src/agent/checkpoint.ts',
    'src/demo/station-thread.ts',
    'src/simulator/dataplane/forward-thread.ts',
  ],
  entryNames: '[name]',
  outdir: 'build/mooring',
  splitting: true,
  plugins: [threads],
})

// By renaming, because a plugin may be starting at this moment.
function replaceFile(path: string, contents: string | Uint8Array): void {
  writeFileSync(`${path}.new`, contents)
  renameSync(`${path}.new`, path)
}

// Keyed by the text of what is about to go.
rmSync(`${root}/build/code-cache`, { recursive: true, force: true })
for (const [name, { outputFiles }] of Object.entries({ agent, mooring, plugin })) {
  mkdirSync(`${root}/build/${name}`, { recursive: true })
  // The entry is the first: it must not name a file that is not there yet.
  for (const file of outputFiles.toReversed()) replaceFile(file.path, file.contents)
  const names = new Set(outputFiles.map(({ path }) => basename(path)))
  for (const left of readdirSync(`${root}/build/${name}`))
    if (!names.has(left)) rmSync(`${root}/build/${name}/${left}`, { force: true })
}
for (const name of ['agent', 'mooring']) replaceFile(`${root}/build/${name}.mjs`, startOf(name))
replaceFile(`${root}/build/plugin.cjs`, startOfPlugin.outputFiles[0]!.contents)

/**
 * For a process that lives for one call. V8 looks for primes to hash with and hashes its whole heap anew at each start, against
 * who could choose keys that collide (5 ms): here the keys are the administrator's. What an ADD allocates has room without
 * collecting anything, and where there is no room one thread collects: several wait for each other with sleeps of milliseconds.
 * One thread more for what V8 compiles, instead of four. It does compile: without, the first ADD in a directory of 20000
 * addresses takes a third longer.
 */
const FLAGS = ['--no-rehash-snapshot', '--min-semi-space-size=8', '--single-threaded-gc', '--v8-pool-size=1']
/** So that there is something compiled also where nothing can be kept later. @returns whether it succeeded */
const makeFirstCall = (flags: readonly string[]): boolean =>
  spawnSync(process.execPath, [...flags, `${root}/build/plugin.cjs`, 'loopback'], {
    env: { CNI_COMMAND: 'VERSION' },
    stdio: ['ignore', 'ignore', flags.length > 0 ? 'ignore' : 'inherit'],
  }).status === 0
if (makeFirstCall(FLAGS))
  replaceFile(`${root}/build/plugin.cjs.flags`, `${statSync(process.execPath).size} ${FLAGS.join(' ')}\n`)
else {
  rmSync(`${root}/build/plugin.cjs.flags`, { force: true })
  if (!makeFirstCall([])) throw new Error('A call of build/plugin.cjs failed, see above')
}
