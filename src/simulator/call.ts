// SPDX-License-Identifier: Apache-2.0
import type { State, Token } from './state.ts'

/** The body of a request whose body is not JSON. */
export const notJson: unique symbol = Symbol('not JSON')

export type Service = 'identity' | 'network' | 'compute'

/** One request to one service, decoded. */
export type Call = {
  readonly state: State
  readonly service: Service
  readonly method: string
  /** Path below the service's endpoint, decoded segments. */
  readonly path: readonly string[]
  /** The service's address as the caller wrote it (`http://host:port/prefix`), for links in answers. */
  readonly origin: string
  readonly query: URLSearchParams
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  /** Undefined when there was no body, `notJson` when it could not be decoded. */
  readonly body: unknown
  readonly parameters: Readonly<Record<string, string>>
  /** Who calls; undefined where a service asks for no token. */
  readonly token: Token | undefined
  /** A moment of the past that reads are to show instead of the present. */
  readonly asOfMs: number | undefined
  /** Milliseconds that a handler adds to the time until the answer. */
  extraMs: number
}

export type Answer = {
  readonly status: number
  /** Sent as JSON; nothing is sent if it is undefined. */
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

export type Handler = (call: Call) => Answer | Promise<Answer>
export type RouteTable = readonly (readonly [method: string, path: string, handler: Handler])[]

/** Who calls, where a token is certain. */
export function caller(call: Call): Token {
  if (call.token === undefined) throw new Error(`${call.method} /${call.path.join('/')} was routed without a token`)
  return call.token
}

export const isAdmin = (call: Call): boolean => caller(call).roles.includes('admin')

/** A value that is a JSON object, or undefined. */
export function asObject(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Readonly<Record<string, unknown>>)
    : undefined
}

/** Waits for part of a service's time. */
export const pause = (ms: number): Promise<void> =>
  ms <= 0 ? Promise.resolve() : new Promise(resolve => setTimeout(resolve, ms))
