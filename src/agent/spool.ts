// SPDX-License-Identifier: Apache-2.0

import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { formatJson, parseJson } from '#cni'
import { withoutSecrets } from '#plugins'
import { decodeRequest, encodeRequest, type ShimRequest } from './wire.ts'

/** The DELs that shims promised while no agent ran, each a file with the request as it would have been sent. */
export const spoolOf = (dataDir: string): string => join(dataDir, 'spool')

/** What became of a promised DEL: done, to be tried again, or never possible, and why. */
export type Outcome = 'done' | 'later' | { readonly never: unknown }

/**
 * Works off what is in the spool, oldest first. A DEL that fails stays for the next time; what can never succeed is set
 * aside for the operator.
 * @param tried names of entries that were tried, in this call or an earlier one
 * @param serve gets the request and when it was promised, in ms since 1970
 * @returns how many remain
 */
export async function workOffSpool(
  directory: string,
  tried: Set<string>,
  serve: (request: ShimRequest, promisedMs: number) => Promise<Outcome>,
  onBadFile: (file: string, error: unknown) => void,
): Promise<number> {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const names = readdirSync(directory)
  removeOldDrafts(directory, names)
  let remaining = 0
  for (const name of names.filter(isSpoolEntry).sort()) {
    const file = join(directory, name)
    tried.add(name)
    const outcome = await serveFile(file, request => serve(request, promisedMs(name)))
    if (outcome === 'later') {
      remaining++
      continue
    }
    if (outcome === 'done') rmSync(file, { force: true })
    else {
      onBadFile(file, outcome.never)
      try {
        setAside(file)
      } catch (error) {
        // A full disk, say. It stays tried: what comes after it, and every ADD, must not fail for its sake.
        onBadFile(file, error)
        remaining++
        continue
      }
    }
    tried.delete(name)
  }
  return remaining
}

/**
 * Keeps what an operator needs to see what it was, for as long as he likes: without the secrets of the configuration, and
 * of the environment only what is CNI's. What cannot be read is left out: nobody can say what it holds.
 */
function setAside(file: string): void {
  let kept: Uint8Array = new Uint8Array(0)
  try {
    const { type, env, stdin } = decodeRequest(readFileSync(file).subarray(4))
    const ofCni = Object.fromEntries(Object.entries(env).filter(([name]) => name.startsWith('CNI_')))
    kept = encodeRequest({ type, env: ofCni, stdin: readable(stdin) })
  } catch {}
  writeFileSync(`${file}.draft`, kept, { mode: 0o600 })
  renameSync(`${file}.draft`, `${file}.bad`)
  rmSync(file, { force: true })
}

function readable(stdin: Uint8Array): Uint8Array {
  try {
    return new TextEncoder().encode(formatJson(withoutSecrets(parseJson(stdin, 'configuration'))))
  } catch {
    return new Uint8Array(0)
  }
}

async function serveFile(file: string, serve: (request: ShimRequest) => Promise<Outcome>): Promise<Outcome> {
  let request: ShimRequest
  try {
    request = decodeRequest(readFileSync(file).subarray(4))
  } catch (error) {
    return { never: error }
  }
  return await serve(request)
}

/** A shim that was killed before it had promised anything; what it wrote may hold a password. */
const DRAFT_MS = 60_000
function removeOldDrafts(directory: string, names: readonly string[]): void {
  for (const name of names.filter(each => each.endsWith('.draft')))
    if (Date.now() - promisedMs(name) > DRAFT_MS) rmSync(join(directory, name), { force: true })
}

/** The name begins with the nanoseconds since 1970. */
const promisedMs = (name: string): number => Number(name.slice(0, name.indexOf('-')).slice(0, -6))

/** Time that a change may lag behind the clock: kernels before 6.13 stamp with the time of the last tick. */
const TICK_MS = 100
/** Directories in which every entry was tried, and the time that they carried then. */
const quiet = new Map<string, number>()

/**
 * True if there is an entry that was not tried yet. A shim that finds no agent writes one while an agent starts, or just
 * after the last look; what comes after it must not overtake it. Asked before each ADD: a directory that carries the time
 * of the last look is not read again.
 */
export function hasNewEntries(directory: string, tried: ReadonlySet<string>): boolean {
  const { mtimeMs } = statSync(directory)
  if (quiet.get(directory) === mtimeMs) return false
  const found = readdirSync(directory).some(name => isSpoolEntry(name) && !tried.has(name))
  if (!found && Date.now() - mtimeMs > TICK_MS) quiet.set(directory, mtimeMs)
  return found
}

/** True for a promised DEL; drafts, and what was set aside, have other names. */
export const isSpoolEntry = (name: string) => /^\d+-\d+$/.test(name)
