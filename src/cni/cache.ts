// SPDX-License-Identifier: Apache-2.0

import { mkdir, open, readdir, readFile, rename, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { codes } from './codes.ts'
import { decodeResult, encodeResult } from './convert.ts'
import { anyObject, array, decode, object, optional, string } from './decode.ts'
import { CniError } from './error.ts'
import { formatJson, parseJson, parseJsonObject } from './json.ts'
import type { JsonObject, JsonValue } from './plugin.ts'
import type { Result } from './result.ts'
import { systemErrorOf } from './system-error.ts'
import type { Version } from './versions.ts'

// libcni's result cache, so that containerd and we can read one another's: <directory>/results/<network>-<container>-<interface>.

export const defaultCacheDirectory = '/var/lib/cni'

/** What one attachment is, apart from the network. */
export type Attachment = {
  readonly containerId: string
  readonly ifName: string
  readonly netns: string
  readonly args: readonly (readonly [string, string])[]
  readonly capabilityArgs: JsonObject
}

/** An attachment of which the cache knows. */
export type CachedAttachment = Attachment & {
  readonly network: string
  /** The network list with which it was made. */
  readonly config: Uint8Array
  /** When it was written, milliseconds since 1970. */
  readonly writtenMs: number
}

// limits.h, NAME_MAX
const nameBytesMax = 255

const kind = 'cniCacheV1'

const entry = object({
  kind: string,
  containerId: string,
  config: optional(string, ''),
  ifName: string,
  networkName: string,
  netns: optional(string, ''),
  cniArgs: optional(array(array(string)), []),
  capabilityArgs: optional(anyObject, {}),
  result: optional(anyObject),
})

type Entry = Omit<ReturnType<typeof entry>, 'config'> & { readonly config: Uint8Array }

const fileOf = (directory: string, network: string, { containerId, ifName }: Attachment) =>
  join(directory, 'results', `${network}-${containerId}-${ifName}`)

/**
 * Refuses an attachment whose result could not be kept, before anything is done for it.
 *
 * @throws {CniError} 4 if the name is too long for a file; 104 if another attachment has the same file name, which is
 * possible because `-` may stand in every part of it.
 */
export async function checkCacheFile(directory: string, network: string, attachment: Attachment): Promise<void> {
  const file = fileOf(directory, network, attachment)
  const nameBytes = new TextEncoder().encode(basename(file)).length
  if (nameBytes > nameBytesMax)
    throw new CniError(
      codes.invalidEnvironment,
      `Cannot keep the result of CNI_CONTAINERID in network "${network}": its file name has ${nameBytes} bytes, ${nameBytesMax} are possible`,
      { details: attachment.containerId },
    )
  const bytes = await tryRead(file)
  const other = bytes === undefined ? undefined : tryEntry(bytes)
  if (other !== undefined && !isOf(other, network, attachment))
    throw new CniError(
      codes.duplicateAttachment,
      `Cannot keep the result in ${file}: the file belongs to container "${other.containerId}" in network "${other.networkName}"`,
    )
}

/** Writes what an ADD made: all of it or nothing, also if the power fails. */
export async function writeCache(
  directory: string,
  network: string,
  attachment: Attachment,
  config: Uint8Array,
  result: Result,
  version: Version,
): Promise<void> {
  const { containerId, ifName, netns, args, capabilityArgs } = attachment
  const text = formatJson({
    kind,
    containerId,
    config: config.toBase64(),
    ifName,
    networkName: network,
    ...(netns === '' ? {} : { netns }),
    ...(args.length === 0 ? {} : { cniArgs: args }),
    ...(Object.keys(capabilityArgs).length === 0 ? {} : { capabilityArgs }),
    result: encodeResult(result, version),
  })
  const file = fileOf(directory, network, attachment)
  await mkdir(dirname(file), { recursive: true, mode: 0o700 })
  // A short name: that of the result may be as long as names can be. (The global: importing node:crypto costs every process 4 ms.)
  const draft = join(dirname(file), `.${crypto.randomUUID()}`)
  try {
    await writeSynced(draft, text)
    await rename(draft, file)
  } catch (error) {
    await unlink(draft).catch(() => undefined)
    throw error
  }
  await using folder = await open(dirname(file), 'r')
  await folder.sync()
}

async function writeSynced(file: string, text: string): Promise<void> {
  await using handle = await open(file, 'wx', 0o600)
  await handle.writeFile(text)
  await handle.sync()
}

/**
 * The result of the attachment's ADD; undefined if there is none.
 *
 * A bare result, as runtimes wrote before libcni 0.8, counts too.
 *
 * @throws {CniError} 6 or 7 if the file cannot be understood.
 */
export async function readCachedResult(
  directory: string,
  network: string,
  attachment: Attachment,
): Promise<Result | undefined> {
  const file = fileOf(directory, network, attachment)
  const bytes = await tryRead(file)
  if (bytes === undefined) return undefined
  const found = tryEntry(bytes)
  if (found !== undefined && !isOf(found, network, attachment)) return undefined
  const value: JsonValue = found === undefined ? parseJson(bytes, `cached result ${file}`) : (found.result ?? null)
  // Here a result without a version is not one of the configuration's version, but of the oldest.
  return decodeResult(value, '0.1.0', { what: `cached result ${file}`, anyFamily: true })
}

/** Removes the attachment's file, also a broken one, never another attachment's. */
export async function removeCache(directory: string, network: string, attachment: Attachment): Promise<void> {
  const file = fileOf(directory, network, attachment)
  const bytes = await tryRead(file)
  const found = bytes === undefined ? undefined : tryEntry(bytes)
  if (bytes === undefined || (found !== undefined && !isOf(found, network, attachment))) return
  await unlink(file).catch(ignoreMissing)
}

/** Every attachment in the cache, in the order of file names; what is no `cniCacheV1` is skipped. */
export async function cachedAttachments(directory: string, containerId?: string): Promise<CachedAttachment[]> {
  const folder = join(directory, 'results')
  const names = (await readdir(folder).catch(ignoreMissing)) ?? []
  const found: CachedAttachment[] = []
  for (const name of names.sort()) {
    const file = join(folder, name)
    const status = await stat(file).catch(() => undefined)
    const bytes = status?.isFile() ? await tryRead(file) : undefined
    const read = bytes === undefined ? undefined : tryEntry(bytes)
    if (status === undefined || read === undefined || read.ifName === '' || read.networkName === '') continue
    if (containerId !== undefined && read.containerId !== containerId) continue
    found.push({
      containerId: read.containerId,
      ifName: read.ifName,
      network: read.networkName,
      netns: read.netns,
      args: read.cniArgs.map(([key = '', value = '']) => [key, value] as const),
      capabilityArgs: read.capabilityArgs,
      config: read.config,
      writtenMs: status.mtimeMs,
    })
  }
  return found
}

const isOf = (found: Entry, network: string, { containerId, ifName }: Attachment) =>
  found.networkName === network && found.containerId === containerId && found.ifName === ifName

function tryEntry(bytes: Uint8Array): Entry | undefined {
  try {
    const value = parseJsonObject(bytes, 'cache entry')
    if (value['kind'] !== kind) return undefined
    const read = decode(entry, value)
    return { ...read, config: Uint8Array.fromBase64(read.config) }
  } catch {
    return undefined
  }
}

async function tryRead(file: string): Promise<Uint8Array | undefined> {
  const bytes = await readFile(file).catch(ignoreMissing)
  return bytes && new Uint8Array(bytes)
}

function ignoreMissing(error: unknown): undefined {
  if (systemErrorOf(error)?.code !== 'ENOENT') throw error
}
