// SPDX-License-Identifier: Apache-2.0

import { isJsonObject, parseJsonObject } from './json.ts'
import type { JsonObject, JsonValue } from './plugin.ts'

/** A runtime writes the same configuration for each container of a network; few networks have more than one variant. */
const KEPT_MAX = 16
const KEPT_BYTES_MAX = 16 << 10

type Kept = { readonly bytes: Uint8Array; readonly config: JsonObject }
let kept: readonly Kept[] = []

/**
 * The network configuration on a plugin's standard input. Equal bytes give the same object, which is frozen: whoever wants
 * another makes a copy.
 *
 * @throws {CniError} 6
 */
export function parseNetworkConfig(stdin: Uint8Array): JsonObject {
  const known = kept.find(each => Buffer.compare(each.bytes, stdin) === 0)
  if (known !== undefined) return known.config
  const config = freeze(parseJsonObject(stdin, 'network configuration'))
  if (stdin.length <= KEPT_BYTES_MAX) kept = [{ bytes: stdin.slice(), config }, ...kept.slice(0, KEPT_MAX - 1)]
  return config
}

function freeze<T extends JsonValue>(value: T): T {
  if (Array.isArray(value)) for (const each of value) freeze(each)
  else if (isJsonObject(value)) for (const each of Object.values(value)) freeze(each)
  return Object.freeze(value)
}

/** The same reading, done once for each configuration; what fails is tried again. */
export function oncePerConfig<T>(read: (config: JsonObject) => T): (config: JsonObject) => T {
  const known = new WeakMap<JsonObject, { readonly value: T }>()
  return config => {
    const found = known.get(config)
    if (found !== undefined) return found.value
    const value = read(config)
    known.set(config, { value })
    return value
  }
}
