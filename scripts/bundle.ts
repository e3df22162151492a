// SPDX-License-Identifier: Apache-2.0
// Bundles src/bin/plugin.ts into one JavaScript file. A one-shot plugin call pays for every module that it loads and for
// every type that is stripped; one file with V8's code cache beside it starts in a fraction of that.
//
// build/plugin.mjs        what is started: switches the code cache on, then loads the bundle (a cache covers only what is
//                         loaded after it was switched on)
// build/plugin/           the bundle: one file with what every call needs, others with what is loaded when first used
// build/code-cache/       filled by the first call, keyed by V8's version and the text of the bundle
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))

const start = `import { enableCompileCache } from 'node:module'
enableCompileCache(new URL('./code-cache', import.meta.url).pathname)
await import('./plugin/plugin.js')
`

// Packages in CommonJS call require() for Node's own modules; an ES module has none unless it is made.
const requireForCommonJs = `import { createRequire as createRequireOfBundle } from 'node:module'
const require = createRequireOfBundle(import.meta.url)`

const bundle = await build({
  absWorkingDir: root,
  entryPoints: ['src/bin/plugin.ts'],
  outdir: 'build/plugin',
  splitting: true,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node26',
  // koffi finds its native library beside its own files.
  external: ['koffi'],
  banner: { js: requireForCommonJs },
  logLevel: 'warning',
  write: false,
})

// By renaming, because a plugin may be starting at this moment.
function replaceFile(path: string, contents: string | Uint8Array): void {
  writeFileSync(`${path}.new`, contents)
  renameSync(`${path}.new`, path)
}

mkdirSync(`${root}/build/plugin`, { recursive: true })
// Chunks first, whose names hold their hash: the entry must not name one that is not there yet.
for (const file of bundle.outputFiles.toReversed()) replaceFile(file.path, file.contents)
replaceFile(`${root}/build/plugin.mjs`, start)
