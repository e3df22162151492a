// SPDX-License-Identifier: Apache-2.0

import { sha256 } from '@noble/hashes/sha2.js'

/** SHA-256 of a text (as UTF-8) or of bytes one after the other, as 64 hex digits (FIPS 180-4). */
export function sha256Hex(...parts: readonly (string | Uint8Array)[]): string {
  const hash = sha256.create()
  for (const part of parts) hash.update(typeof part === 'string' ? new TextEncoder().encode(part) : part)
  return hash.digest().toHex()
}
