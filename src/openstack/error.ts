// SPDX-License-Identifier: Apache-2.0
import { classify, type ErrorKind } from './errors.ts'
import { isObject, tryParseJson } from './json.ts'
import type { WireAnswer, WireError } from './wire.ts'

/** The services by the names that operators use. */
export type ServiceName = 'keystone' | 'neutron' | 'nova'

export type OpenStackErrorFacts = {
  readonly service: ServiceName
  /** What was tried, with its values: `create port "x" on network y`. */
  readonly action: string
  readonly reason: string
  readonly status: number
  readonly type: string
  readonly kind: ErrorKind
  readonly requestId?: string | undefined
  readonly remedy?: string | undefined
  readonly retryAfterMs?: number | undefined
  readonly effect: 'none' | 'unknown'
  readonly cause?: unknown
}

/** A service did not do what was asked. The message holds action, values, reason and remedy, and no secret. */
export class OpenStackError extends Error {
  override readonly name = 'OpenStackError'
  readonly service: ServiceName
  /** HTTP status; 0 if there was no answer. */
  readonly status: number
  /** The service's own name of the error (`PortNotFound`, `itemNotFound`), or ours where there was no answer (`TimeOut`). */
  readonly type: string
  readonly kind: ErrorKind
  /** For the service's log; undefined if there was no answer. */
  readonly requestId: string | undefined
  /** What the service itself said, or why there was no answer. */
  readonly reason: string
  /** The message without the remedy. */
  readonly summary: string
  /** What the user can do. */
  readonly remedy: string | undefined
  /** When trying again may help: the service asked for it, or we leave it alone until then. */
  readonly retryAfterMs: number | undefined
  /** `unknown`: the request may have been carried out although no answer says so; look before repeating. */
  readonly effect: 'none' | 'unknown'

  constructor(facts: OpenStackErrorFacts) {
    const origin = [
      facts.status === 0 ? `${facts.service}: ${facts.type}` : `${facts.service} ${facts.status} ${facts.type}`,
      ...(facts.requestId === undefined ? [] : [`request ${facts.requestId}`]),
    ].join(', ')
    const uncertain = facts.effect === 'unknown' ? '; whether it took effect is not known' : ''
    const summary = `Cannot ${facts.action}: ${facts.reason} (${origin})${uncertain}`
    super(
      facts.remedy === undefined ? summary : `${summary}; ${facts.remedy}`,
      facts.cause === undefined ? undefined : { cause: facts.cause },
    )
    this.service = facts.service
    this.status = facts.status
    this.type = facts.type
    this.kind = facts.kind
    this.requestId = facts.requestId
    this.reason = facts.reason
    this.summary = summary
    this.remedy = facts.remedy
    this.retryAfterMs = facts.retryAfterMs
    this.effect = facts.effect
  }
}

/** True if a service said that the thing named in the call does not exist. A wrong URL is not that. */
export const isMissing = (error: unknown): boolean => error instanceof OpenStackError && error.kind === 'missing'

export type ErrorContext = {
  readonly service: ServiceName
  readonly action: string
  /** Takes secrets out of what the service wrote. */
  readonly redact: (text: string) => string
  /** True if this or an earlier try may have been carried out. */
  readonly uncertain: boolean
}

const reasonLengthMax = 600

/** The error that an answer of 400 and above means. */
export function errorFromAnswer(answer: WireAnswer, context: ErrorContext): OpenStackError {
  const { type, message } = decodeError(answer)
  const reason = shorten(context.redact(message))
  const verdict = classify(context.service, answer.status, type, message)
  return new OpenStackError({
    service: context.service,
    action: context.action,
    reason,
    status: answer.status,
    type,
    kind: verdict.kind,
    remedy: verdict.remedy,
    requestId: answer.headers['x-openstack-request-id'] ?? answer.headers['x-compute-request-id'],
    retryAfterMs: retryAfterMs(answer.headers['retry-after'], Date.now()),
    effect: context.uncertain ? 'unknown' : 'none',
  })
}

/** The error for a request without an answer. */
export function errorFromWire(error: WireError, context: ErrorContext): OpenStackError {
  const verdict = classify(context.service, 0, error.type, error.message)
  return new OpenStackError({
    service: context.service,
    action: context.action,
    reason: shorten(context.redact(error.message)),
    status: 0,
    type: error.type,
    kind: verdict.kind,
    remedy: verdict.remedy,
    retryAfterMs: error.retryMs,
    effect: context.uncertain ? 'unknown' : 'none',
    cause: error.cause,
  })
}

/** The error for an answer that is not what the API promises: never to be taken for an empty one. */
export function unexpectedAnswer(answer: WireAnswer, what: string, context: ErrorContext): OpenStackError {
  const verdict = classify(context.service, 0, 'UnexpectedAnswer', what)
  return new OpenStackError({
    service: context.service,
    action: context.action,
    reason: what,
    status: answer.status,
    type: 'UnexpectedAnswer',
    kind: verdict.kind,
    remedy: verdict.remedy,
    requestId: answer.headers['x-openstack-request-id'],
    effect: context.uncertain ? 'unknown' : 'none',
  })
}

type Decoded = { readonly type: string; readonly message: string }

/** The four shapes in which the services write errors, and what a proxy in between may send. */
function decodeError(answer: WireAnswer): Decoded {
  const body = tryParseJson(answer.body)
  if (!isObject(body)) return { type: `HTTP${answer.status}`, message: withoutTags(answer.body) || 'no explanation' }
  const neutron = body['NeutronError']
  if (typeof neutron === 'string') return { type: `HTTP${answer.status}`, message: neutron }
  if (isObject(neutron))
    return {
      type: text(neutron['type']) ?? `HTTP${answer.status}`,
      message: [text(neutron['message']), text(neutron['detail'])].filter(Boolean).join(' '),
    }
  const keystone = body['error']
  if (isObject(keystone))
    return {
      type: (text(keystone['title']) ?? `HTTP${answer.status}`).replaceAll(' ', ''),
      message: text(keystone['message']) ?? '',
    }
  if (typeof body['message'] === 'string')
    return {
      type: answer.status === 404 ? 'HTTPNotFound' : `HTTP${answer.status}`,
      message: withoutTags(body['message']),
    }
  const [key, value] = Object.entries(body)[0] ?? []
  if (key !== undefined && isObject(value)) return { type: key, message: withoutTags(text(value['message']) ?? '') }
  return { type: `HTTP${answer.status}`, message: 'no explanation' }
}

const text = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined)

const withoutTags = (source: string) =>
  source
    .replace(/<(style|script|title)[^>]*>.*?<\/\1>/gis, ' ')
    .replace(/<[^>]*>/g, ' ')
    .replace(/\s+/g, ' ')
    .trim()

function shorten(message: string): string {
  const line = message.replace(/\s+/g, ' ').trim().replace(/\.$/, '')
  return line.length <= reasonLengthMax ? line : `${line.slice(0, reasonLengthMax)}…`
}

/** `Retry-After` in milliseconds: seconds or an HTTP date (RFC 9110, 10.2.3); undefined if absent or unreadable. */
export function retryAfterMs(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined
  if (/^\d+$/.test(header)) return Number(header) * 1000
  const at = Date.parse(header)
  return Number.isNaN(at) ? undefined : Math.max(0, at - nowMs)
}
