// SPDX-License-Identifier: Apache-2.0

import { codes } from './codes.ts'
import { CniError } from './error.ts'
import { describeJson, isJsonNumber, isJsonObject } from './json.ts'
import type { JsonObject, JsonValue } from './plugin.ts'

/**
 * Reads one value of a configuration. `value` is undefined where the key is missing or null: for Go both are the same.
 *
 * @param path the keys that lead to the value, for errors.
 * @throws {CniError} 7, naming the key.
 */
export type Decoder<T> = (value: JsonValue | undefined, path: string) => T

/** What a decoder yields. */
export type Decoded<D> = D extends Decoder<infer T> ? T : never

/** Reads a configuration. @param what names it in errors. @throws {CniError} 7, naming the key. */
export function decode<T>(decoder: Decoder<T>, value: JsonValue | undefined, what = 'network configuration'): T {
  try {
    return decoder(value ?? undefined, '')
  } catch (error) {
    if (!(error instanceof BadValue)) throw error
    throw new CniError(codes.invalidConfig, `Cannot read ${what}: ${error.message}`)
  }
}

/** A value that a decoder refuses; `decode` makes it a CniError. */
export class BadValue extends Error {
  override readonly name = 'BadValue'

  constructor(path: string, reason: string) {
    super(path === '' ? `it ${reason}` : `"${path}" ${reason}`)
  }
}

/** Text. */
export const string: Decoder<string> = (value, path) => {
  if (typeof value !== 'string') throw wrongType(value, path, 'a string')
  return value
}

/** True or false. */
export const boolean: Decoder<boolean> = (value, path) => {
  if (typeof value !== 'boolean') throw wrongType(value, path, 'true or false')
  return value
}

/** A whole number within limits, both included. */
export function integer(min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER): Decoder<number> {
  return (value, path) => {
    const number = isJsonNumber(value) ? Number(value.rawJSON) : value
    if (typeof number !== 'number') throw wrongType(value, path, 'a number')
    if (!Number.isSafeInteger(number) || number < min || number > max)
      throw new BadValue(
        path,
        `is ${isJsonNumber(value) ? value.rawJSON : number}, want a whole number from ${min} to ${max}`,
      )
    return number
  }
}

/** Any JSON value, as it is. */
export const anything: Decoder<JsonValue> = (value, path) => {
  if (value === undefined) throw wrongType(value, path, 'a value')
  return value
}

/** An object whose keys we do not look at. */
export const anyObject: Decoder<JsonObject> = (value, path) => {
  if (!isJsonObject(value)) throw wrongType(value, path, 'an object')
  return value
}

/** One of some words. */
export function oneOf<const T extends string>(...words: readonly T[]): Decoder<T> {
  return (value, path) => {
    const text = string(value, path)
    const word = words.find(each => each === text)
    if (word === undefined)
      throw new BadValue(path, `is "${text}", want ${words.map(each => `"${each}"`).join(' or ')}`)
    return word
  }
}

/**
 * Text that a function understands, for example `parsed(tryParsePrefix, 'ADDRESS/LENGTH')`.
 *
 * The refused text is told: do not use it for secrets.
 */
export function parsed<T>(parse: (text: string) => T | undefined, want: string): Decoder<T> {
  return (value, path) => {
    const text = string(value, path)
    const result = parse(text)
    if (result === undefined) throw new BadValue(path, `is "${text}", want ${want}`)
    return result
  }
}

/** A list. */
export function array<T>(item: Decoder<T>): Decoder<T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw wrongType(value, path, 'an array')
    return value.map((each, index) => item(each ?? undefined, `${path}[${index}]`))
  }
}

/** An object with any keys and values of one kind. */
export function record<T>(item: Decoder<T>): Decoder<Map<string, T>> {
  return (value, path) =>
    new Map(
      Object.entries(anyObject(value, path)).map(([key, each]) => [key, item(each ?? undefined, join(path, key))]),
    )
}

/** A key that may be missing; `fallback` stands for it then. */
export function optional<T>(of: Decoder<T>): Decoder<T | undefined>
export function optional<T>(of: Decoder<T>, fallback: T): Decoder<T>
export function optional<T>(of: Decoder<T>, fallback?: T): Decoder<T | undefined> {
  return (value, path) => (value === undefined ? fallback : of(value, path))
}

/** A value with a condition: `condition` answers undefined, or why not (`must be less than …`). */
export function checked<T>(of: Decoder<T>, condition: (value: T) => string | undefined): Decoder<T> {
  return (value, path) => {
    const result = of(value, path)
    const reason = condition(result)
    if (reason !== undefined) throw new BadValue(path, reason)
    return result
  }
}

/**
 * An object with known keys, read as Go's decoder does: keys in any case, the last duplicate wins, unknown keys ignored.
 * Every key of the table is present in what it yields; an optional one without fallback is undefined.
 */
export function object<Fields extends { [key: string]: Decoder<unknown> }>(
  fields: Fields,
): Decoder<{ [Key in keyof Fields]: Decoded<Fields[Key]> }> {
  const names = Object.keys(fields).map(name => [name, name.toLowerCase()] as const)
  return (value, path) => {
    const source = anyObject(value, path)
    const byLowerCase = new Map<string, JsonValue>()
    for (const key of Object.keys(source)) byLowerCase.set(key.toLowerCase(), source[key]!)
    const result: { [key: string]: unknown } = {}
    for (const [name, lower] of names)
      result[name] = fields[name]!(byLowerCase.get(lower) ?? undefined, join(path, name))
    return result as { [Key in keyof Fields]: Decoded<Fields[Key]> }
  }
}

/** As `object`, for a part of a configuration that is ours alone: a key that is not in the table is a mistake. */
export function closedObject<Fields extends { [key: string]: Decoder<unknown> }>(
  fields: Fields,
): Decoder<{ [Key in keyof Fields]: Decoded<Fields[Key]> }> {
  const names = new Set(Object.keys(fields).map(name => name.toLowerCase()))
  const open = object(fields)
  return (value, path) => {
    const result = open(value, path)
    const strange = Object.keys(anyObject(value, path)).find(key => !names.has(key.toLowerCase()))
    if (strange === undefined) return result
    throw new BadValue(path, `has the unknown key "${strange}", known are ${Object.keys(fields).join(', ')}`)
  }
}

const join = (path: string, key: string) => (path === '' ? key : `${path}.${key}`)

// The value itself is not told: it may be a secret under the wrong key.
const wrongType = (value: JsonValue | undefined, path: string, want: string) =>
  new BadValue(path, value === undefined ? `is missing, want ${want}` : `is ${describeJson(value)}, want ${want}`)
