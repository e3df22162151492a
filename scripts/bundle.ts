// SPDX-License-Identifier: Apache-2.0
// Bundles src/bin/plugin.ts into one JavaScript file. A one-shot plugin call pays for every module that it loads and for
// every type that is stripped; one file with V8's code cache beside it starts in a fraction of that. The agent is bundled
// for its memory: each of its threads would load what strips types, 80 MiB in all.
//
// build/plugin.mjs        what is started: switches the code cache on, then loads the bundle (a cache covers only what is
//                         loaded after it was switched on)
// build/plugin/           the bundle: one file with what every call needs, others with what is loaded when first used
// build/agent.mjs, build/agent/
//                         the same for `mooring agent` and its threads
// build/code-cache/       filled by the first call, keyed by V8's version and the text of the bundle
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type BuildOptions, build, type Plugin } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))

const startOf = (file: string) => `import { enableCompileCache } from 'node:module'
enableCompileCache(new URL('./code-cache', import.meta.url).pathname)
await import('./${file}')
`

// Packages in CommonJS call require() for Node's own modules; an ES module has none unless it is made.
const requireForCommonJs = `import { createRequire as createRequireOfBundle } from 'node:module'
const require = createRequireOfBundle(import.meta.url)`

const options = {
  absWorkingDir: root,
  splitting: true,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node26',
  // koffi finds its native library beside its own files.
  external: ['koffi'],
  banner: { js: requireForCommonJs },
  logLevel: 'warning',
  write: false as const,
} satisfies BuildOptions & { write: false }

/** Threads are files of their own beside the bundle: what starts one names it as it is called there. */
const threads: Plugin = {
  name: 'threads',
  setup(build) {
    build.onLoad({ filter: /\/src\/(host\/host|agent\/agent)\.ts$/ }, ({ path }) => ({
      contents: readFileSync(path, 'utf8').replaceAll(/new URL\('\.\/(\w+)\.ts'/g, "new URL('./$1.js'"),
      loader: 'ts',
    }))
  },
}

const plugin = await build({ ...options, entryPoints: ['src/bin/plugin.ts'], outdir: 'build/plugin' })
const agent = await build({
  ...options,
  entryPoints: ['src/bin/mooring.ts', 'src/host/worker.ts', 'src/agent/checkpoint.ts'],
  entryNames: '[name]',
  outdir: 'build/agent',
  plugins: [threads],
})

// By renaming, because a plugin may be starting at this moment.
function replaceFile(path: string, contents: string | Uint8Array): void {
  writeFileSync(`${path}.new`, contents)
  renameSync(`${path}.new`, path)
}

// Entries last: they must not name a chunk that is not there yet. The names of chunks hold their hash.
for (const [name, { outputFiles }] of Object.entries({ agent, plugin })) {
  mkdirSync(`${root}/build/${name}`, { recursive: true })
  for (const file of outputFiles.toReversed()) replaceFile(file.path, file.contents)
}
replaceFile(`${root}/build/agent.mjs`, startOf('agent/mooring.js'))
replaceFile(`${root}/build/plugin.mjs`, startOf('plugin/plugin.js'))
