// SPDX-License-Identifier: Apache-2.0

// What a call without agent starts (build/plugin.cjs): runs the bundle of plugin.ts with what V8 compiled for an earlier call of the
// same plugin and verb. Node.js keeps what is compiled when a file is loaded, and not the hundreds of functions that are compiled when
// they are first called: 15 ms of CPU, in every call.

import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { enableCompileCache, getCompileCacheDir } from 'node:module'
import { constants, Script } from 'node:vm'

declare global {
  /** Keeps what V8 has compiled so far for later calls, for those of this kind where it succeeded. */
  var keepCompiled: ((succeeded: boolean) => void) | undefined
  /** Identifies the text of the bundle (scripts/bundle.ts): V8 itself would take any text of the same length for it. */
  var bundleText: string
}

const file = `${__dirname}/plugin/plugin.cjs`
const cache = `${__dirname}/code-cache`
/** No call writes for so long. */
const DRAFT_MS = 60_000
const [, , type = ''] = process.argv
const { CNI_COMMAND: command = '' } = process.env
// For the rare files beside the bundle. Its directory has a name for V8's version, flags and processor, without which what was
// compiled is of no use: calls with different flags would keep it again and again.
enableCompileCache(cache)
const directory = getCompileCacheDir() ?? cache
/** What a call of any kind left: better than nothing for the first one of each kind. */
const common = `${directory}/${bundleText}`
const special =
  /^[\w-]+$/.test(type) && /^(ADD|DEL|CHECK|GC|STATUS)$/.test(command) ? `${common}-${type}-${command}` : common

// The bundle is ASCII.
const source = `(function (require, module, exports) {${readFileSync(file, 'latin1')}\n})`
const ofKind = tryRead(special)
const cachedData = ofKind ?? tryRead(common)
const script = new Script(source, {
  filename: file,
  importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  ...(cachedData === undefined ? {} : { cachedData }),
})
const isUseful = cachedData !== undefined && script.cachedDataRejected !== true
if (ofKind === undefined || !isUseful)
  globalThis.keepCompiled = succeeded => {
    let compiled: Buffer | undefined
    const compile = () => (compiled ??= script.createCachedData())
    if (succeeded) tryKeep(special, compile)
    if (!isUseful && !(succeeded && special === common)) tryKeep(common, compile)
  }
script.runInThisContext()(require, module, exports)

function tryRead(path: string): Buffer | undefined {
  try {
    return readFileSync(path)
  } catch {
    return undefined
  }
}

/** On the disk before it has its name: V8 believes what it reads. Where it cannot be kept the next call compiles again. */
function tryKeep(path: string, compile: () => Buffer): void {
  const draft = `${path}.${process.pid}`
  try {
    mkdirSync(directory, { recursive: true })
    removeLeftDrafts()
    const fd = openSync(draft, 'wx', 0o600)
    try {
      writeFileSync(fd, compile())
      fsyncSync(fd)
      renameSync(draft, path)
    } catch {
      rmSync(draft, { force: true })
    } finally {
      closeSync(fd)
    }
  } catch {
    // The release lies where nobody may write, or a process of this number in another PID namespace writes just now.
  }
}

/** Of calls that were killed while they wrote. What is kept has no dot in its name. */
function removeLeftDrafts(): void {
  for (const name of readdirSync(directory).filter(each => each.includes('.'))) {
    const path = `${directory}/${name}`
    const changedMs = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Infinity
    if (Date.now() - changedMs > DRAFT_MS) rmSync(path, { force: true })
  }
}
