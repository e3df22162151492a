// SPDX-License-Identifier: Apache-2.0

import { codes } from './codes.ts'
import { CniError } from './error.ts'
import type { JsonNumber, JsonObject, JsonValue } from './plugin.ts'

/** A network configuration, or the answer of a plugin, may be so many bytes long. */
export const jsonBytesMax = 1024 * 1024
/** Objects and arrays may be nested so deeply. */
const jsonDepthMax = 512

// The reviver's third argument and raw numbers (ES2026, "JSON.parse source text access") are not in TypeScript's library yet.
const json = JSON as unknown as {
  parse(text: string, reviver: (key: string, value: JsonValue, context: { source?: string }) => JsonValue): JsonValue
  stringify(value: unknown, replacer?: null, indent?: number): string
  rawJSON(text: string): JsonNumber
  isRawJSON(value: unknown): value is JsonNumber
}

/**
 * Decodes one JSON value. A number that a double cannot hold is kept as its source text, so that a configuration passes
 * through us unchanged.
 *
 * @param what names the bytes in errors.
 * @throws {CniError} 6, with the place of the fault and none of the content: a configuration may hold passwords.
 */
export function parseJson(bytes: Uint8Array, what: string): JsonValue {
  if (bytes.length > jsonBytesMax) throw undecodable(what, `${bytes.length} bytes are more than ${jsonBytesMax}`)
  const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes)
  if (text.startsWith('\ufeff')) throw undecodable(what, 'it starts with a byte order mark')
  if (depthOf(text) > jsonDepthMax) throw undecodable(what, `it is nested more than ${jsonDepthMax} levels deep`)
  try {
    if (!mayHoldLongNumber.test(text)) return JSON.parse(text)
    return json.parse(text, (_key, value, { source }) =>
      typeof value === 'number' && source !== undefined && !survivesDouble(source, value)
        ? json.rawJSON(source)
        : value,
    )
  } catch {
    throw undecodable(what, faultOf(text))
  }
}

/** As `parseJson`, for what has to be an object. */
export function parseJsonObject(bytes: Uint8Array, what: string): JsonObject {
  const value = parseJson(bytes, what)
  if (!isJsonObject(value)) throw undecodable(what, `it is ${describeJson(value)}, not an object`)
  return value
}

/** One line, numbers that were kept as text written as they came. */
export const formatJson = (value: unknown): string => json.stringify(value)

/** The layout of the reference implementation: four spaces, no newline at the end. */
export const indentJson = (value: unknown): string => json.stringify(value, null, 4)

/** True for an object, not for an array, null, or a number that was kept as text. */
export const isJsonObject = (value: JsonValue | undefined): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !json.isRawJSON(value)

/** True for a number that was kept as text. */
export const isJsonNumber = (value: JsonValue | undefined): value is JsonNumber => json.isRawJSON(value)

/** The kind of a value in words, never the value itself. */
export function describeJson(value: JsonValue): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  if (isJsonNumber(value)) return 'a number'
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`
}

/**
 * The value under a key in any case, the last one if there are several, as Go's decoder finds it.
 *
 * Containerd writes `HostPort` where the specification says `hostPort`.
 */
export function lookup(object: JsonObject, name: string): JsonValue | undefined {
  const wanted = name.toLowerCase()
  let found: JsonValue | undefined
  for (const key of Object.keys(object)) if (key.toLowerCase() === wanted) found = object[key]
  return found
}

// A reviver makes parsing several times slower; hardly any configuration has such numbers (or texts that look like them).
const mayHoldLongNumber = /[\d.]{16}|\d[eE][+-]?\d{3}/

function survivesDouble(source: string, value: number): boolean {
  if (/^-?\d+$/.test(source)) return Number.isSafeInteger(value)
  return Number.isFinite(value) && source.replace(/[eE].*$/, '').replace(/\D/g, '').length <= 15
}

// JSON.parse with a reviver recurses: the depth is looked at before, without recursion.
function depthOf(text: string): number {
  let [depth, deepest, quoted] = [0, 0, false]
  for (let index = 0; index < text.length; index++) {
    const char = text[index]
    if (quoted) {
      if (char === '\\') index++
      else if (char === '"') quoted = false
    } else if (char === '"') quoted = true
    else if (char === '{' || char === '[') deepest = Math.max(deepest, ++depth)
    else if (char === '}' || char === ']') depth--
  }
  return deepest
}

// V8 quotes the text around the fault, and a password could stand there: only the place is told. Found by bisection, because
// V8 does not give it for every fault: a prefix of sound JSON fails at its end, or not at all.
function faultOf(text: string): string {
  let [sound, unsound] = [0, text.length + 1]
  while (unsound - sound > 1) {
    const middle = (sound + unsound) >> 1
    if (failsBeforeEnd(text.slice(0, middle))) unsound = middle
    else sound = middle
  }
  if (sound === text.length) return text.trim() === '' ? 'it is empty' : 'it ends too early'
  const before = text.slice(0, sound).split('\n')
  return `invalid JSON at line ${before.length} column ${before.at(-1)!.length + 1}`
}

function failsBeforeEnd(text: string): boolean {
  try {
    JSON.parse(text)
    return false
  } catch (error) {
    const message = (error as SyntaxError).message
    const position = / at position (\d+)/.exec(message)?.[1]
    return position === undefined ? !message.startsWith('Unexpected end') : Number(position) < text.length
  }
}

const undecodable = (what: string, reason: string) => new CniError(codes.decode, `Cannot decode ${what}: ${reason}`)
