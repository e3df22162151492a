// SPDX-License-Identifier: Apache-2.0
import { inspect } from 'node:util'

/** A password, application credential secret or token. Whatever prints it prints `***`; only `reveal` gives it out. */
export type Secret = { reveal(): string }

const hidden = '***'

/** Wraps a text so that no log, error, JSON or inspection shows it. */
export function secret(text: string): Secret {
  // Only the closure knows the text: there is no property that a serialiser could walk into.
  const wrapped = { reveal: () => text }
  for (const [key, value] of [
    ['toString', () => hidden],
    ['toJSON', () => hidden],
    [inspect.custom, () => hidden],
    [Symbol.toPrimitive, () => hidden],
  ] as const)
    Object.defineProperty(wrapped, key, { value })
  Object.defineProperty(wrapped, 'reveal', { enumerable: false })
  return Object.freeze(wrapped)
}

/** Replaces every occurrence of the secrets in a foreign text: Keystone's validation errors repeat what they were sent. */
export function redact(text: string, secrets: readonly Secret[]): string {
  for (const each of secrets) {
    const revealed = each.reveal()
    // Shorter ones would blank out ordinary words, and are no secret to begin with.
    if (revealed.length >= 4) text = text.replaceAll(revealed, hidden)
  }
  return text
}
