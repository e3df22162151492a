// SPDX-License-Identifier: Apache-2.0

import { readFileSync, statSync } from 'node:fs'

/** Stands in the executable that `mooring install` links (shim/shim.c). */
const MARKER = 'mooring-shim/1'
/** The shim has less than 1 MiB; what is larger is another's. */
const SHIM_BYTES_MAX = 4 << 20
const KNOWN_MAX = 256
const known = new Map<string, boolean>()

/** True if the file is our shim. Looked at once, until inode, size or time of the file change. */
export async function isShim(file: string): Promise<boolean> {
  const found = statSync(file)
  if (!found.isFile()) return false
  const { dev, ino, size, mtimeMs } = found
  const key = `${dev}:${ino}:${size}:${mtimeMs}`
  const seen = known.get(key)
  if (seen !== undefined) return seen
  const ours = size < SHIM_BYTES_MAX && readFileSync(file).includes(MARKER)
  if (known.size >= KNOWN_MAX) known.clear()
  known.set(key, ours)
  return ours
}
