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
import { dirname, join } from 'node:path'
import { Script } from 'node:vm'

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
/** What V8 compiled is of no use with other flags: whoever has them would keep it again and again. */
const flags = process.execArgv
  .join('')
  .replace(/[^\w-]/g, '')
  .slice(0, 150)
const directory = `${cache}/${process.version}-${process.arch}${flags}`
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
  ...(cachedData === undefined ? {} : { cachedData }),
})
const isUseful = cachedData !== undefined && script.cachedDataRejected !== true
let rare: typeof import('node:module') | undefined
globalThis.keepCompiled = succeeded => {
  rare?.flushCompileCache()
  if (ofKind !== undefined && isUseful) return
  let compiled: Buffer | undefined
  const compile = () => (compiled ??= script.createCachedData())
  if (succeeded) tryKeep(special, compile)
  if (!isUseful && !(succeeded && special === common)) tryKeep(common, compile)
}
script.runInThisContext()(load, module, exports)

/** Of a file beside the bundle, which is rare, Node.js keeps enough by itself; to tell it so in each call costs a millisecond. */
function load(name: string): unknown {
  if (!name.startsWith('./')) return require(name)
  rare = process.getBuiltinModule('node:module')
  rare.enableCompileCache(cache)
  return require(join(dirname(file), name))
}

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
