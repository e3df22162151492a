// SPDX-License-Identifier: Apache-2.0

import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { decodeRequest, type ShimRequest } from './wire.ts'

/** The DELs that shims promised while no agent ran, each a file with the request as it would have been sent. */
export const spoolOf = (dataDir: string): string => join(dataDir, 'spool')

/**
 * Works off what is in the spool, oldest first. A DEL that fails stays for the next time; a file that is no request is
 * set aside, since it can never succeed.
 * @param tried names of entries that were tried, in this call or an earlier one
 * @returns how many remain
 */
export async function workOffSpool(
  directory: string,
  tried: Set<string>,
  serve: (request: ShimRequest) => Promise<boolean>,
  onBadFile: (file: string, error: unknown) => void,
): Promise<number> {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  let remaining = 0
  for (const name of readdirSync(directory).filter(isEntry).sort()) {
    const file = join(directory, name)
    tried.add(name)
    let request: ShimRequest
    try {
      request = decodeRequest(readFileSync(file).subarray(4))
    } catch (error) {
      renameSync(file, `${file}.bad`)
      onBadFile(file, error)
      continue
    }
    if (await serve(request)) rmSync(file, { force: true })
    else remaining++
  }
  return remaining
}

/**
 * True if there is an entry that was not tried yet. A shim that finds no agent writes one while an agent starts, or just
 * after the last look; what comes after it must not overtake it.
 */
export const hasNewEntries = (directory: string, tried: ReadonlySet<string>): boolean =>
  readdirSync(directory).some(name => isEntry(name) && !tried.has(name))

const isEntry = (name: string) => /^\d+-\d+$/.test(name)
